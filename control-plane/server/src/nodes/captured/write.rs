//! One write of one MeshNode's status.

use std::time::Duration;

use kube::Api;
use kube::api::PostParams;
use meshwright_api::MeshNode;

use super::super::followers::Followers;
use super::status::{Next, Said, next};

const ATTEMPTS: usize = 5;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(4);

/// What a write needs.
#[derive(Clone)]
pub struct Context {
    /// MeshNodes of the mesh's namespace.
    pub nodes: Api<MeshNode>,
    /// Whose streams are open.
    pub followers: Followers,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It said already what it should.
    Unchanged,
    /// It does now.
    Done,
    /// There is no such object, the agent is not the one to serve the node, or it is not connected here any more.
    NotOurs,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("request failed")]
    Api(#[from] kube::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("somebody else kept changing the object")]
    Contested,
}

/// Makes the MeshNode of this node say `wanted`, which came over this stream, unless it does. Never makes one: that is the operator's.
///
/// The object is read for each attempt: our watch may be behind the operator's decision, and the write goes to that very version.
///
/// # Errors
/// When the API server does not answer, or does not want it.
pub async fn write(context: &Context, node: &str, stream: u64, wanted: &Said) -> Result<Written, Error> {
    for attempt in 0..ATTEMPTS {
        let Some(mut object) = timely(context.nodes.get_opt(node)).await? else {
            return Ok(Written::NotOurs);
        };
        match next(&object, wanted) {
            Next::Settled => return Ok(Written::Unchanged),
            Next::NotItsTurn => return Ok(Written::NotOurs),
            Next::Write => {}
        }
        // An agent that went elsewhere has said there what is true now.
        if !context.followers.is_current(node, stream) {
            return Ok(Written::NotOurs);
        }
        object.status = Some(wanted.within(object.status.as_ref()));
        match timely(context.nodes.replace_status(node, &PostParams::default(), &object)).await {
            Ok(_) => return Ok(Written::Done),
            Err(Error::Api(kube::Error::Api(status))) if status.is_conflict() => {
                tracing::debug!(node, attempt, "MeshNode was changed by somebody else, reading it again");
            }
            Err(Error::Api(kube::Error::Api(status))) if status.is_not_found() => {
                return Ok(Written::NotOurs);
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::Contested)
}

async fn timely<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    Ok(tokio::time::timeout(REQUEST_TIMEOUT, request).await.map_err(|_| Error::Timeout)??)
}

#[cfg(test)]
mod tests;
