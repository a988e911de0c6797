//! What an upgrade goes through, and how long that takes at least.

use meshwright_api::{
    Approval, NODE_WAVES, NODES_STEP, OnInsufficient, Strategy, Upgrade, UpgradePhase, shares::canary_pods,
};
use serde::Serialize;

use super::super::wave;

use crate::output::go_seconds;

/// A phase of the upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Phase {
    pub(super) name: String,
    pub(super) at_least_seconds: i64,
    pub(super) what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approval: Option<String>,
}

/// How the new revision is measured.
pub fn analysis(upgrade: &Upgrade) -> String {
    let analysis = &upgrade.analysis;
    let without = match analysis.on_insufficient {
        OnInsufficient::Wait => "then for a person",
        OnInsufficient::Continue => "then it goes on",
        OnInsufficient::RollBack => "then it goes back",
    };
    format!(
        "against the old revision at the same time: it goes back when over {} more requests fail or latency is \
         clearly higher (a rise by {} is found); a step waits for {} requests of each up to {}, {without}",
        analysis.max_error_increase, analysis.max_latency_increase, analysis.min_requests, analysis.deadline
    )
}

/// What a share is in whole pods: `pods` serve in each Gateway, and stay.
fn share(percent: i32, pods: &[i32], surge_percent: i32) -> String {
    let asked = format!("{percent} % of new connections asked for");
    let shares = pods.iter().map(|n| {
        let new = canary_pods(*n, percent, surge_percent);
        (100 * new + (new + n) / 2) / (new + n)
    });
    let (Some(low), Some(high)) = (shares.clone().min(), shares.max()) else {
        return asked + "; whole pods may make it more or less";
    };
    let new: i32 = pods.iter().map(|n| canary_pods(*n, percent, surge_percent)).sum();
    let all: i32 = pods.iter().sum();
    let whole = if low == high { format!("{low} %") } else { format!("{low} to {high} %") };
    format!("{asked}, {whole} by whole pods: {new} new beside {all}")
}

/// What the upgrade goes through when all is well. `pods` are those of each Gateway; `nodes` says that both releases have node proxies.
pub fn phases(upgrade: &Upgrade, automatic: bool, pods: &[i32], nodes: bool) -> Vec<Phase> {
    let canary = upgrade.strategy == Strategy::Canary;
    let every = upgrade.approval == Approval::EveryStep;
    let seconds = |text: &str| go_seconds(text).unwrap_or(0);
    let phase = |phase: UpgradePhase, seconds: i64, what: &str| Phase {
        name: format!("{phase:?}"),
        at_least_seconds: seconds,
        what: what.to_owned(),
        approval: None,
    };
    let begin =
        if automatic && !upgrade.windows.is_empty() { "waits for its window" } else { "begins at once" };
    let mut phases = vec![
        phase(UpgradePhase::Planned, 0, begin),
        phase(UpgradePhase::Preflight, 0, "looks for what stands in the way"),
        phase(UpgradePhase::InstallCanary, 0, "the new control plane comes up beside the old one"),
    ];
    phases.push(phase(UpgradePhase::Compare, 0, "a listener, route or cluster that would be lost stops it"));
    let steps = upgrade.steps.iter().filter(|_| canary);
    for (number, step) in (1..).zip(steps) {
        phases.push(Phase {
            name: format!("Shift {number} of {}", upgrade.steps.len()),
            at_least_seconds: seconds(&step.hold),
            what: share(step.percent, pods, upgrade.surge_percent),
            approval: every.then(|| number.to_string()),
        });
    }
    let hold = upgrade.steps.last().map_or(0, |step| seconds(&step.hold));
    for number in (1..).zip(NODE_WAVES).map(|(number, _)| number).filter(|_| canary && nodes) {
        // A quarter of three nodes is the first one again.
        let (at_least_seconds, what) = match number {
            1 => {
                (hold, "this goes over to the new revision's proxy; its calls are held against those before")
            }
            2 => (0, "of five nodes or more a quarter goes over; fewer are left out here"),
            _ => (hold, "all other nodes go over"),
        };
        phases.push(Phase {
            name: wave(number),
            at_least_seconds,
            what: what.to_owned(),
            approval: every.then(|| format!("{NODES_STEP}{number}")),
        });
    }
    let (bake, what) = match canary {
        true => (seconds(&upgrade.bake), "all traffic goes to the new revision"),
        false => (0, "all traffic goes to the new revision in one step, not measured"),
    };
    let number = if canary { upgrade.steps.len() + 1 } else { 1 };
    phases
        .push(Phase { approval: every.then(|| number.to_string()), ..phase(UpgradePhase::Bake, bake, what) });
    phases.push(Phase {
        approval: (upgrade.approval != Approval::Never).then(|| "promote".to_owned()),
        ..phase(UpgradePhase::Promote, 0, "the new revision is the active one")
    });
    let warm = "the old gateway pods stay ready to go back to, then end their connections";
    phases.push(phase(UpgradePhase::Drain, seconds(&upgrade.keep_warm), warm));
    phases.push(phase(UpgradePhase::Retire, 0, "the old revision is removed once nothing uses it"));
    phases
}
