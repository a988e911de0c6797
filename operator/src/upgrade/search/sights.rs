//! What may be seen in each phase.

use k8s_openapi::jiff::SignedDuration;
use meshwright_api::{UpgradePhase, VerdictResult};

use super::world::{A_WHILE, Follow, LONG, OLD, OTHER, Seen, Way};
use crate::upgrade::machine::Usage;

fn each<T: Copy>(of: Vec<Seen>, values: &[T], set: impl Fn(&mut Seen, T)) -> Vec<Seen> {
    let one = |seen: &Seen, value: T| {
        let mut seen = seen.clone();
        set(&mut seen, value);
        seen
    };
    of.iter().flat_map(|seen| values.iter().map(|value| one(seen, *value)).collect::<Vec<_>>()).collect()
}

// All that may be seen where it matters for the phase; each thing that sends it back, with everything else as it should be.
pub(super) fn all(way: &Way, phase: Option<UpgradePhase>) -> Vec<Seen> {
    let both = [false, true];
    let mut all = vec![Seen { baseline: way.baseline, ..Seen::good() }];
    use UpgradePhase::{RollingBack, Shift, ShiftNodes};
    // What else there is to see in the other phases is looked for without waves.
    if way.waves && !matches!(phase, Some(Shift | ShiftNodes | RollingBack)) {
        let back = each(all.clone(), &[true], |s, v| s.rollback = v);
        return each(all, &[Follow::All, Follow::Some], |s, v| s.follow = v)
            .into_iter()
            .chain(back)
            .collect();
    }
    all = each(all, &[SignedDuration::ZERO, A_WHILE, LONG], |s, v| s.elapsed = v);
    all = each(all, &both, |s, v| s.paused = v);
    if !way.baseline {
        // It may become ready in the end.
        all = each(all, &both, |s, v| s.old_ready = v);
    }
    // An upgrade to another revision is another search.
    let Some(phase) = phase else { return all };
    let backs: [fn(&mut Seen); 4] =
        [|s| s.rollback = true, |s| s.trouble = true, |s| s.target = OLD, |s| s.target = OTHER];
    let back = each(all.clone(), &backs, |s, set| set(s));
    of_phase(phase, all).into_iter().chain(back).collect()
}

fn of_phase(phase: UpgradePhase, mut all: Vec<Seen>) -> Vec<Seen> {
    let both = [false, true];
    match phase {
        UpgradePhase::Planned => each(all, &both, |s, v| s.closed = v),
        UpgradePhase::Preflight => {
            all = each(all, &both, |s, v| s.closed = v);
            all = each(all, &both, |s, v| s.unseen = v);
            each(each(all, &both, |s, v| s.blocked = v), &both, |s, v| s.accepts = v)
        }
        UpgradePhase::InstallCanary => {
            all = each(all, &both, |s, v| s.no_ports = v);
            each(all, &both, |s, v| s.ready = v)
        }
        UpgradePhase::Compare => {
            all = each(all, &[None, Some(Ok(0)), Some(Ok(1)), Some(Err(()))], |s, v| s.compared = v);
            all = each(all, &both, |s, v| s.accepts = v);
            all = each(all, &both, |s, v| s.old_ready = v);
            each(all, &both, |s, v| s.agrees = v)
        }
        UpgradePhase::Shift | UpgradePhase::Bake => {
            use VerdictResult::{Fail, Insufficient, Pass};
            let late = each(all.clone(), &[Follow::Nobody, Follow::Some], |s, v| s.follow = v);
            let late = each(late, &both, |s, v| s.settled = v);
            all = each(all, &[None, Some(Pass), Some(Fail), Some(Insufficient)], |s, v| s.verdict = v);
            all = each(all, &both, |s, v| s.settled = v);
            all = each(all, &both, |s, v| s.stuck = v);
            all.extend(late.into_iter().filter(|_| phase == UpgradePhase::Bake));
            each(all, &both, |s, v| s.agrees = v)
        }
        UpgradePhase::ShiftNodes => {
            use VerdictResult::{Fail, Insufficient, Pass};
            let late = each(all.clone(), &[Follow::Nobody, Follow::Some], |s, v| s.follow = v);
            let late = each(late, &both, |s, v| s.fits = v);
            let gone = each(all.clone(), &both, |s, v| s.canary_gone = v);
            let gone = each(gone, &both, |s, v| s.no_waves = v);
            let asleep = each(all.clone(), &[true], |s, v| s.asleep = v);
            all = each(all, &[None, Some(Pass), Some(Fail), Some(Insufficient)], |s, v| s.verdict = v);
            all = each(all, &both, |s, v| s.stuck = v);
            all.extend(late);
            all.extend(gone);
            all.extend(asleep);
            each(all, &both, |s, v| s.agrees = v)
        }
        UpgradePhase::Drain => {
            all = each(with_usage(all), &both, |s, v| s.settled = v);
            each(all, &both, |s, v| s.ends_warmth = v)
        }
        UpgradePhase::RollingBack => {
            all = each(all, &[Follow::Nobody, Follow::Some, Follow::All], |s, v| s.follow = v);
            each(all, &both, |s, v| s.back = v)
        }
        UpgradePhase::RolledBack => {
            all = each(with_usage(all), &both, |s, v| s.retry = v);
            each(all, &both, |s, v| s.held = v)
        }
        UpgradePhase::Promote | UpgradePhase::Retire => all,
    }
}

fn with_usage(all: Vec<Seen>) -> Vec<Seen> {
    each(all, &[Usage::Unknown, Usage::Used, Usage::Unused, Usage::Gone], |s, v| s.usage = v)
}
