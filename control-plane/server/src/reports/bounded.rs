//! What many proxies have reported, within bounds: who was silent for longest makes room for others, and who has most loses its oldest. No
//! I/O and no clock.

use std::collections::BTreeMap;

use super::store::is_kept;

/// What one proxy has reported.
pub trait Reported: Default {
    /// What its slots cost.
    fn bytes(&self) -> usize;
    /// When it was heard last, in Unix seconds.
    fn last_report(&self) -> i64;
    /// Drops one of its oldest slots.
    fn pop(&mut self);
    /// Drops slots that are too old.
    fn forget(&mut self, now: i64);
}

/// Proxies and what they have reported.
#[derive(Debug)]
pub struct Bounded<K, V> {
    pub proxies: BTreeMap<K, V>,
    /// What all slots together cost.
    pub bytes: usize,
}

impl<K, V> Default for Bounded<K, V> {
    fn default() -> Self {
        Self { proxies: BTreeMap::new(), bytes: 0 }
    }
}

impl<K: Ord + Clone, V: Reported> Bounded<K, V> {
    /// Changes what is known of one proxy; all slots together may cost `most`.
    pub fn record(&mut self, key: K, most: usize, now: i64, change: impl FnOnce(&mut V)) {
        let known = self.proxies.entry(key).or_default();
        self.bytes -= known.bytes();
        change(known);
        known.forget(now);
        self.bytes += known.bytes();
        self.shrink(most);
    }

    /// Drops what is older than an hour.
    pub fn forget(&mut self, now: i64) {
        self.proxies.retain(|_, known| is_kept(known.last_report(), now));
        self.proxies.values_mut().for_each(|known| known.forget(now));
        self.bytes = self.proxies.values().map(V::bytes).sum();
    }

    /// Room for another proxy, of which there may be so many of its own and of all: of its own the one that was silent for longest has to
    /// go, never one of others. False where there is none.
    pub fn make_room(
        &mut self,
        is_own: impl Fn(&K, &V) -> bool,
        (most_of_own, most): (usize, usize),
    ) -> bool {
        let own = || self.proxies.iter().filter(|(key, known)| is_own(key, known));
        if own().count() < most_of_own && self.proxies.len() < most {
            return true;
        }
        let silent = own().min_by_key(|(_, known)| known.last_report()).map(|(key, _)| key.clone());
        let gone = silent.and_then(|key| self.proxies.remove(&key));
        self.bytes -= gone.as_ref().map_or(0, V::bytes);
        gone.is_some()
    }

    /// Who has most loses its oldest.
    pub fn shrink(&mut self, most: usize) {
        while self.bytes > most
            && let Some(largest) = self.proxies.values_mut().max_by_key(|known| known.bytes())
        {
            self.bytes -= largest.bytes();
            largest.pop();
            self.bytes += largest.bytes();
        }
    }
}
