use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use meshwright_api::{Autoscaling, Profile};
use proptest::prelude::*;

use super::{Plan, Workload, solve};

fn bounds() -> impl Strategy<Value = Option<Autoscaling>> {
    let one = (
        proptest::option::of(1..=1000i32),
        proptest::option::of(1..=1000i32),
        proptest::option::of(1..=100i32),
    )
        .prop_map(|(min_replicas, max_replicas, target_cpu_percent)| Autoscaling {
            min_replicas,
            max_replicas,
            target_cpu_percent,
        });
    proptest::option::of(one)
}

fn any_plan() -> impl Strategy<Value = (Profile, Workload, Plan)> {
    (
        prop_oneof![Just(Profile::Demo), Just(Profile::Default), Just(Profile::Production)],
        prop_oneof![Just(Workload::ControlPlane), Just(Workload::Gateway)],
        bounds(),
        bounds(),
    )
        .prop_map(|(profile, workload, first, second)| {
            (profile, workload, solve(workload, profile, &[first, second]))
        })
}

/// Pods on each node as the scheduler places them under `maxSkew: 1`.
fn spread(pods: i32, nodes: i32) -> Vec<i32> {
    (0..nodes).map(|n| pods / nodes + i32::from(n < pods % nodes)).collect()
}

/// Pods that start where one of the nodes is full: it has none, and no other may have more than the skew above that.
fn start_beside_a_full_node(plan: &Plan, nodes: i32) -> i32 {
    (nodes - 1) * plan.node_skew()
}

/// The most of the fewest pods that the hard constraint lets onto one of several nodes.
fn fullest_allowed(plan: &Plan, nodes: i32) -> i32 {
    (1..=plan.min)
        .rev()
        .find(|on_one| on_one - (plan.min - on_one) / (nodes - 1) <= plan.node_skew())
        .unwrap_or(0)
}

/// Evicts all pods of one node as `kubectl drain` does: as many at a time as the budget allows, each replaced elsewhere.
fn drain_ends(plan: &Plan, pods: i32, on_node: i32) -> bool {
    let mut left = on_node;
    for _ in 0..=on_node {
        if left == 0 {
            return true;
        }
        // The budget counts against the desired number of pods; all others are healthy again before each round.
        let allowed = plan.max_disrupted.min(pods);
        if allowed < 1 {
            return false;
        }
        left -= allowed.min(left);
    }
    left == 0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12_000))]

    #[test]
    fn a_drain_of_any_node_goes_on((_, _, plan) in any_plan(), nodes in 1..50i32, scale in 0..=100i32) {
        let pods = plan.min + (plan.max - plan.min) * scale / 100;
        for on_node in spread(pods, nodes) {
            prop_assert!(drain_ends(&plan, pods, on_node));
        }
    }

    #[test]
    fn pods_remain_when_a_node_or_zone_vanishes((_, _, plan) in any_plan(), domains in 2..20i32, scale in 0..=100i32) {
        let pods = plan.min + (plan.max - plan.min) * scale / 100;
        let fullest = spread(pods, domains).into_iter().max().unwrap_or(0);
        if pods > 1 {
            prop_assert!(pods - fullest >= 1);
            prop_assert!(pods - fullest >= pods / 2, "more than half of {} pods gone", pods);
        }
    }

    #[test]
    fn one_full_node_does_not_cap_the_workload_below_its_minimum((_, _, plan) in any_plan(), nodes in 3..50i32) {
        prop_assert!(start_beside_a_full_node(&plan, nodes) >= plan.min);
    }

    #[test]
    fn the_fewest_pods_are_never_all_on_one_node((_, _, plan) in any_plan(), nodes in 2..50i32) {
        prop_assert!(plan.min == 1 || fullest_allowed(&plan, nodes) < plan.min);
    }

    #[test]
    fn the_autoscalers_minimum_exceeds_what_the_budget_protects((profile, _, plan) in any_plan()) {
        prop_assert!(plan.min >= 1 && plan.min <= plan.max);
        prop_assert!(plan.protected() < plan.min);
        prop_assert!(plan.protected() >= 0);
        if profile == Profile::Production && plan.min >= 4 {
            prop_assert!(plan.max_disrupted * 4 <= plan.min, "a quarter, rounded down");
        }
    }

    #[test]
    fn a_rollout_has_room_and_never_less_than_steady((_, _, plan) in any_plan()) {
        let surge = match &plan.max_surge {
            IntOrString::Int(n) => *n,
            // Kubernetes rounds a surge up.
            IntOrString::String(s) => {
                let percent: i32 = s.trim_end_matches('%').parse().unwrap();
                (plan.min * percent + 99) / 100
            }
        };
        prop_assert!(surge >= 1, "maxUnavailable 0 without a surge never moves");
    }

    #[test]
    fn a_users_minimum_is_never_undercut(profile in prop_oneof![Just(Profile::Demo), Just(Profile::Default), Just(Profile::Production)], min in 1..=1000i32, max in proptest::option::of(1..=1000i32)) {
        let said = Autoscaling { min_replicas: Some(min), max_replicas: max, target_cpu_percent: None };
        prop_assert!(solve(Workload::Gateway, profile, &[Some(said)]).min >= min);
    }
}

#[test]
fn profiles_are_as_documented() {
    let of = |profile| {
        let plan = solve(Workload::Gateway, profile, &[]);
        (plan.min, plan.max, plan.max_disrupted)
    };
    assert_eq!(of(Profile::Demo), (1, 2, 1));
    assert_eq!(of(Profile::Default), (2, 5, 1));
    assert_eq!(of(Profile::Production), (3, 10, 1));
}

#[test]
fn the_most_specific_bound_wins() {
    let gateway = Autoscaling { min_replicas: Some(4), max_replicas: None, target_cpu_percent: None };
    let mesh = Autoscaling { min_replicas: Some(2), max_replicas: Some(8), target_cpu_percent: Some(50) };
    let plan = solve(Workload::Gateway, Profile::Default, &[Some(gateway), Some(mesh)]);
    assert_eq!((plan.min, plan.max, plan.target_cpu_percent), (4, 8, 50));
}
