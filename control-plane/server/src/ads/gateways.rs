//! One channel per Gateway: translated once, sent to each of its proxies.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use meshwright_core::model::ObjectKey;
use meshwright_xds::Snapshot;
use tokio::sync::watch;

type Channels = HashMap<ObjectKey, watch::Sender<Arc<Snapshot>>>;

/// The latest snapshot of every Gateway.
#[derive(Clone)]
pub struct Gateways {
    channels: Arc<RwLock<Channels>>,
    /// Counts the Gateways that came, for proxies that wait for theirs.
    came: Arc<watch::Sender<u64>>,
}

impl Default for Gateways {
    fn default() -> Self {
        Self { channels: Arc::default(), came: Arc::new(watch::Sender::new(0)) }
    }
}

impl Gateways {
    /// Sends the snapshot to the Gateway's proxies; unchanged resources are not sent again.
    pub fn publish(&self, gateway: &ObjectKey, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(gateway) {
            channel.send_replace(snapshot);
            return;
        }
        drop(channels);
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        channels.insert(gateway.clone(), watch::Sender::new(snapshot));
        drop(channels);
        self.came.send_modify(|n| *n += 1);
    }

    /// Forgets a Gateway; its proxies keep what they have until they are stopped.
    pub fn remove(&self, gateway: &ObjectKey) {
        self.channels.write().unwrap_or_else(PoisonError::into_inner).remove(gateway);
    }

    /// The Gateway's channel, as soon as it is known.
    pub async fn subscribe(&self, gateway: &ObjectKey) -> watch::Receiver<Arc<Snapshot>> {
        let mut came = self.came.subscribe();
        loop {
            let known = self.channels.read().unwrap_or_else(PoisonError::into_inner).get(gateway).map(watch::Sender::subscribe);
            if let Some(receiver) = known {
                return receiver;
            }
            if came.changed().await.is_err() {
                // The sender lives in `self`, so this cannot happen; waiting is the harmless answer.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_proxy_waits_for_its_gateway() {
        let gateways = Gateways::default();
        let key = ObjectKey::new("shop", "edge");
        let waiting = tokio::spawn({
            let (gateways, key) = (gateways.clone(), key.clone());
            async move { gateways.subscribe(&key).await.borrow().clone() }
        });
        gateways.publish(&ObjectKey::new("shop", "other"), Snapshot::default());
        gateways.publish(&key, Snapshot::default());
        waiting.await.unwrap();
    }
}
