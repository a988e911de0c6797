//! What TCPRoutes make of connections. Which cluster a connection gets is decided where its chain is ([`super::destinations`]), at once and by
//! the same extension: so a route is in force as a whole or not at all, and no listener changes with it.
//!
//! The proxy draws a number for each connection, and compares it with limits that divide all numbers as the weights say.

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use meshwright_core::config::{RouteEntry, RuleAction, WeightedBackend};
use meshwright_core::mesh::Protocol;

use super::destinations::{CHAIN, DETECT, TCP};
use super::service::{Port, cluster_name};
use super::state;

/// The filter state that has the cluster which a route has chosen.
pub(super) const CLUSTER: &str = "meshwright.io/cluster";
/// The filter state that has the number: a UUID of version 4, of which the first eight digits are random.
const DRAWN: &str = "meshwright.io/drawn";
/// The cluster of this name has no endpoints, so that the connection ends at once. One that there is not Envoy would wait for.
pub(super) const NOBODY: &str = "nobody";

/// Chains and clusters for the connections that routes are about. What comes later counts.
pub(super) fn values<'a>(ports: impl Iterator<Item = &'a Port>, trust_domain: &str) -> Vec<FilterStateValue> {
    let values: Vec<_> = ports.flat_map(|port| of_port(port, trust_domain)).collect();
    let drawn = (!values.is_empty()).then(|| state::string(DRAWN, "%UNIQUE_ID%"));
    drawn.into_iter().chain(values).collect()
}

fn of_port(port: &Port, trust_domain: &str) -> Vec<FilterStateValue> {
    let Some(found) = port.routes.as_ref().filter(|_| !port.destinations.is_empty()) else {
        return Vec::new();
    };
    let quoted: Vec<_> = port.destinations.iter().map(|destination| format!("'{destination}'")).collect();
    let here = format!("destination.address in [{}]", quoted.join(","));
    let mut values = Vec::new();
    if let Some(entry) = &found.connections.producer {
        values.push(choose(CLUSTER, &here, &drawn(entry)));
        // Who has routes of its own about requests has none of the producer's: what is no HTTP goes on as if there were no route.
        for namespace in found.consumers.keys() {
            let theirs = format!("{here} && {}", caller_in(namespace, trust_domain));
            values.push(choose(CHAIN, &theirs, &quote(DETECT)));
            values.push(choose(CLUSTER, &theirs, "destination.address"));
        }
    }
    for (namespace, entry) in &found.connections.consumers {
        let theirs = format!("{here} && {}", caller_in(namespace, trust_domain));
        // Others may speak HTTP there.
        if port.protocol != Protocol::Tcp {
            values.push(choose(CHAIN, &theirs, &quote(TCP)));
        }
        values.push(choose(CLUSTER, &theirs, &drawn(entry)));
    }
    values
}

fn choose(object: &str, condition: &str, value: &str) -> FilterStateValue {
    state::unless_empty(state::string(object, &format!("%CEL({condition} ? {value} : '')%")))
}

/// Whether the pod that calls is in the namespace. An expression cannot look at the beginning of what filter state has, but at its place in
/// the order: `0` comes next to `/`.
fn caller_in(namespace: &str, trust_domain: &str) -> String {
    let (of, identity) = (format!("spiffe://{trust_domain}/ns/{namespace}/sa"), state::IDENTITY);
    format!("filter_state['{identity}'] >= b'{of}/' && filter_state['{identity}'] < b'{of}0'")
}

/// The expression that chooses among the backends of a route. Envoy's parser goes 32 levels deep: without parentheses each backend is one, and
/// the API allows 16.
fn drawn(entry: &RouteEntry) -> String {
    let backends = match &entry.rule.action {
        RuleAction::Forward(forward) => forward.backends.as_slice(),
        RuleAction::Fail | RuleAction::Redirect(_) => &[],
    };
    let Some((last, others)) = backends.split_last() else { return quote(NOBODY) };
    let limits = limits(&backends.iter().map(|backend| backend.weight).collect::<Vec<_>>());
    let choices = others.iter().zip(limits);
    let chosen = choices.rev().fold(cluster(last), |rest, (backend, limit)| {
        format!("filter_state['{DRAWN}'] < b'{limit:08x}' ? {} : {rest}", cluster(backend))
    });
    if others.is_empty() { chosen } else { format!("({chosen})") }
}

/// A backend that does not exist has its share all the same, and refuses it.
fn cluster(backend: &WeightedBackend) -> String {
    quote(&backend.cluster.as_ref().map_or_else(|| NOBODY.to_owned(), cluster_name))
}

/// Below which numbers of 32 bits a backend is chosen, if none before it is; without the last, which is chosen otherwise.
fn limits(weights: &[u32]) -> Vec<u64> {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let sums = weights.iter().scan(0_u64, |sum, weight| {
        *sum += u64::from(*weight);
        Some(*sum)
    });
    let limit = |sum: u64| (u128::from(sum) << 32) / u128::from(total.max(1));
    let limits = sums.map(|sum| u64::try_from(limit(sum)).unwrap_or(u64::MAX));
    limits.take(weights.len().saturating_sub(1)).collect()
}

fn quote(text: &str) -> String {
    format!("'{text}'")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// How many of all numbers each gets, as Envoy compares.
    fn shares(weights: &[u32]) -> Vec<u64> {
        let all: Vec<u64> = limits(weights).into_iter().chain([1 << 32]).collect();
        let before = [0].into_iter().chain(all.iter().copied());
        all.iter().zip(before).map(|(limit, before)| limit - before).collect()
    }

    proptest! {
        #[test]
        fn each_gets_the_share_of_its_weight(weights in vec(1_u32..=1_000_000, 1..=16)) {
            let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            let shares = shares(&weights);
            prop_assert_eq!(shares.len(), weights.len());
            for (share, weight) in shares.iter().zip(&weights) {
                let exact = (u128::from(*weight) << 32) / u128::from(total);
                prop_assert!(u128::from(*share).abs_diff(exact) <= 1, "{} of {}: {}", weight, total, share);
            }
        }

        /// The text is compared, and not the number.
        #[test]
        fn digits_are_ordered_as_numbers_are(one in any::<u32>(), other in any::<u32>()) {
            let drawn = format!("{one:08x}-0000-4000-8000-000000000000");
            let limit = format!("{:08x}", u64::from(other));
            prop_assert_eq!(drawn.as_bytes() < limit.as_bytes(), one < other);
        }

        #[test]
        fn who_calls_is_in_the_range_of_its_namespace_only(one in "[a-z0-9-]{1,8}", other in "[a-z0-9-]{1,8}", account in "[a-z0-9.-]{1,8}") {
            let text = caller_in(&one, "td");
            let bounds: Vec<&str> = text.split("b'").skip(1).filter_map(|rest| rest.split('\'').next()).collect();
            let caller = crate::mesh::caller_secret(&format!("spiffe://td/ns/{other}/sa/{account}"));
            let [from, to] = bounds[..] else { panic!("{text}") };
            prop_assert_eq!(from <= caller.as_str() && caller.as_str() < to, one == other);
        }
    }
}
