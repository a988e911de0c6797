//! What two control planes give the proxies, side by side. Pure.
//!
//! Whatever is lost is meant to block an upgrade, a cluster as well as a listener or a route. Whether a route still names a
//! lost cluster is not told; if one does, its requests fail, though the route itself is the same in both. And nothing else
//! loses a cluster: names are the same in every version, and clusters that only linger are not told.

use std::collections::{BTreeMap, BTreeSet};

use meshwright_api::Comparison;
use meshwright_proto::inspection::{RenderedGateway, part::Kind};

/// So many parts that differ are named in a status.
const EXAMPLES: usize = 10;
/// Longest name of a part in a sentence; a route's match may have any length.
const LONGEST: usize = 160;

/// A part of a Gateway. In the order in which differences are told: what is lost of a listener says more than of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    kind: i32,
    namespace: &'a str,
    gateway: &'a str,
    name: &'a str,
}

/// How parts of one name differ. Two routes may have the same match, so there can be more than one.
#[derive(Debug, Default)]
struct Difference<'a> {
    old: Vec<&'a str>,
    new: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    same: usize,
    changed: usize,
    gained: usize,
    lost: usize,
}

/// Counts the parts that both have, that differ, and that only one of them has.
pub fn compare(old: &[RenderedGateway], new: &[RenderedGateway]) -> Comparison {
    let differences = differences(old, new);
    let counts: Vec<_> = differences.iter().map(|(key, d)| (key, d.count())).collect();
    let sum = |of: fn(&Count) -> usize| {
        i32::try_from(counts.iter().map(|(_, c)| of(c)).sum::<usize>()).unwrap_or(i32::MAX)
    };
    let named = |verb: &'static str, of: fn(&Count) -> usize| {
        let differing = counts.iter().filter(move |(_, count)| of(count) > 0);
        differing.map(move |(key, _)| format!("{verb}: {}", key.described()))
    };
    let examples = named("lost", |c| c.lost).chain(named("changed", |c| c.changed));
    Comparison {
        same: sum(|c| c.same),
        changed: sum(|c| c.changed),
        gained: sum(|c| c.gained),
        lost: sum(|c| c.lost),
        examples: examples.chain(named("gained", |c| c.gained)).take(EXAMPLES).collect(),
    }
}

fn differences<'a>(
    old: &'a [RenderedGateway],
    new: &'a [RenderedGateway],
) -> BTreeMap<Key<'a>, Difference<'a>> {
    let mut all = BTreeMap::<_, Difference<'_>>::new();
    for (key, hash) in parts(old) {
        all.entry(key).or_default().old.push(hash);
    }
    for (key, hash) in parts(new) {
        all.entry(key).or_default().new.push(hash);
    }
    all
}

fn parts(gateways: &[RenderedGateway]) -> impl Iterator<Item = (Key<'_>, &str)> {
    gateways.iter().flat_map(|gateway| {
        gateway.parts.iter().map(|part| {
            let (namespace, gateway) = (gateway.namespace.as_str(), gateway.name.as_str());
            (Key { kind: part.kind, namespace, gateway, name: &part.name }, part.hash.as_str())
        })
    })
}

impl Difference<'_> {
    fn count(&self) -> Count {
        let hashes: BTreeSet<_> = self.old.iter().collect();
        let of = |all: &[&str], hash: &str| all.iter().filter(|h| **h == hash).count();
        let same: usize = hashes.into_iter().map(|hash| of(&self.old, hash).min(of(&self.new, hash))).sum();
        let (old, new) = (self.old.len() - same, self.new.len() - same);
        let changed = old.min(new);
        Count { same, changed, gained: new - changed, lost: old - changed }
    }
}

impl Key<'_> {
    fn described(&self) -> String {
        let kind = match Kind::try_from(self.kind) {
            Ok(Kind::Listener) => "listener",
            Ok(Kind::Route) => "route",
            Ok(Kind::Cluster) => "cluster",
            Ok(Kind::Unspecified) | Err(_) => "part",
        };
        let mut name: String = self.name.chars().take(LONGEST).collect();
        if name.len() < self.name.len() {
            name.push('…');
        }
        format!("{kind} {name} of Gateway {}/{}", self.namespace, self.gateway)
    }
}

#[cfg(test)]
mod tests;
