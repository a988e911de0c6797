//! What proxies have reported, for an hour. No I/O and no clock: whoever asks says what time it is.

use std::collections::BTreeMap;

use meshwright_core::ObjectKey;
use meshwright_proto::inspection::ObservedProxy;
use meshwright_proto::reports::{Proxy, Slot};
use prost::Message;

use super::bounded::{Bounded, Reported};

/// How long slots are kept, and proxies after their last report; seconds.
pub const KEPT: i64 = 3600;
/// Far more than any mesh has on one replica.
const MAX_PROXIES: usize = 2000;
/// Of one Gateway, those that are gone for less than an hour included.
const MAX_PROXIES_OF_GATEWAY: usize = 500;
/// Of all slots together; a proxy with traffic has about 200 kB after an hour.
const MAX_BYTES: usize = 64 * 1024 * 1024;
/// What a slot costs beside its content.
const SLOT_OVERHEAD: usize = 64;

/// Pod and instance: another process of the same pod began to count anew.
type Key = (ObjectKey, String);

#[derive(Debug, Default)]
struct Known {
    proxy: Proxy,
    last_report: i64,
    /// By their start, encoded: as messages an hour of them would have six times the size.
    slots: BTreeMap<i64, Box<[u8]>>,
    /// What the slots cost.
    bytes: usize,
}

/// Proxies and their slots.
#[derive(Debug, Default)]
pub struct Store(Bounded<Key, Known>);

impl Store {
    /// How many proxies have reported.
    pub fn len(&self) -> usize {
        self.0.proxies.len()
    }

    /// Takes a report. A slot that comes again replaces what was known of it; one that is too old is left out.
    pub fn record(&mut self, proxy: Proxy, slots: &[Slot], now: i64) -> Result<(), String> {
        let key = (ObjectKey::new(&proxy.pod_namespace, &proxy.pod_name), proxy.instance.clone());
        if !self.0.proxies.contains_key(&key) {
            self.make_room(&proxy)?;
        }
        self.0.record(key, MAX_BYTES, now, |known| {
            (known.proxy, known.last_report) = (proxy, now);
            slots.iter().filter(|slot| is_kept(slot.start, now)).for_each(|slot| known.insert(slot));
        });
        Ok(())
    }

    /// Proxies that reported within the last hour, with their slots from `since` on.
    pub fn observe(&self, since: i64, now: i64) -> Vec<ObservedProxy> {
        let since = since.max(now.saturating_sub(KEPT).saturating_add(1));
        let known = self.0.proxies.values().filter(|known| is_kept(known.last_report, now));
        let observed = known.map(|known| ObservedProxy {
            proxy: Some(known.proxy.clone()),
            last_report: known.last_report,
            slots: known.slots.range(since..).filter_map(|(_, slot)| Slot::decode(&**slot).ok()).collect(),
        });
        observed.collect()
    }

    /// Drops what is older than an hour.
    pub fn forget(&mut self, now: i64) {
        self.0.forget(now);
    }

    /// Room for another proxy: of its own Gateway the one that was silent for longest has to go, never one of others.
    fn make_room(&mut self, proxy: &Proxy) -> Result<(), String> {
        let of_gateway = |_: &Key, known: &Known| {
            known.proxy.gateway_name == proxy.gateway_name
                && known.proxy.gateway_namespace == proxy.gateway_namespace
        };
        match self.0.make_room(of_gateway, (MAX_PROXIES_OF_GATEWAY, MAX_PROXIES)) {
            true => Ok(()),
            false => Err(format!("{MAX_PROXIES} proxies report to this replica already")),
        }
    }
}

impl Known {
    fn insert(&mut self, slot: &Slot) {
        let encoded = slot.encode_to_vec().into_boxed_slice();
        self.bytes += cost(&encoded);
        self.bytes -= self.slots.insert(slot.start, encoded).map_or(0, |before| cost(&before));
    }
}

impl Reported for Known {
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn last_report(&self) -> i64 {
        self.last_report
    }

    fn pop(&mut self) {
        self.bytes -= self.slots.pop_first().map_or(0, |(_, slot)| cost(&slot));
    }

    fn forget(&mut self, now: i64) {
        while self.slots.first_key_value().is_some_and(|(start, _)| !is_kept(*start, now)) {
            self.pop();
        }
    }
}

/// Whether something of that time is kept.
pub fn is_kept(time: i64, now: i64) -> bool {
    time > now.saturating_sub(KEPT)
}

/// What an encoded slot costs, in bytes.
pub fn cost(slot: &[u8]) -> usize {
    slot.len() + SLOT_OVERHEAD
}

#[cfg(test)]
mod tests;
