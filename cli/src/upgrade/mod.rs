//! Upgrades: what one would do, where one is, what the last ones did.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use meshwright_api::{
    MeshControlPlane, NODE_WAVES, NODES_STEP, UNMEASURED, UpgradePhase, UpgradeStatus,
    conditions::RECONCILED, labels,
};

pub mod history;
pub mod plan;
pub mod progress;
pub mod version;
pub mod watch;

/// The phases of an upgrade that succeeds, in their order.
pub const PHASES: [UpgradePhase; 10] = [
    UpgradePhase::Planned,
    UpgradePhase::Preflight,
    UpgradePhase::InstallCanary,
    UpgradePhase::Compare,
    UpgradePhase::Shift,
    UpgradePhase::ShiftNodes,
    UpgradePhase::Bake,
    UpgradePhase::Promote,
    UpgradePhase::Drain,
    UpgradePhase::Retire,
];

/// A condition of the mesh.
pub fn condition<'a>(mesh: &'a MeshControlPlane, type_: &str) -> Option<&'a Condition> {
    mesh.status.as_ref()?.conditions.iter().find(|c| c.type_ == type_)
}

/// The operator has looked at the newest spec.
pub fn is_observed(mesh: &MeshControlPlane) -> bool {
    mesh.status.as_ref().and_then(|s| s.observed_generation) >= mesh.metadata.generation
}

/// The condition that says why the newest spec is not carried out.
pub fn not_reconciled(mesh: &MeshControlPlane) -> Option<&Condition> {
    condition(mesh, RECONCILED).filter(|c| c.status == "False" && is_observed(mesh))
}

/// The upgrade that is under way: one that went back is over, though the status still tells of it.
pub fn running(mesh: &MeshControlPlane) -> Option<&UpgradeStatus> {
    recorded(mesh).filter(|u| u.phase != UpgradePhase::RolledBack)
}

/// The upgrade that the status tells of.
pub fn recorded(mesh: &MeshControlPlane) -> Option<&UpgradeStatus> {
    mesh.status.as_ref()?.upgrade.as_ref()
}

/// A step as an approval names it, for people. The one after the last share is all traffic.
pub fn describe_step(step: &str, steps: &[i32]) -> String {
    if step == "promote" {
        return "the promotion".to_owned();
    }
    let number = step.strip_suffix(UNMEASURED);
    let without = if number.is_some() { ", without a good verdict" } else { "" };
    let number = number.unwrap_or(step);
    if let Some(number) = number.strip_prefix(NODES_STEP) {
        return format!("wave {number} of the nodes{without}");
    }
    let index = number.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    match index.and_then(|i| steps.get(i)) {
        Some(percent) => format!("step {number} ({percent} %{without})"),
        None => format!("step {number} (all traffic{without})"),
    }
}

/// A person has accepted what stands in the way; it stays listed.
pub fn is_accepted(mesh: &MeshControlPlane, upgrade: &UpgradeStatus) -> bool {
    let said = mesh.annotations().get(labels::ACKNOWLEDGE).and_then(|said| said.split_once('/'));
    !upgrade.blockers.is_empty() && said.is_some_and(|(plan, _)| plan == upgrade.plan)
}

/// Something stands in the way that nobody has accepted.
pub fn is_blocked(mesh: &MeshControlPlane, upgrade: &UpgradeStatus) -> bool {
    let looks = matches!(upgrade.phase, UpgradePhase::Preflight | UpgradePhase::Compare);
    looks && !upgrade.blockers.is_empty() && !upgrade.without_baseline && !is_accepted(mesh, upgrade)
}

/// Phase and step in a few words.
pub fn place(upgrade: &UpgradeStatus) -> String {
    match upgrade.phase {
        UpgradePhase::Shift => shift(&upgrade.steps, upgrade.step.unwrap_or(1)),
        UpgradePhase::ShiftNodes => wave(upgrade.step.unwrap_or(1)),
        phase => format!("{phase:?}"),
    }
}

/// A wave of phase ShiftNodes: its number and share.
pub fn wave(wave: i32) -> String {
    let share = match usize::try_from(wave - 1).ok().and_then(|i| NODE_WAVES.get(i)) {
        Some(0) | None => "one node".to_owned(),
        Some(percent) => format!("{percent} %"),
    };
    format!("ShiftNodes {wave} of {}: {share}", NODE_WAVES.len())
}

/// A step of phase Shift: its number and share.
pub fn shift(steps: &[i32], step: i32) -> String {
    let percent = usize::try_from(step - 1).ok().and_then(|i| steps.get(i));
    match percent {
        Some(percent) => format!("Shift {step} of {}: {percent} %", steps.len()),
        None => format!("Shift {step}"),
    }
}
