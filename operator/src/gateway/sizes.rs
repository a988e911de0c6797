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
    let sized = |part: &Part| {
        let plan = match part.size {
            Size::Scaled => plan.clone(),
            Size::Held => {
                plan.held(own(there, &part.revision).unwrap_or(steady).max(steady_of(part, routing, steady)))
            }
            Size::Share(percent) => plan.held(shares::canary_pods(steady, percent, surge_percent)),
            Size::Full => plan.held(steady),
            Size::Ending => return None,
        };
        Some((part.revision.clone(), plan))
    };
    std::iter::once(&routing.lead).chain(&routing.other).filter_map(sized).collect()
}

// A held canary keeps what it has; the leading revision is never below the steady number.
fn steady_of(part: &Part, routing: &Routing, steady: i32) -> i32 {
    if part.revision == routing.lead.revision { steady } else { 1 }
}

/// The number of pods that the Gateway needs whatever becomes of the upgrade.
pub fn steady(routing: &Routing, there: &There, plan: &Plan) -> i32 {
    let other = routing.other.as_ref().map(|o| o.revision.as_str());
    let of_lead = own(there, &routing.lead.revision);
    let now = of_lead.or_else(|| own(there, other?)).unwrap_or(plan.min);
    let pods = ready(there, &routing.lead.revision) + other.map_or(0, |o| ready(there, o));
    let cpu = there.cpu.get(&routing.lead.revision).copied();
    shares::steady(now, pods.max(now), cpu, plan.target_cpu_percent, (plan.min, plan.max))
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
    let Behind::Only(wanted) = &routing.behind else { return None };
    let others = [&routing.lead, routing.other.as_ref().unwrap_or(&routing.lead)];
    let other = others.into_iter().find(|p| p.revision != *wanted).map(|p| ready(there, &p.revision));
    let (Some(other), now) = (other.filter(|n| *n > 0), there.behind.as_ref()) else {
        return Some(wanted.clone());
    };
    let ready = ready(there, wanted);
    // Back to proxies that got connections all the time there is nothing to wait for; to others, until they are enough.
    let back = *wanted == routing.lead.revision && now.is_none();
    let needed = if back || now == Some(wanted) { 1 } else { steady(routing, there, plan) };
    if ready >= needed.max(1) {
        return Some(wanted.clone());
    }
    // What serves goes on to serve.
    now.filter(|n| *n != wanted && other > 0).cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meshwright_api::Profile;
    use serde_json::json;

    use super::*;
    use crate::availability::{Workload, solve};

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
            cpu: BTreeMap::new(),
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
    fn going_back_waits_for_nobody_that_serves_already() {
        let back = routing(Size::Held, Size::Held, Some("old"));
        assert_eq!(
            behind(&back, &there(&[("old", 3, 1), ("new", 1, 1)], None), &plan()).as_deref(),
            Some("old")
        );
        let cold = there(&[("old", 3, 1), ("new", 3, 3)], Some("new"));
        assert_eq!(
            behind(&back, &cold, &plan()).as_deref(),
            Some("new"),
            "three served, so three must be there"
        );
        let gone = there(&[("old", 3, 0), ("new", 3, 0)], Some("new"));
        assert_eq!(behind(&back, &gone, &plan()).as_deref(), Some("old"));
    }
}
