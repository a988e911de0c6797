//! How many proxies each revision has, and which of them get connections: the mesh's routing, for one Gateway. Pure.

use k8s_openapi::api::apps::v1::Deployment;

use super::dereference::There;
use crate::{
    availability::Plan,
    upgrade::{
        routing::{Behind, Part, Routing, Size},
        shares,
    },
};

/// The revisions that have proxies, each with its plan; the leading one first.
pub fn sizes(routing: &Routing, there: &There, plan: &Plan, surge_percent: i32) -> Vec<(String, Plan)> {
    let steady = steady(routing, there, plan);
    let leads = |part: &Part| part.revision == routing.lead.revision;
    let sized = |part: &Part| {
        let plan = match part.size {
            Size::Scaled => plan.clone(),
            Size::Held if leads(part) => plan.held(steady),
            // Nobody makes new proxies of the revision that is left.
            Size::Held => plan.held(own(there, &part.revision)?),
            Size::Share(percent) => plan.held(shares::canary_pods(steady, percent, surge_percent)),
            Size::Full => plan.held(steady),
            Size::Ending => return None,
        };
        Some((part.revision.clone(), plan))
    };
    std::iter::once(&routing.lead).chain(&routing.other).filter_map(sized).collect()
}

/// The number of pods that the Gateway needs whatever becomes of the upgrade: what it has, and more where they have too much to do. A
/// maximum that was lowered in the middle takes nothing away that serves.
fn steady(routing: &Routing, there: &There, plan: &Plan) -> i32 {
    let now = before(routing, there).unwrap_or(plan.min).max(plan.min);
    // Who has the connections has the load, and as many pods as the one that leads.
    let busy = match &routing.behind {
        Behind::Only(revision) | Behind::AnyOf(revision) => revision,
        Behind::Both => &routing.lead.revision,
    };
    let load = there.load.get(busy).copied();
    shares::steady(now, load, plan.target_cpu_percent, plan.max)
}

fn before(routing: &Routing, there: &There) -> Option<i32> {
    let of_other = || own(there, &routing.other.as_ref()?.revision);
    own(there, &routing.lead.revision).or_else(of_other)
}

fn own(there: &There, revision: &str) -> Option<i32> {
    there.deployments.get(revision)?.spec.replicas.filter(|n| *n > 0)
}

/// Ready proxies of a revision.
pub fn ready(there: &There, revision: &str) -> i32 {
    there.deployments.get(revision).map_or(0, ready_of)
}

/// Ready pods of a Deployment.
pub fn ready_of(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
}

/// The revision that the Service is limited to; none: all of them. It is never one that has too few ready proxies while another
/// one serves.
pub fn behind(routing: &Routing, there: &There, plan: &Plan) -> Option<String> {
    let (wanted, urgent) = match &routing.behind {
        Behind::Both => return None,
        Behind::Only(wanted) => (wanted, false),
        Behind::AnyOf(wanted) => (wanted, true),
    };
    let others = there.deployments.keys().filter(|revision| *revision != wanted);
    let now = there.behind.as_ref();
    if others.map(|revision| ready(there, revision)).sum::<i32>() == 0 {
        return Some(wanted.clone());
    }
    let steady = before(routing, there).unwrap_or(plan.min);
    let leads = *wanted == routing.lead.revision;
    let needed = if urgent || now == Some(wanted) {
        1
    } else if leads {
        // Proxies that were there all the time, of which some may be away at any time.
        steady - plan.max_disrupted
    } else {
        steady
    };
    if ready(there, wanted) >= needed.max(1) {
        return Some(wanted.clone());
    }
    // What serves goes on to serve.
    now.filter(|n| *n != wanted && ready(there, n) > 0).cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meshwright_api::{MeshControlPlaneStatus, Profile};
    use serde_json::json;

    use super::*;
    use crate::{
        availability::{Workload, solve},
        upgrade::{routing, shares::Load},
    };

    fn plan() -> Plan {
        solve(Workload::Gateway, Profile::Production, &[])
    }

    fn there(pods: &[(&str, i32, i32)], behind: Option<&str>) -> There {
        let deployment = |replicas: i32, ready: i32| -> Deployment {
            serde_json::from_value(json!({
                "spec": {"replicas": replicas, "selector": {}, "template": {}}, "status": {"readyReplicas": ready}}))
            .unwrap()
        };
        There {
            deployments: pods.iter().map(|(n, r, y)| ((*n).to_owned(), deployment(*r, *y))).collect(),
            service: None,
            load: BTreeMap::new(),
            behind: behind.map(str::to_owned),
        }
    }

    fn routing(lead: Size, other: Size, only: Option<&str>) -> Routing {
        let part = |revision: &str, size| Part { revision: revision.to_owned(), size };
        let behind = only.map_or(Behind::Both, |o| Behind::Only(o.to_owned()));
        Routing { lead: part("old", lead), other: Some(part("new", other)), behind }
    }

    fn numbers(sizes: Vec<(String, Plan)>) -> Vec<(String, i32, i32)> {
        sizes.into_iter().map(|(n, p)| (n, p.min, p.max)).collect()
    }

    #[test]
    fn a_share_comes_on_top_of_what_there_was() {
        let there = there(&[("old", 6, 6)], Some("old"));
        let sizes = sizes(&routing(Size::Held, Size::Share(25), None), &there, &plan(), 100);
        assert_eq!(numbers(sizes), [("old".to_owned(), 6, 6), ("new".to_owned(), 2, 2)]);
    }

    #[test]
    fn who_has_the_connections_tells_how_many_are_needed() {
        let mut there = there(&[("old", 3, 3), ("new", 3, 3)], Some("new"));
        let load = |cpu_percent| Load { pods: 3, cpu_percent };
        there.load =
            [("old".to_owned(), load(1)), ("new".to_owned(), load(10 * plan().target_cpu_percent))].into();
        let full = routing(Size::Held, Size::Full, Some("new"));
        let sizes = sizes(&full, &there, &plan(), 100);
        assert!(sizes.iter().all(|(_, plan)| plan.min > 3), "{:?}", numbers(sizes.clone()));
    }

    #[test]
    fn connections_go_over_only_to_as_many_proxies_as_there_were() {
        let over = routing(Size::Held, Size::Full, Some("new"));
        assert_eq!(behind(&over, &there(&[("old", 3, 3), ("new", 3, 2)], None), &plan()), None);
        assert_eq!(
            behind(&over, &there(&[("old", 3, 3), ("new", 3, 3)], None), &plan()).as_deref(),
            Some("new")
        );
        let stays = there(&[("old", 3, 3), ("new", 3, 1)], Some("new"));
        assert_eq!(behind(&over, &stays, &plan()).as_deref(), Some("new"), "a restart does not turn it back");
    }

    #[test]
    fn going_back_from_what_is_bad_waits_for_nobody() {
        let mut back = routing(Size::Held, Size::Held, None);
        back.behind = Behind::AnyOf("old".to_owned());
        for before in [None, Some("new")] {
            let there = there(&[("old", 3, 1), ("new", 3, 3)], before);
            assert_eq!(behind(&back, &there, &plan()).as_deref(), Some("old"));
        }
        let cold = there(&[("old", 3, 0), ("new", 3, 3)], Some("new"));
        assert_eq!(behind(&back, &cold, &plan()).as_deref(), Some("new"), "something has to serve");
        let gone = there(&[("old", 3, 0), ("new", 3, 0)], Some("new"));
        assert_eq!(behind(&back, &gone, &plan()).as_deref(), Some("old"));
    }

    #[test]
    fn going_back_without_need_waits_for_as_many_as_a_drain_leaves() {
        let back = routing(Size::Held, Size::Held, Some("old"));
        let few = there(&[("old", 3, 1), ("new", 3, 3)], Some("new"));
        assert_eq!(behind(&back, &few, &plan()).as_deref(), Some("new"));
        let enough = there(&[("old", 3, 2), ("new", 3, 3)], Some("new"));
        assert_eq!(behind(&back, &enough, &plan()).as_deref(), Some("old"));
    }

    #[test]
    fn a_lowered_maximum_takes_nothing_away_and_no_proxies_are_made_of_what_is_left() {
        let mut low = plan();
        low.max = 4;
        let held = routing(Size::Held, Size::Full, None);
        let there = there(&[("old", 8, 8)], None);
        assert_eq!(
            numbers(sizes(&held, &there, &low, 100)),
            [("old".to_owned(), 8, 8), ("new".to_owned(), 8, 8)]
        );
        let back = routing(Size::Held, Size::Held, Some("old"));
        assert_eq!(numbers(sizes(&back, &there, &low, 100)), [("old".to_owned(), 8, 8)]);
    }

    #[test]
    fn a_revision_that_lost_its_part_serves_until_another_one_can() {
        let lead = Part { revision: "new".to_owned(), size: Size::Scaled };
        let alone = Routing { behind: Behind::Only("new".to_owned()), lead, other: None };
        let there = there(&[("old", 3, 3)], Some("old"));
        assert_eq!(behind(&alone, &there, &plan()).as_deref(), Some("old"));
    }

    #[test]
    fn going_back_when_the_old_proxies_are_gone_waits_for_enough_of_them() {
        let of = |phase: &str| -> MeshControlPlaneStatus {
            let moment = "2026-11-20T12:00:00Z";
            serde_json::from_value(json!({"activeRevision": "new", "upgrade": {
                "from": "old", "fromVersion": "0.1.0", "to": "new", "toVersion": "0.2.0", "strategy": "Canary",
                "phase": "RollingBack", "started": moment, "since": moment, "plan": "1",
                "rollback": {"phase": phase, "cause": "Requested", "message": "m", "decided": moment}}}))
            .unwrap()
        };
        let one_is_up = there(&[("old", 6, 1), ("new", 6, 6)], Some("new"));
        let behind = |phase: &str| behind(&routing::of(&of(phase)).unwrap(), &one_is_up, &plan());
        assert_eq!(behind("Bake").as_deref(), Some("old"), "the new one is bad");
        assert_eq!(behind("Drain").as_deref(), Some("new"), "one cannot carry the traffic of six");
    }
}
