//! What proxies refuse at the moment.
//!
//! Each replica knows of its own streams only. It says so in an Event on the object at once; the replica that writes statuses hears of it
//! by way of [`Shared`] and says so there.

mod policies;
mod shared;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meshwright_core::ObjectKey;
use meshwright_core::config::ServiceRoutes;
use meshwright_core::model::{ObjectId, ObjectKind};
use meshwright_index::Index;
use meshwright_runtime::CancellationToken;
use meshwright_xds::{Event, TypeUrl};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::ads::Registry;
use crate::snapshots::until;
use crate::status::Events;

use policies::Policies;
pub use shared::Shared;
use tables::{Tables, What};

/// A refusal outlives its stream by this long: the proxy comes back on another, perhaps to another replica, and refuses again.
const REMEMBERED: Duration = Duration::from_secs(60);

type Refused = (ObjectKey, TypeUrl, Arc<str>);

struct Refusal {
    message: String,
    version: Arc<str>,
    streams: BTreeSet<u64>,
    /// When the last of its streams closed.
    closed: Option<Instant>,
}

impl Refusal {
    /// When it is to be forgotten, whatever happens.
    fn end(&self) -> Option<Instant> {
        self.closed.map(|closed| closed + REMEMBERED)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.end().is_some_and(|end| end <= now)
    }
}

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Nacks {
    refused: Arc<Mutex<BTreeMap<Refused, Refusal>>>,
    /// About requests, and about connections.
    tables: Arc<Mutex<[Tables; 2]>>,
    policies: Arc<Mutex<Policies>>,
    changed: Arc<Notify>,
    registry: Registry,
}

impl Nacks {
    /// Finds the objects behind a resource in this registry.
    pub fn new(registry: Registry) -> Self {
        let tables = Arc::new(Mutex::new([What::Requests, What::Connections].map(Tables::new)));
        let (refused, policies) = Default::default();
        Self { refused, tables, policies, changed: Arc::default(), registry }
    }

    /// Takes note of what happened on a stream.
    pub fn on_event(&self, stream: u64, gateway: &ObjectKey, event: &Event) {
        let mut refused = self.lock();
        match event {
            Event::Nack { kind, resources, message } => {
                for (name, version) in resources {
                    let refusal =
                        refused.entry((gateway.clone(), *kind, name.clone())).or_insert_with(|| Refusal {
                            message: String::new(),
                            version: version.clone(),
                            streams: BTreeSet::new(),
                            closed: None,
                        });
                    refusal.message.clone_from(message);
                    refusal.version.clone_from(version);
                    refusal.closed = None;
                    refusal.streams.insert(stream);
                }
            }
            Event::Ack { kind, resources, removed } => {
                if refused.is_empty() {
                    return;
                }
                let taken = resources.iter().map(|(name, version)| (name, Some(version)));
                for (name, version) in taken.chain(removed.iter().map(|name| (name, None))) {
                    forget(&mut refused, &(gateway.clone(), *kind, name.clone()), stream, version);
                }
            }
            Event::Closed { .. } => {
                for refusal in refused.values_mut() {
                    if refusal.streams.remove(&stream) && refusal.streams.is_empty() {
                        refusal.closed = Some(Instant::now());
                    }
                }
            }
            Event::Subscription { .. } | Event::Settled { .. } | Event::UnknownType(_) => return,
        }
        drop(refused);
        self.changed.notify_one();
    }

    /// Takes note of what happened on the stream of a node.
    pub fn on_node_event(&self, stream: u64, node: &str, event: &Event) {
        let now = Instant::now();
        let mut news = self.policies().on_event(stream, node, event, now);
        for tables in self.tables().iter_mut() {
            news |= tables.on_event(stream, event, now);
        }
        if news {
            self.changed.notify_one();
        }
    }

    /// What nodes have of routes has these versions from now on: about requests, and about connections.
    pub fn published(&self, versions: [Option<&Arc<str>>; 2], routes: &Arc<ServiceRoutes>) {
        for (tables, version) in self.tables().iter_mut().zip(versions) {
            if let Some(version) = version {
                tables.published(version, routes);
            }
        }
    }

    /// Looks again, after the resources changed.
    pub fn recheck(&self) {
        if !self.lock().is_empty() {
            self.changed.notify_one();
        }
    }

    /// Whether a proxy of the Gateway works with older listeners or routes than it was sent.
    pub fn is_behind(&self, gateway: &ObjectKey) -> bool {
        let now = Instant::now();
        self.lock().iter().any(|((of, kind, _), refusal)| {
            of == gateway
                && matches!(kind, TypeUrl::Listener | TypeUrl::Route | TypeUrl::VirtualHost)
                && !refusal.is_over(now)
        })
    }

    fn next_end(&self) -> Option<Instant> {
        let of_gateways = self.lock().values().filter_map(Refusal::end).min();
        let of_tables = self.tables().iter().filter_map(Tables::next_end).min();
        [of_gateways, of_tables, self.policies().next_end()].into_iter().flatten().min()
    }

    /// The objects to blame, with the proxies' words.
    pub fn rejections(&self) -> BTreeMap<ObjectId, String> {
        let now = Instant::now();
        let mut rejections = BTreeMap::new();
        self.tables().iter_mut().for_each(|tables| rejections.extend(tables.rejections(now)));
        rejections.extend(self.policies().rejections(now));
        let mut refused = self.lock();
        refused.retain(|_, refusal| !refusal.is_over(now));
        for ((gateway, kind, name), refusal) in refused.iter() {
            for object in blame(*kind, self.registry.origins(gateway, *kind, name)) {
                rejections.entry(object).or_insert_with(|| refusal.message.clone());
            }
        }
        rejections
    }

    /// Tells the index and the other replicas whenever the refusals change, until `drain` is cancelled.
    pub async fn report(self, index: Index, events: Events, mut shared: Shared, drain: CancellationToken) {
        let (mut own, mut all) = (BTreeMap::new(), BTreeMap::new());
        let mut beat = interval(shared::BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_beat = tokio::select! {
                () = drain.cancelled() => return,
                () = self.changed.notified() => false,
                () = until(self.next_end()) => false,
                _ = beat.tick() => true,
            };
            let rejections = self.rejections();
            let changed = rejections != own;
            for (object, message) in rejections.iter().filter(|(object, _)| !own.contains_key(*object)) {
                events.rejected(object, message);
            }
            own = rejections;
            // What is known here does not wait for the API server.
            tell(&index, shared.with_others(&own), &mut all).await;
            if changed || is_beat {
                tokio::select! {
                    () = drain.cancelled() => return,
                    () = shared.exchange(&own) => {}
                }
                tell(&index, shared.with_others(&own), &mut all).await;
            }
        }
    }

    fn tables(&self) -> MutexGuard<'_, [Tables; 2]> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn policies(&self) -> MutexGuard<'_, Policies> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Refused, Refusal>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tell(index: &Index, now: BTreeMap<ObjectId, String>, known: &mut BTreeMap<ObjectId, String>) {
    if now != *known {
        index.set_rejections(now.clone()).await;
        *known = now;
    }
}

/// A stream took a version, or dropped the resource. What other streams still refuse stays refused; of a refusal whose stream has closed
/// nobody knows whose it was, so another version that anybody takes is enough.
fn forget(refused: &mut BTreeMap<Refused, Refusal>, key: &Refused, stream: u64, version: Option<&Arc<str>>) {
    let Some(refusal) = refused.get_mut(key) else { return };
    let own = refusal.streams.remove(&stream);
    let other_version = version != Some(&refusal.version);
    if refusal.streams.is_empty() && (own || other_version) {
        refused.remove(key);
    }
}

/// Routes cause what is made of them: clusters, endpoints and route tables. Where many routes went into one table nobody can say which, but
/// the Gateway as a whole is not what it should be.
fn blame(kind: TypeUrl, origins: BTreeSet<ObjectId>) -> BTreeSet<ObjectId> {
    let (gateways, routes): (BTreeSet<_>, BTreeSet<_>) =
        origins.into_iter().partition(|object| object.kind == ObjectKind::Gateway);
    match kind {
        TypeUrl::Cluster | TypeUrl::Endpoint if !routes.is_empty() => routes,
        TypeUrl::Route | TypeUrl::VirtualHost if routes.len() == 1 => routes,
        _ => gateways,
    }
}
