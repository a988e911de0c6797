//! What proxies refuse at the moment.
//!
//! Each replica knows of its own streams only. It says so in two places: in an Event on the object, whichever replica it is, and in the
//! object's status if it is the one that writes statuses. A refusal that only another replica saw is therefore an Event and a metric, not
//! a condition; with the proxies' streams spread over replicas the writer most often sees one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwright_core::ObjectKey;
use meshwright_core::model::{ObjectId, ObjectKind};
use meshwright_index::Index;
use meshwright_runtime::CancellationToken;
use meshwright_xds::{Event, TypeUrl};
use tokio::sync::Notify;

use crate::ads::Registry;
use crate::status::Events;

type Refused = (ObjectKey, TypeUrl, Arc<str>);

struct Refusal {
    message: String,
    streams: BTreeSet<u64>,
}

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Nacks {
    refused: Arc<Mutex<BTreeMap<Refused, Refusal>>>,
    changed: Arc<Notify>,
    registry: Registry,
}

impl Nacks {
    /// Finds the objects behind a resource in this registry.
    pub fn new(registry: Registry) -> Self {
        Self { refused: Arc::default(), changed: Arc::default(), registry }
    }

    /// Takes note of what happened on a stream.
    pub fn on_event(&self, stream: u64, gateway: &ObjectKey, event: &Event) {
        let mut refused = self.lock();
        match event {
            Event::Nack { kind, resources, message } => {
                for (name, _) in resources {
                    let refusal = refused
                        .entry((gateway.clone(), *kind, name.clone()))
                        .or_insert_with(|| Refusal { message: String::new(), streams: BTreeSet::new() });
                    refusal.message.clone_from(message);
                    refusal.streams.insert(stream);
                }
            }
            Event::Ack { kind, resources, removed } => {
                if refused.is_empty() {
                    return;
                }
                for name in resources.iter().map(|(name, _)| name).chain(removed) {
                    forget(&mut refused, &(gateway.clone(), *kind, name.clone()), stream);
                }
            }
            Event::Closed { .. } => {
                let keys: Vec<Refused> = refused.keys().cloned().collect();
                keys.iter().for_each(|key| forget(&mut refused, key, stream));
            }
            Event::Subscription { .. } | Event::Settled { .. } | Event::UnknownType(_) => return,
        }
        drop(refused);
        self.changed.notify_one();
    }

    /// Looks again, after the resources changed.
    pub fn recheck(&self) {
        if !self.lock().is_empty() {
            self.changed.notify_one();
        }
    }

    /// The objects to blame, with the proxies' words.
    pub fn rejections(&self) -> BTreeMap<ObjectId, String> {
        let mut rejections = BTreeMap::new();
        for ((gateway, kind, name), refusal) in self.lock().iter() {
            for object in blame(*kind, self.registry.origins(gateway, *kind, name)) {
                rejections.entry(object).or_insert_with(|| refusal.message.clone());
            }
        }
        rejections
    }

    /// Tells the index whenever the refusals change, until `drain` is cancelled.
    pub async fn report(self, index: Index, events: Events, drain: CancellationToken) {
        let mut known = BTreeMap::new();
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                () = self.changed.notified() => {}
            }
            let rejections = self.rejections();
            if rejections == known {
                continue;
            }
            for (object, message) in rejections.iter().filter(|(object, _)| !known.contains_key(*object)) {
                events.rejected(object, message);
            }
            index.set_rejections(rejections.clone()).await;
            known = rejections;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Refused, Refusal>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(refused: &mut BTreeMap<Refused, Refusal>, key: &Refused, stream: u64) {
    if let Some(refusal) = refused.get_mut(key) {
        refusal.streams.remove(&stream);
        if refusal.streams.is_empty() {
            refused.remove(key);
        }
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
