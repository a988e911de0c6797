//! Policies that do not decode. What one said before goes on, as long as somebody knows that; otherwise it lets nobody in.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_core::model::{AuthorizationPolicy, MeshTlsPolicy, Unreadable};
use meshwright_k8s::Update;
use meshwright_k8s::watch::Key;

/// What need not be understood.
pub(crate) trait Policy: Clone {
    fn unreadable(&self) -> Option<&Unreadable>;

    /// What this one says, under the other's name and generation, which is not understood for these reasons.
    fn kept(&self, other: &Self, words: &str) -> Self;
}

macro_rules! policy {
    ($policy:ty) => {
        impl Policy for $policy {
            fn unreadable(&self) -> Option<&Unreadable> {
                self.unreadable.as_ref()
            }

            fn kept(&self, other: &Self, words: &str) -> Self {
                let unreadable = Some(Unreadable { words: words.to_owned(), is_kept: true });
                Self { meta: other.meta.clone(), unreadable, ..self.clone() }
            }
        }
    };
}

policy!(AuthorizationPolicy);
policy!(MeshTlsPolicy);

/// The update, with what is known of those that are not understood.
pub(crate) fn understood<T: Policy>(
    known: &BTreeMap<ObjectKey, Arc<T>>,
    update: Update<Option<T>>,
) -> Update<Option<T>> {
    let one = |(namespace, name): &Key, found: T| {
        let Some(Unreadable { words, .. }) = found.unreadable() else { return found };
        let known = known.get(&ObjectKey::new(namespace, name));
        let known = known.filter(|known| known.unreadable().is_none_or(|unreadable| unreadable.is_kept));
        known.map(|known| known.kept(&found, words)).unwrap_or(found)
    };
    match update {
        Update::Applied(key, found) => {
            let found = found.map(|found| one(&key, found));
            Update::Applied(key, found)
        }
        Update::Deleted(key) => Update::Deleted(key),
        Update::Replaced { objects, undecodable } => {
            let objects = objects.into_iter().map(|(key, found)| {
                let found = found.map(|found| one(&key, found));
                (key, found)
            });
            Update::Replaced { objects: objects.collect(), undecodable }
        }
    }
}

#[cfg(test)]
mod tests {
    use meshwright_core::model::{Meta, Target};

    use super::*;
    use crate::apply::apply;

    fn policy(generation: i64, denies: bool, unreadable: bool) -> AuthorizationPolicy {
        let unreadable = unreadable.then(|| Unreadable { words: "what?".to_owned(), is_kept: false });
        let meta = Meta::new("shop", "p", generation, 0);
        let (target, rules) = (Target::default(), Vec::new());
        AuthorizationPolicy { meta, target, denies, dry_run: false, rules, unreadable }
    }

    #[test]
    fn what_a_policy_said_stays_while_it_is_not_understood_and_somebody_knows_it() {
        let name: Key = ("shop".to_owned(), "p".to_owned());
        let mut map = BTreeMap::new();
        let mut step = |policy: AuthorizationPolicy, is_list: bool| {
            let (found, undecodable) = (Some(policy), Vec::new());
            let update = match is_list {
                false => Update::Applied(name.clone(), found),
                true => Update::Replaced { objects: vec![(name.clone(), found)], undecodable },
            };
            let update = understood(&map, update);
            apply(&mut map, update);
            (*map[&ObjectKey::new("shop", "p")]).clone()
        };
        assert_eq!(step(policy(1, false, true), false), policy(1, false, true), "nobody knows what it said");
        assert_eq!(step(policy(2, true, false), false), policy(2, true, false));
        for is_list in [false, true] {
            let kept = step(policy(3, false, true), is_list);
            assert!(kept.denies && kept.meta.generation == 3);
            assert!(kept.unreadable.is_some_and(|one| one.is_kept && one.words == "what?"));
        }
        assert_eq!(step(policy(4, false, false), true), policy(4, false, false));
    }
}
