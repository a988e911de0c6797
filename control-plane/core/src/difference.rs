//! What is different between two maps.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Keys that only one of the maps has, or of whose values `same` says no, in order.
pub fn difference<'a, K: Ord, V>(
    before: &'a BTreeMap<K, V>,
    after: &'a BTreeMap<K, V>,
    same: impl Fn(&V, &V) -> bool + 'a,
) -> impl Iterator<Item = &'a K> {
    let (mut before, mut after) = (before.iter().peekable(), after.iter().peekable());
    std::iter::from_fn(move || {
        loop {
            let order = match (before.peek(), after.peek()) {
                (Some((old, _)), Some((new, _))) => old.cmp(new),
                (Some(_), None) => Ordering::Less,
                (None, _) => Ordering::Greater,
            };
            match order {
                Ordering::Less => return before.next().map(|(key, _)| key),
                Ordering::Greater => return after.next().map(|(key, _)| key),
                Ordering::Equal => {
                    let ((key, old), (_, new)) = (before.next()?, after.next()?);
                    if !same(old, new) {
                        return Some(key);
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_one_has_and_what_differs_is_found() {
        let map = |pairs: &[(char, u8)]| pairs.iter().copied().collect::<BTreeMap<_, _>>();
        let found = |before: &[(char, u8)], after: &[(char, u8)]| {
            difference(&map(before), &map(after), |a, b| a == b).collect::<String>()
        };
        assert_eq!(found(&[('a', 1), ('b', 1), ('c', 1)], &[('b', 1), ('c', 2), ('d', 1)]), "acd");
        assert_eq!(found(&[], &[('a', 1)]), "a");
        assert_eq!(found(&[('a', 1)], &[]), "a");
        assert_eq!(found(&[('a', 1)], &[('a', 1)]), "");
    }
}
