//! Gateways with Secrets that were not read yet keep what they had, for a while. Without that the first output after a restart would
//! close the TLS ports of proxies that run, and another `certificateRefs` would close the port until the new Secret was read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use meshwright_core::ObjectKey;
use tokio::time::Instant;

/// A Secret that was not read in this time may never be: what can be said without it is said then.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(crate) struct Patience {
    /// Secrets that were not read yet, and since when that matters.
    since: BTreeMap<ObjectKey, Instant>,
    until: Option<Instant>,
}

impl Patience {
    /// The Gateways that should keep what they had, of those that wait for Secrets.
    pub(crate) fn held(
        &mut self,
        undecided: &BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
        now: Instant,
    ) -> BTreeSet<ObjectKey> {
        let unknown: BTreeSet<&ObjectKey> = undecided.values().flatten().collect();
        self.since.retain(|secret, _| unknown.contains(secret));
        for secret in unknown {
            self.since.entry(secret.clone()).or_insert(now);
        }
        let ends = |secret: &ObjectKey| self.since.get(secret).map(|since| *since + PATIENCE);
        self.until = self.since.keys().filter_map(ends).filter(|end| *end > now).min();
        let held = undecided
            .iter()
            .filter(|(_, secrets)| secrets.iter().filter_map(ends).any(|end| end > now))
            .map(|(gateway, _)| gateway.clone());
        held.collect()
    }

    /// When it has to be asked again even if nothing happens.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_for_each_secret_by_itself() {
        let key = |name: &str| ObjectKey::new("shop", name);
        let waiting = |secrets: &[&str]| {
            BTreeMap::from([(key("edge"), secrets.iter().map(|name| key(name)).collect::<BTreeSet<_>>())])
        };
        let (mut patience, start) = (Patience::default(), Instant::now());
        assert_eq!(patience.held(&waiting(&["a"]), start), [key("edge")].into());
        assert_eq!(patience.until(), Some(start + PATIENCE));
        assert!(patience.held(&waiting(&["a"]), start + PATIENCE).is_empty());
        assert_eq!(patience.until(), None, "it is not asked for ever");
        let later = start + PATIENCE * 2;
        assert_eq!(
            patience.held(&waiting(&["a", "b"]), later),
            [key("edge")].into(),
            "another is waited for"
        );
        assert!(patience.held(&BTreeMap::new(), later).is_empty());
        assert_eq!(patience.held(&waiting(&["a"]), later), [key("edge")].into(), "it was known in between");
    }
}
