//! Whether a report is one that an agent would send. Whoever holds a proxy's key may say anything of its own traffic, but must not cost the
//! control plane its memory, nor whoever adds up the figures their sums.

use std::collections::HashMap;

use meshwright_proto::reports::{NodeProxy, Pair, PairSlot, Proxy, Slot};

use super::store::KEPT;
use crate::ads::admission::is_name;

/// Seconds that a slot covers.
const SLOT: i64 = 5;
/// As many as an hour has.
const MAX_SLOTS: i64 = KEPT / SLOT;
/// Seconds that a slot of a pair covers.
const PAIR_SLOT: i64 = 30;
/// The busiest, and all others together.
const MAX_PAIRS: usize = 51;
/// So much may a node's clock be ahead, in seconds.
const AHEAD: i64 = 60;
/// Index of the last bucket that there could be; 0.5 ms * 1.25^i passes a day at 85.
const MAX_BUCKET: u32 = 95;
/// Nobody counts as many in five seconds, and two thousand proxies' hours of it fit into 64 bits.
const MAX_COUNT: u64 = u32::MAX as u64;

/// What is wrong with the report, in words for who sent it.
pub fn check(proxy: &Proxy, slots: &[Slot], now: i64) -> Result<(), String> {
    check_proxy(proxy)?;
    if i64::try_from(slots.len()).unwrap_or(i64::MAX) > MAX_SLOTS {
        return Err(format!("{} slots are more than the {MAX_SLOTS} of an hour", slots.len()));
    }
    slots.iter().try_for_each(|slot| check_slot(slot, now))
}

/// The same of what a node's proxy reports. That it is the node's own is known already.
pub fn check_node(proxy: &NodeProxy, pairs: &[Pair], now: i64) -> Result<(), String> {
    are_names([("pod_name", &proxy.pod_name), ("instance", &proxy.instance)])?;
    if pairs.len() > MAX_PAIRS {
        return Err(format!("{} pairs are more than {MAX_PAIRS}", pairs.len()));
    }
    pairs.iter().try_for_each(|pair| check_pair(pair, now))
}

fn check_pair(pair: &Pair, now: i64) -> Result<(), String> {
    let names = [
        ("source_namespace", &pair.source_namespace),
        ("source_workload", &pair.source_workload),
        ("destination_namespace", &pair.destination_namespace),
        ("destination_service", &pair.destination_service),
    ];
    // Any of them may be empty: a pod that nobody knows any more, an address that is no Service's.
    names.into_iter().filter(|(_, name)| !name.is_empty()).try_for_each(|name| are_names([name]))?;
    if i64::try_from(pair.slots.len()).unwrap_or(i64::MAX) > KEPT / PAIR_SLOT {
        return Err(format!("{} slots of a pair are more than an hour has", pair.slots.len()));
    }
    pair.slots.iter().try_for_each(|slot| check_pair_slot(slot, now))
}

fn check_pair_slot(slot: &PairSlot, now: i64) -> Result<(), String> {
    let counts = [
        slot.requests,
        slot.failed,
        slot.upstream_connection_failure,
        slot.no_healthy_upstream,
        slot.no_route,
        slot.retry_limit_exceeded,
        slot.upstream_termination,
        slot.upstream_overflow,
        slot.server_error,
        slot.tls_failures,
        slot.connections,
        slot.connections_failed,
    ];
    check_start(slot.start, PAIR_SLOT, now)?;
    check_counts(slot.start, &counts, &slot.latency)
}

fn check_proxy(proxy: &Proxy) -> Result<(), String> {
    let names = [
        ("pod_name", &proxy.pod_name),
        ("gateway_name", &proxy.gateway_name),
        ("revision", &proxy.revision),
        ("instance", &proxy.instance),
    ];
    are_names(names)
}

fn are_names<const N: usize>(names: [(&str, &String); N]) -> Result<(), String> {
    match names.into_iter().find(|(_, name)| !is_name(name)) {
        Some((field, _)) => Err(format!("{field} is not a name: 1 to 253 characters a-z A-Z 0-9 . _ -")),
        None => Ok(()),
    }
}

fn check_slot(slot: &Slot, now: i64) -> Result<(), String> {
    check_start(slot.start, SLOT, now)?;
    check_counts(slot.start, &counts(slot), &slot.latency)
}

fn check_start(start: i64, length: i64, now: i64) -> Result<(), String> {
    if start % length != 0 {
        return Err(format!("slot {start} does not start at a multiple of {length} seconds"));
    }
    // Slots of both revisions are compared by time.
    if start > now.saturating_add(AHEAD) {
        return Err(format!("slot {start} starts in the future: look at the clock of the node"));
    }
    Ok(())
}

fn check_counts(start: i64, counts: &[u64], latency: &HashMap<u32, u64>) -> Result<(), String> {
    if let Some(bucket) = latency.keys().find(|bucket| **bucket > MAX_BUCKET) {
        return Err(format!("slot {start} has latency bucket {bucket}, the last is {MAX_BUCKET}"));
    }
    match counts.iter().chain(latency.values()).find(|count| **count > MAX_COUNT) {
        Some(count) => Err(format!("slot {start} counts {count}, the most is {MAX_COUNT}")),
        None => Ok(()),
    }
}

fn counts(slot: &Slot) -> [u64; 12] {
    let Slot {
        start: _,
        informational,
        success,
        redirection,
        client_error,
        server_error,
        upstream_connection_failure,
        no_route,
        no_healthy_upstream,
        retry_limit_exceeded,
        upstream_overflow,
        tls_failures,
        connections,
        latency: _,
    } = *slot;
    [
        informational,
        success,
        redirection,
        client_error,
        server_error,
        upstream_connection_failure,
        no_route,
        no_healthy_upstream,
        retry_limit_exceeded,
        upstream_overflow,
        tls_failures,
        connections,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn slot() -> Slot {
        Slot { start: NOW, success: 3, latency: [(0, 1), (MAX_BUCKET, 2)].into(), ..Slot::default() }
    }

    type Change = fn(&mut Proxy, &mut Vec<Slot>);

    fn after(change: Change) -> Result<(), String> {
        let name = |text: &str| text.to_owned();
        let mut proxy = Proxy {
            pod_name: name("edge-meshwright-5f6-abc"),
            pod_namespace: name("shop"),
            gateway_name: name("edge"),
            gateway_namespace: name("shop"),
            revision: name("mesh-1"),
            instance: name("0d9c-4b"),
            ..Proxy::default()
        };
        let mut slots = vec![slot()];
        change(&mut proxy, &mut slots);
        check(&proxy, &slots, NOW)
    }

    #[test]
    fn an_honest_report_is_taken() {
        assert_eq!(after(|_, _| {}), Ok(()));
        assert_eq!(after(|_, slots| slots.clear()), Ok(()));
        assert_eq!(after(|_, slots| *slots = vec![slot(); 720]), Ok(()));
        assert_eq!(after(|_, slots| slots[0].start = NOW + AHEAD), Ok(()), "clocks differ a little");
    }

    #[test]
    fn what_no_agent_would_send_is_refused_with_the_reason() {
        let cases: [(&str, Change); 11] = [
            ("pod_name", |proxy, _| proxy.pod_name.clear()),
            ("pod_name", |proxy, _| proxy.pod_name = "a".repeat(254)),
            ("gateway_name", |proxy, _| proxy.gateway_name = "a/b".to_owned()),
            ("revision", |proxy, _| proxy.revision = "a\nb".to_owned()),
            ("instance", |proxy, _| proxy.instance = "ä".to_owned()),
            ("721 slots", |_, slots| *slots = vec![slot(); 721]),
            ("multiple of 5", |_, slots| slots[0].start += 1),
            ("future", |_, slots| slots[0].start += AHEAD + 5),
            ("bucket 96", |_, slots| _ = slots[0].latency.insert(96, 1)),
            ("counts 4294967296", |_, slots| _ = slots[0].latency.insert(1, 1 << 32)),
            ("counts 18446744073709551615", |_, slots| slots[0].connections = u64::MAX),
        ];
        for (why, change) in cases {
            let said = after(change).unwrap_err();
            assert!(said.contains(why), "{said:?} does not say {why:?}");
        }
    }

    type PairChange = fn(&mut NodeProxy, &mut Vec<Pair>);

    fn after_of_node(change: PairChange) -> Result<(), String> {
        let name = |text: &str| text.to_owned();
        let mut proxy =
            NodeProxy { pod_name: name("mesh-1-node-x"), instance: name("0d9c"), ..NodeProxy::default() };
        let mut pairs = vec![Pair {
            source_namespace: name("shop"),
            source_workload: name("front"),
            slots: vec![PairSlot { start: NOW - NOW % 30, requests: 3, ..PairSlot::default() }],
            ..Pair::default()
        }];
        change(&mut proxy, &mut pairs);
        check_node(&proxy, &pairs, NOW)
    }

    #[test]
    fn of_a_node_too() {
        assert_eq!(after_of_node(|_, _| {}), Ok(()));
        assert_eq!(after_of_node(|_, pairs| *pairs = vec![pairs[0].clone(); 51]), Ok(()));
        let cases: [(&str, PairChange); 8] = [
            ("pod_name", |proxy, _| proxy.pod_name.clear()),
            ("instance", |proxy, _| proxy.instance = "a b".to_owned()),
            ("52 pairs", |_, pairs| *pairs = vec![pairs[0].clone(); 52]),
            ("destination_service", |_, pairs| pairs[0].destination_service = "a|b".to_owned()),
            ("121 slots", |_, pairs| pairs[0].slots = vec![pairs[0].slots[0].clone(); 121]),
            ("multiple of 30", |_, pairs| pairs[0].slots[0].start += 5),
            ("bucket 96", |_, pairs| _ = pairs[0].slots[0].latency.insert(96, 1)),
            ("counts 18446744073709551615", |_, pairs| pairs[0].slots[0].connections_failed = u64::MAX),
        ];
        for (why, change) in cases {
            let said = after_of_node(change).unwrap_err();
            assert!(said.contains(why), "{said:?} does not say {why:?}");
        }
    }
}
