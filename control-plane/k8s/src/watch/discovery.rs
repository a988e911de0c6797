//! Whether the API server serves a kind.

use std::time::Duration;

use kube::core::GroupVersion;

/// How often an absent API is looked for.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The answer of [`api_served`], if there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// It is served.
    Served,
    /// It is not.
    Absent,
}

/// Asks the API server whether it serves a kind in this very version.
///
/// # Errors
/// When the API server cannot be asked: absence must never be concluded from that.
pub async fn api_served(
    client: &kube::Client,
    group: &str,
    version: &str,
    kind: &str,
) -> kube::Result<Discovery> {
    let group_version = GroupVersion::gv(group, version);
    let resources = match client.list_api_group_resources(&group_version.api_version()).await {
        Ok(resources) => resources,
        // Not `is_not_found()`: for a group that nobody serves the answer is plain text without a reason.
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Discovery::Absent),
        Err(error) => return Err(error),
    };
    let served = resources.resources.iter().any(|resource| resource.kind == kind);
    Ok(if served { Discovery::Served } else { Discovery::Absent })
}
