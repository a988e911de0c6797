//! Ports on the nodes. Two revisions' node proxies run side by side, so each has a slot of ports of its own, for its whole life. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{MeshRevision, MeshRevisionSpec, NodeSlot, labels};

use crate::{catalogue::Version, pods};

/// Slots that pods hold, each with one such pod. Of revisions that are gone, too, and of other meshes: the ports are the node's.
///
/// Labels can be copied by anybody; who has no right to the host's network holds none of its ports. A pod whose node does not answer counts
/// no longer: where it may still run, the new one waits for the ports, which its template names.
pub fn held(pods: &[Pod], now: Timestamp) -> BTreeMap<NodeSlot, String> {
    let on_host = |p: &&Pod| p.spec.as_ref().and_then(|s| s.host_network) == Some(true);
    let there = pods.iter().filter(|p| on_host(p) && !pods::is_overdue(p, now));
    let slot = |p: &Pod| p.labels().get(labels::NODE_SLOT).and_then(|label| parse(label));
    let name = |p: &Pod| format!("{}/{}", p.namespace().unwrap_or_default(), p.name_any());
    there.filter_map(|p| Some((slot(p)?, name(p)))).collect()
}

fn parse(label: &str) -> Option<NodeSlot> {
    NodeSlot::ALL.into_iter().find(|slot| slot.as_str() == label)
}

/// The slot of a new revision: one that no revision has, and no pod.
///
/// # Errors
/// Who has them, where there is none.
pub fn free(live: &[MeshRevision], held: &BTreeMap<NodeSlot, String>) -> Result<NodeSlot, String> {
    let revision = |slot: NodeSlot| live.iter().find(|r| r.spec.node_slot == Some(slot));
    let holder = |slot: NodeSlot| match (revision(slot), held.get(&slot)) {
        (Some(revision), _) => Some(format!("revision {}", revision.name_any())),
        (None, Some(pod)) => Some(format!("pod {pod}, which ends")),
        (None, None) => None,
    };
    let mut taken = Vec::new();
    for slot in NodeSlot::ALL {
        match holder(slot) {
            Some(holder) => taken.push(format!("{} by {holder}", slot.as_str())),
            None => return Ok(slot),
        }
    }
    Err(format!("ports on the nodes: both slots are taken, {}", taken.join(", ")))
}

/// The same for a revision of this release: none where it has no node proxies.
///
/// # Errors
/// As [`free`].
pub fn of_release(
    version: &str,
    live: &[MeshRevision],
    held: &BTreeMap<NodeSlot, String>,
) -> Result<Option<NodeSlot>, String> {
    let has = version.parse::<Version>().is_ok_and(Version::has_node_proxies);
    has.then(|| free(live, held)).transpose()
}

/// Whether two snapshots say the same. The slot is given out, and asked for by nobody.
pub fn is_same(one: &MeshRevisionSpec, other: &MeshRevisionSpec) -> bool {
    without(one) == without(other)
}

/// A snapshot as it is asked for.
pub fn without(spec: &MeshRevisionSpec) -> MeshRevisionSpec {
    MeshRevisionSpec { node_slot: None, ..spec.clone() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn revision(number: usize, slot: Option<NodeSlot>) -> MeshRevision {
        let object = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshRevision",
            "metadata": {"name": format!("mesh-{number}"), "namespace": "mesh"},
            "spec": {"mesh": "mesh", "version": "0.3.0", "trustDomain": "td", "workloadTTL": "24h", "nodeSlot": slot,
                "images": {"controlPlane": "c", "proxy": "p"}, "controlPlane": {}, "gateways": {}}});
        serde_json::from_value(object).unwrap()
    }

    fn pod(slot: &str, on_host: bool, ends: Option<i64>) -> Pod {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "mesh", "labels": {labels::NODE_SLOT: slot}},
            "spec": {"hostNetwork": on_host, "containers": []}});
        if let Some(ends) = ends {
            pod["metadata"]["deletionTimestamp"] = at(ends).to_string().into();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn only_pods_on_the_nodes_network_that_may_still_run_hold_ports() {
        let of = |pod: Pod| held(&[pod], at(100)).into_keys().next();
        assert_eq!(of(pod("A", true, None)), Some(NodeSlot::A));
        assert_eq!(of(pod("B", true, Some(90))), Some(NodeSlot::B), "it still ends");
        assert_eq!(of(pod("B", true, Some(0))), None, "its node is lost");
        assert_eq!(of(pod("A", false, None)), None, "a label that somebody copied");
        assert_eq!(of(pod("C", true, None)), None);
    }

    #[test]
    fn who_has_the_ports_is_named() {
        let live = [revision(1, Some(NodeSlot::A))];
        let pods = held(&[pod("B", true, Some(90))], at(100));
        let why = free(&live, &pods).unwrap_err();
        assert!(why.contains("A by revision mesh-1") && why.contains("B by pod mesh/p"), "{why}");
        assert_eq!(of_release("0.2.0", &live, &pods), Ok(None), "it has no node proxies");
        assert_eq!(of_release("0.3.7", &live, &BTreeMap::new()), Ok(Some(NodeSlot::B)));
    }

    #[test]
    fn a_slot_makes_no_snapshot_another_one() {
        let (with, another) = (revision(1, Some(NodeSlot::A)).spec, revision(1, Some(NodeSlot::B)).spec);
        assert!(is_same(&with, &another) && is_same(&with, &without(&with)));
        let other = MeshRevisionSpec { version: "0.3.1".to_owned(), ..with.clone() };
        assert!(!is_same(&with, &other));
    }

    fn slots() -> impl Strategy<Value = Vec<Option<NodeSlot>>> {
        let slot = prop_oneof![Just(None), Just(Some(NodeSlot::A)), Just(Some(NodeSlot::B))];
        prop::collection::vec(slot, 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        #[test]
        fn a_slot_is_given_to_one_only_and_refused_only_where_both_are_taken(live in slots(), pods in slots()) {
            let revisions: Vec<_> = live.iter().enumerate().map(|(i, slot)| revision(i, *slot)).collect();
            let ends: Vec<_> = pods.iter().flatten().map(|slot| pod(slot.as_str(), true, None)).collect();
            let taken = |slot| live.contains(&Some(slot)) || pods.contains(&Some(slot));
            match free(&revisions, &held(&ends, at(0))) {
                Ok(slot) => prop_assert!(!taken(slot)),
                Err(_) => prop_assert!(NodeSlot::ALL.into_iter().all(taken)),
            }
        }

        // Revisions come one after the other, and pods of one that went stay for a while.
        #[test]
        fn no_two_that_run_at_a_time_share_ports(events in prop::collection::vec(0..4u8, 1..60)) {
            let (mut live, mut ends): (Vec<MeshRevision>, Vec<Pod>) = (Vec::new(), Vec::new());
            for (number, event) in events.into_iter().enumerate() {
                match event {
                    0 | 1 => {
                        if let Ok(slot) = free(&live, &held(&ends, at(0))) {
                            live.push(revision(number, Some(slot)));
                        }
                    }
                    2 if !live.is_empty() => {
                        let gone = live.remove(0).spec.node_slot.unwrap();
                        ends.push(pod(gone.as_str(), true, None));
                    }
                    _ => ends.clear(),
                }
                let users = |slot: NodeSlot| {
                    live.iter().filter(|r| r.spec.node_slot == Some(slot)).count()
                        + usize::from(held(&ends, at(0)).contains_key(&slot))
                };
                prop_assert!(NodeSlot::ALL.into_iter().all(|slot| users(slot) <= 1));
            }
        }
    }
}
