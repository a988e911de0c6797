//! The agents that are connected here, and what they reported last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwright_proto::nodes::NodeReport;
use meshwright_runtime::CancellationToken;
use tokio::sync::Notify;

#[derive(Default)]
struct State {
    /// The newest stream of each node.
    streams: BTreeMap<String, Stream>,
    /// Nodes that were reported of since somebody looked.
    touched: BTreeSet<String>,
    next: u64,
}

struct Stream {
    number: u64,
    superseded: CancellationToken,
    report: Option<Arc<NodeReport>>,
}

/// Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Followers {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

/// The stream of one agent; it has ended when this is dropped.
pub struct Follower {
    followers: Followers,
    node: String,
    number: u64,
    superseded: CancellationToken,
}

impl Followers {
    /// A stream of the node's agent has begun. One that was there before ends: an agent has one, so that one is of a process that is gone
    /// or of a connection that was lost, and what was said there must not be written any more.
    pub fn opened(&self, node: &str) -> Follower {
        let mut state = self.lock();
        state.next += 1;
        let (number, superseded) = (state.next, CancellationToken::new());
        let stream = Stream { number, superseded: superseded.clone(), report: None };
        if let Some(before) = state.streams.insert(node.to_owned(), stream) {
            before.superseded.cancel();
        }
        drop(state);
        Follower { followers: self.clone(), node: node.to_owned(), number, superseded }
    }

    /// The node's stream and what came over it last.
    pub fn report(&self, node: &str) -> Option<(u64, Arc<NodeReport>)> {
        self.lock().streams.get(node).and_then(|stream| Some((stream.number, stream.report.clone()?)))
    }

    /// Whether that stream is open still, and the newest of its node.
    pub fn is_current(&self, node: &str, number: u64) -> bool {
        self.lock().streams.get(node).is_some_and(|stream| stream.number == number)
    }

    /// Every node with a stream.
    pub fn nodes(&self) -> BTreeSet<String> {
        self.lock().streams.keys().cloned().collect()
    }

    /// Waits for a report.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Nodes that were reported of since the last call.
    pub fn take_touched(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.lock().touched)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// Takes what the agent reported.
    pub fn reported(&self, report: NodeReport) {
        let mut state = self.followers.lock();
        let Some(stream) = state.streams.get_mut(&self.node) else { return };
        if stream.number != self.number {
            return;
        }
        stream.report = Some(Arc::new(report));
        state.touched.insert(self.node.clone());
        drop(state);
        self.followers.changed.notify_one();
    }

    /// Waits until the node's agent has opened another stream.
    pub async fn superseded(&self) {
        self.superseded.cancelled().await;
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut state = self.followers.lock();
        if state.streams.get(&self.node).is_some_and(|stream| stream.number == self.number) {
            state.streams.remove(&self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(serving_epoch: i64) -> NodeReport {
        NodeReport { serving_epoch, ..NodeReport::default() }
    }

    #[tokio::test]
    async fn what_an_older_stream_says_is_not_heard() {
        let followers = Followers::default();
        let first = followers.opened("n1");
        assert_eq!(followers.report("n1"), None, "a stream is no report");
        first.reported(report(1));
        followers.changed().await;
        assert_eq!(followers.take_touched(), ["n1".to_owned()].into());
        assert!(followers.take_touched().is_empty());
        let (number, _) = followers.report("n1").unwrap();

        let second = followers.opened("n1");
        first.superseded().await;
        assert!(!followers.is_current("n1", number));
        first.reported(report(2));
        assert_eq!(followers.report("n1"), None, "of an agent that came back nothing is known yet");
        second.reported(report(3));
        drop(first);
        assert_eq!(
            followers.report("n1").unwrap().1.serving_epoch,
            3,
            "the end of the first ends nothing else"
        );
        drop(second);
        assert_eq!(followers.report("n1"), None);
        assert!(followers.nodes().is_empty());
    }
}
