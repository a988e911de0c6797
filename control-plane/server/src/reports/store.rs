//! What proxies have reported, for an hour. No I/O and no clock: whoever asks says what time it is.

use std::collections::BTreeMap;

use meshwright_core::ObjectKey;
use meshwright_proto::inspection::ObservedProxy;
use meshwright_proto::reports::{Proxy, Slot};
use prost::Message;

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

struct Known {
    proxy: Proxy,
    last_report: i64,
    /// By their start, encoded: as messages an hour of them would have six times the size.
    slots: BTreeMap<i64, Box<[u8]>>,
    /// What the slots cost.
    bytes: usize,
}

/// Proxies and their slots.
#[derive(Default)]
pub struct Store {
    proxies: BTreeMap<Key, Known>,
    bytes: usize,
}

impl Store {
    /// How many proxies have reported.
    pub fn len(&self) -> usize {
        self.proxies.len()
    }

    /// Takes a report. A slot that comes again replaces what was known of it; one that is too old is left out.
    pub fn record(&mut self, proxy: Proxy, slots: &[Slot], now: i64) -> Result<(), String> {
        let key = (ObjectKey::new(&proxy.pod_namespace, &proxy.pod_name), proxy.instance.clone());
        if !self.proxies.contains_key(&key) {
            self.make_room(&proxy)?;
        }
        let known = self.proxies.entry(key).or_insert_with(|| Known {
            proxy: Proxy::default(),
            last_report: now,
            slots: BTreeMap::new(),
            bytes: 0,
        });
        (known.proxy, known.last_report) = (proxy, now);
        self.bytes -= known.bytes;
        slots.iter().filter(|slot| is_kept(slot.start, now)).for_each(|slot| known.insert(slot));
        known.forget(now);
        self.bytes += known.bytes;
        self.shrink(MAX_BYTES);
        Ok(())
    }

    /// Proxies that reported within the last hour, with their slots from `since` on.
    pub fn observe(&self, since: i64, now: i64) -> Vec<ObservedProxy> {
        let since = since.max(now.saturating_sub(KEPT).saturating_add(1));
        let known = self.proxies.values().filter(|known| is_kept(known.last_report, now));
        let observed = known.map(|known| ObservedProxy {
            proxy: Some(known.proxy.clone()),
            last_report: known.last_report,
            slots: known.slots.range(since..).filter_map(|(_, slot)| Slot::decode(&**slot).ok()).collect(),
        });
        observed.collect()
    }

    /// Drops what is older than an hour.
    pub fn forget(&mut self, now: i64) {
        self.proxies.retain(|_, known| is_kept(known.last_report, now));
        self.proxies.values_mut().for_each(|known| known.forget(now));
        self.bytes = self.proxies.values().map(|known| known.bytes).sum();
    }

    /// Room for another proxy: of its own Gateway the one that was silent for longest has to go, never one of others.
    fn make_room(&mut self, proxy: &Proxy) -> Result<(), String> {
        let of_gateway = |known: &Known| {
            known.proxy.gateway_name == proxy.gateway_name
                && known.proxy.gateway_namespace == proxy.gateway_namespace
        };
        let own = || self.proxies.iter().filter(|(_, known)| of_gateway(known));
        if own().count() >= MAX_PROXIES_OF_GATEWAY || self.proxies.len() >= MAX_PROXIES {
            let silent = own().min_by_key(|(_, known)| known.last_report).map(|(key, _)| key.clone());
            let Some(gone) = silent.and_then(|key| self.proxies.remove(&key)) else {
                return Err(format!("{MAX_PROXIES} proxies report to this replica already"));
            };
            self.bytes -= gone.bytes;
        }
        Ok(())
    }

    /// Who has most loses its oldest.
    fn shrink(&mut self, most: usize) {
        while self.bytes > most
            && let Some(largest) = self.proxies.values_mut().max_by_key(|known| known.bytes)
        {
            self.bytes -= largest.bytes;
            largest.pop();
            self.bytes += largest.bytes;
        }
    }
}

impl Known {
    fn insert(&mut self, slot: &Slot) {
        let encoded = slot.encode_to_vec().into_boxed_slice();
        self.bytes += cost(&encoded);
        self.bytes -= self.slots.insert(slot.start, encoded).map_or(0, |before| cost(&before));
    }

    /// Drops the oldest slot.
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
