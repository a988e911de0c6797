//! Updates of one kind applied to one map of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_k8s::Update;
use meshwright_k8s::watch::Key;

/// What the model calls an object.
pub(crate) trait ModelKey: Ord + Clone {
    fn of(key: Key) -> Self;
}

impl ModelKey for ObjectKey {
    fn of((namespace, name): Key) -> Self {
        Self { namespace, name }
    }
}

/// Cluster-scoped objects, and those of a single namespace.
impl ModelKey for String {
    fn of((_, name): Key) -> Self {
        name
    }
}

/// Applies the update; gives the objects that are not what they were, as they were, None where there was nothing. An update that changes
/// nothing the model knows of (a status, an annotation) gives none.
pub(crate) fn apply<K: ModelKey, T: PartialEq>(
    map: &mut BTreeMap<K, Arc<T>>,
    update: Update<Option<T>>,
) -> BTreeMap<K, Option<Arc<T>>> {
    let mut changed = BTreeMap::new();
    match update {
        Update::Applied(key, object) => set(map, K::of(key), object, &mut changed),
        Update::Deleted(key) => set(map, K::of(key), None, &mut changed),
        Update::Replaced { objects, undecodable } => {
            let keys = objects.iter().map(|(key, _)| key).chain(&undecodable);
            let there: BTreeSet<K> = keys.map(|key| K::of(key.clone())).collect();
            let gone: Vec<K> = map.keys().filter(|key| !there.contains(*key)).cloned().collect();
            gone.into_iter().for_each(|key| set(map, key, None, &mut changed));
            objects.into_iter().for_each(|(key, object)| set(map, K::of(key), object, &mut changed));
        }
    }
    changed
}

fn set<K: ModelKey, T: PartialEq>(
    map: &mut BTreeMap<K, Arc<T>>,
    key: K,
    object: Option<T>,
    changed: &mut BTreeMap<K, Option<Arc<T>>>,
) {
    match object {
        Some(object) if map.get(&key).is_some_and(|known| **known == object) => {}
        Some(object) => {
            let before = map.insert(key.clone(), Arc::new(object));
            changed.insert(key, before);
        }
        None => {
            if let Some(before) = map.remove(&key) {
                changed.insert(key, Some(before));
            }
        }
    }
}

/// The update with every object turned into something else.
pub(crate) fn map<A, B>(update: Update<A>, f: impl Fn(A) -> B) -> Update<B> {
    match update {
        Update::Applied(key, object) => Update::Applied(key, f(object)),
        Update::Deleted(key) => Update::Deleted(key),
        Update::Replaced { objects, undecodable } => Update::Replaced {
            objects: objects.into_iter().map(|(key, object)| (key, f(object))).collect(),
            undecodable,
        },
    }
}

/// The update as two, each with its part of every object.
pub(crate) fn split<A, B, C>(update: Update<A>, f: impl Fn(A) -> (B, C)) -> (Update<B>, Update<C>) {
    match update {
        Update::Applied(key, object) => {
            let (b, c) = f(object);
            (Update::Applied(key.clone(), b), Update::Applied(key, c))
        }
        Update::Deleted(key) => (Update::Deleted(key.clone()), Update::Deleted(key)),
        Update::Replaced { objects, undecodable } => {
            let (mut left, mut right) =
                (Vec::with_capacity(objects.len()), Vec::with_capacity(objects.len()));
            for (key, object) in objects {
                let (b, c) = f(object);
                left.push((key.clone(), b));
                right.push((key, c));
            }
            let undecodable_too = undecodable.clone();
            (
                Update::Replaced { objects: left, undecodable },
                Update::Replaced { objects: right, undecodable: undecodable_too },
            )
        }
    }
}
