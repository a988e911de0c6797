//! Whether a report is one that an agent would send. Whoever holds a proxy's key may say anything of its own traffic, but must not cost the
//! control plane its memory, nor whoever adds up the figures their sums.

use meshwright_proto::reports::{Proxy, Slot};

use super::store::KEPT;
use crate::ads::admission::is_name;

/// Seconds that a slot covers.
const SLOT: i64 = 5;
/// As many as an hour has.
const MAX_SLOTS: i64 = KEPT / SLOT;
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

fn check_proxy(proxy: &Proxy) -> Result<(), String> {
    let names = [
        ("pod_name", &proxy.pod_name),
        ("gateway_name", &proxy.gateway_name),
        ("revision", &proxy.revision),
        ("instance", &proxy.instance),
    ];
    match names.into_iter().find(|(_, name)| !is_name(name)) {
        Some((field, _)) => Err(format!("{field} is not a name: 1 to 253 characters a-z A-Z 0-9 . _ -")),
        None => Ok(()),
    }
}

fn check_slot(slot: &Slot, now: i64) -> Result<(), String> {
    if slot.start % SLOT != 0 {
        return Err(format!("slot {} does not start at a multiple of {SLOT} seconds", slot.start));
    }
    // Slots of both revisions are compared by time.
    if slot.start > now.saturating_add(AHEAD) {
        return Err(format!("slot {} starts in the future: look at the clock of the node", slot.start));
    }
    if let Some(bucket) = slot.latency.keys().find(|bucket| **bucket > MAX_BUCKET) {
        return Err(format!("slot {} has latency bucket {bucket}, the last is {MAX_BUCKET}", slot.start));
    }
    match counts(slot).into_iter().chain(slot.latency.values().copied()).find(|count| *count > MAX_COUNT) {
        Some(count) => Err(format!("slot {} counts {count}, the most is {MAX_COUNT}", slot.start)),
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
}
