//! The phases of an upgrade: what is over, what goes on, what is still to come.

use k8s_openapi::jiff::Timestamp;
use meshwright_api::{UpgradePhase, UpgradeStatus};

use super::describe;
use crate::{
    output::{between, span},
    upgrade::{PHASES, shift, wave},
};

/// A row for each.
pub fn phases(upgrade: &UpgradeStatus, now: Timestamp) -> Vec<Vec<String>> {
    let row = |mark: &str, (phase, step): Stop, took: String, note: String| {
        let name = match phase {
            UpgradePhase::Shift => shift(&upgrade.steps, step.unwrap_or(1)),
            UpgradePhase::ShiftNodes => step.map_or_else(|| format!("{phase:?}"), wave),
            phase => format!("{phase:?}"),
        };
        vec![mark.to_owned(), name, took, note]
    };
    let here = (upgrade.phase, upgrade.step);
    let ended = upgrade.phase == UpgradePhase::RolledBack;
    let so_far = format!("{} so far", span(between(upgrade.since.0, now)));
    let done = upgrade.done.iter().map(|d| {
        let verdict = d.verdict.as_ref().map(|verdict| describe(d.phase, verdict)).unwrap_or_default();
        row("done", (d.phase, d.step), span(d.seconds), verdict)
    });
    let current = match ended {
        true => row("end", here, String::new(), String::new()),
        false => row("now", here, so_far, String::new()),
    };
    let coming = course(upgrade).into_iter().skip_while(|stop| *stop != here).skip(1);
    let coming = coming.map(|stop| row("", stop, String::new(), String::new()));
    done.chain([current]).chain(coming).collect()
}

/// A phase, and the step of phase Shift or the wave of phase ShiftNodes.
type Stop = (UpgradePhase, Option<i32>);

/// All that a good upgrade goes through.
fn course(upgrade: &UpgradeStatus) -> Vec<Stop> {
    let steps = i32::try_from(upgrade.steps.len()).unwrap_or(0);
    let stops = PHASES.into_iter().flat_map(|phase| match phase {
        UpgradePhase::Shift => (1..=steps).map(|step| (phase, Some(step))).collect(),
        UpgradePhase::Compare if upgrade.without_baseline => Vec::new(),
        // Whether there are waves, and how many, shows when they come.
        UpgradePhase::ShiftNodes if upgrade.phase != phase => Vec::new(),
        UpgradePhase::ShiftNodes => vec![(phase, upgrade.step)],
        _ => vec![(phase, None)],
    });
    stops.collect()
}
