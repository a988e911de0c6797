//! What proxies reject, by Gateway: a NACK keeps the last good configuration in place, and becomes a condition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use meshwright_core::model::ObjectKey;
use meshwright_xds::{Event, TypeUrl};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

/// One resource that a proxy of a Gateway rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Type of the resource.
    pub kind: TypeUrl,
    /// Its name; [`meshwright_xds::envoy::Translation::origins_of`] gives the objects behind it.
    pub resource: Arc<str>,
    /// Its version; another one that is accepted ends the rejection.
    pub version: Arc<str>,
    /// Envoy's words.
    pub message: String,
    /// The proxy that said so first.
    pub proxy: String,
}

type Held = BTreeMap<(ObjectKey, TypeUrl, Arc<str>), Nack>;

/// All rejections that stand at this moment.
#[derive(Clone)]
pub struct Nacks {
    held: Arc<Mutex<Held>>,
    changes: Arc<watch::Sender<u64>>,
}

impl Default for Nacks {
    fn default() -> Self {
        Self { held: Arc::default(), changes: Arc::new(watch::Sender::new(0)) }
    }
}

impl Nacks {
    /// What the Gateway's proxies reject.
    pub fn of(&self, gateway: &ObjectKey) -> Vec<Nack> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.iter().filter(|((of, _, _), _)| of == gateway).map(|(_, nack)| nack.clone()).collect()
    }

    /// Changes whenever a rejection comes or goes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// For one stream.
    pub fn observer(&self, gateway: ObjectKey, proxy: String, streams: Gauge) -> Observer {
        Observer { nacks: self.clone(), gateway, proxy, streams }
    }

    fn edit(&self, edit: impl FnOnce(&mut Held) -> bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = edit(&mut held);
        drop(held);
        if changed {
            self.changes.send_modify(|n| *n += 1);
        }
    }
}

/// Turns one stream's events into rejections that stand or are over.
pub struct Observer {
    nacks: Nacks,
    gateway: ObjectKey,
    proxy: String,
    streams: Gauge,
}

impl Observer {
    /// Never blocks.
    pub fn observe(&mut self, event: Event) {
        match event {
            Event::Nack { kind, resources, message } => {
                for (resource, version) in resources {
                    tracing::warn!(proxy = self.proxy, %kind, %resource, message, "proxy rejects a resource");
                    let key = (self.gateway.clone(), kind, resource.clone());
                    let nack = Nack { kind, resource, version, message: message.clone(), proxy: self.proxy.clone() };
                    self.nacks.edit(|held| held.insert(key, nack.clone()).is_none_or(|old| old.message != nack.message));
                }
            }
            Event::Ack { kind, resources, removed } => {
                let removed = removed.into_iter().map(|name| (name, None));
                for (name, version) in resources.into_iter().map(|(name, version)| (name, Some(version))).chain(removed) {
                    let key = (self.gateway.clone(), kind, name);
                    // One proxy that takes what another rejected does not make it good.
                    let over = |nack: &Nack| version.as_ref() != Some(&nack.version);
                    self.nacks.edit(|held| held.get(&key).is_some_and(over) && held.remove(&key).is_some());
                }
            }
            Event::UnknownType(url) => tracing::warn!(proxy = self.proxy, url, "proxy asks for a type that is not served"),
            Event::Closed { .. } => {
                self.streams.dec();
                tracing::info!(proxy = self.proxy, "configuration stream closed");
            }
            Event::Subscription { .. } | Event::Settled { .. } => {}
        }
    }
}
