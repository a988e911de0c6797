//! Clusters outlive what leads to them by a minute, with their endpoints, as those of gateways do: a connection or request may have been sent
//! there a moment ago, and a Service that comes back soon finds them warm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::Resource;

/// How long.
const LINGER: Duration = Duration::from_secs(60);

/// Clusters by name, each with the name of its endpoints.
pub(super) type Clusters = BTreeMap<Arc<str>, (Arc<Resource>, Arc<str>)>;

/// Those that nothing leads to any more.
#[derive(Debug, Clone, Default)]
pub(super) struct Lingering(BTreeMap<Arc<str>, Gone>);

#[derive(Debug, Clone)]
struct Gone {
    cluster: Arc<Resource>,
    assignment: Arc<Resource>,
    /// When somebody looked at the clock first.
    since: Option<Instant>,
}

impl Lingering {
    /// After a change of all clusters. `assignment` finds the endpoints that a cluster had by their name.
    pub fn next(
        &self,
        before: &Clusters,
        after: &Clusters,
        assignment: impl Fn(&str) -> Option<Arc<Resource>>,
    ) -> Self {
        let mut next = self.clone();
        for (name, (cluster, endpoints)) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
            if let Some(assignment) = assignment(endpoints) {
                next.0.insert(name.clone(), Gone { cluster: cluster.clone(), assignment, since: None });
            }
        }
        next.0.retain(|name, _| !after.contains_key(name));
        next
    }

    /// Forgets those whose time is over. Returns whether there was one.
    pub fn let_go(&mut self, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|_, gone| *gone.since.get_or_insert(now) + LINGER > now);
        self.0.len() != before
    }

    /// When the next one's time is over, as far as somebody has looked at the clock.
    pub fn next_end(&self) -> Option<Instant> {
        self.0.values().filter_map(|gone| gone.since).min().map(|since| since + LINGER)
    }

    pub fn clusters(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.values().map(|gone| &gone.cluster)
    }

    pub fn assignments(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.0.values().map(|gone| &gone.assignment)
    }
}
