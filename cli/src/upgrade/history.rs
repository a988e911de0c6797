//! The last upgrades.

use meshwright_api::{Accepted, UNMEASURED, UpgradePhase, UpgradeRecord};

use super::progress::describe;
use crate::output::{Page, between, clock, span};

/// For people.
pub fn text(history: &[UpgradeRecord]) -> String {
    let mut page = Page::default();
    if history.is_empty() {
        page.raw("No upgrade has ended yet.");
    }
    for (i, one) in history.iter().enumerate() {
        if i > 0 {
            page.raw("");
        }
        record(&mut page, one);
    }
    page.done()
}

/// One upgrade.
pub fn record(page: &mut Page, record: &UpgradeRecord) {
    let UpgradeRecord { from, from_version, to, to_version, strategy, result, .. } = record;
    let took = span(between(record.started.0, record.ended.0));
    page.raw(format!("{}  {from_version} -> {to_version}: {result:?} after {took}", clock(record.started.0)));
    page.field("why", &record.reason);
    page.field("revisions", &format!("{from} -> {to} ({strategy:?})"));
    let phases = record.phases.iter().map(|p| match (p.phase, p.step) {
        (UpgradePhase::Shift, Some(step)) => format!("Shift {step} {}", span(p.seconds)),
        (UpgradePhase::ShiftNodes, Some(wave)) => format!("ShiftNodes {wave} {}", span(p.seconds)),
        (phase, _) => format!("{phase:?} {}", span(p.seconds)),
    });
    page.field("phases", &phases.collect::<Vec<_>>().join(", "));
    for phase in &record.phases {
        if let Some(verdict) = &phase.verdict {
            let what = if phase.phase == UpgradePhase::ShiftNodes { "wave" } else { "step" };
            let name = phase.step.map_or_else(|| "verdict".to_owned(), |step| format!("{what} {step}"));
            page.field(&name, &describe(phase.phase, verdict));
        }
    }
    for approved in &record.approvals {
        let (number, without) = match approved.step.strip_suffix(UNMEASURED) {
            Some(number) => (number, ", without a good verdict,"),
            None => (approved.step.as_str(), ""),
        };
        let what =
            if number == "promote" { "the promotion".to_owned() } else { format!("step {number}{without}") };
        page.field("approved", &format!("{what} by {}, {}", approved.user, clock(approved.time.0)));
    }
    accepted(page, &record.accepted);
}

/// Who went on in spite of what.
pub fn accepted(page: &mut Page, accepted: &[Accepted]) {
    for one in accepted {
        page.field("accepted", &format!("{} by {}, {}", one.reasons.join(", "), one.user, clock(one.time.0)));
    }
}
