//! Every state that an upgrade can get into, by brute force: from each state each thing that may be seen next, until nothing new
//! comes up. Time is three lengths: none, longer than every hold, longer than every deadline.

mod sights;
mod world;

use std::collections::{BTreeMap, VecDeque};

use meshwright_api::{
    Approval, MeshControlPlaneStatus, OnInsufficient, Strategy, UNMEASURED, UpgradePhase, UpgradeStatus,
    VerdictResult,
};

use self::{
    sights::all,
    world::{Follow, LONG, NEW, NODES, OLD, OTHER, Seen, Way, World, step},
};
use super::{
    machine::{Decision, Usage},
    routing::{self, Behind, Size},
};

fn key(world: &World) -> String {
    format!(
        "{} {} {} {:?} {} {}",
        world.active,
        world.old,
        world.new,
        world.nodes,
        world.given,
        serde_json::to_string(&world.position).unwrap()
    )
}

fn routing_of(world: &World) -> routing::Routing {
    let status = MeshControlPlaneStatus {
        active_revision: Some(world.active.to_owned()),
        upgrade: world.position.clone(),
        ..MeshControlPlaneStatus::default()
    };
    routing::of(&status).unwrap()
}

fn check(before: &World, seen: &Seen, decision: &Decision, after: &World) {
    let context = || format!("before {before:#?}\nseen {seen:#?}\nafter {after:#?}");
    let exists = |name: &str| if name == OLD { after.old } else { after.new };
    assert!(exists(after.active), "the active revision is there\n{}", context());
    if let Some(gone) = &decision.retire {
        let asked = before.position.as_ref().is_some_and(|p| p.phase == UpgradePhase::Retire);
        assert!(asked || seen.usage == Usage::Gone, "nothing in use is removed\n{}", context());
        assert_ne!(*gone, after.active, "{}", context());
        assert!(!after.nodes.contains(gone.as_str()), "nodes are served by it\n{}", context());
    }
    check_nodes(before, seen, after);
    let phase = |w: &World| w.position.as_ref().map(|p| p.phase);
    // What was well a moment ago may be unwell for a moment.
    let was_well = before.position.as_ref().is_some_and(|p| {
        use UpgradePhase::{Bake, InstallCanary, Shift, ShiftNodes};
        let waits = matches!(p.phase, InstallCanary | Shift | ShiftNodes | Bake);
        p.blocked_since.is_none() && waits
    });
    let why = after.position.as_ref().and_then(|p| p.rollback.as_ref()).map(|r| r.cause.as_str());
    let late = matches!(why, Some("NotReady" | "ProxiesNotReady" | "NodesNotServed"));
    assert!(!(was_well && late), "at once\n{}", context());
    let gathers = |p: &UpgradeStatus| match p.phase {
        UpgradePhase::Shift | UpgradePhase::ShiftNodes => p.measured_since.is_none(),
        phase => phase == UpgradePhase::Bake,
    };
    let blocked = after.position.as_ref().is_some_and(|p| gathers(p) && p.blocked_since.is_some());
    assert!(!(seen.paused && blocked), "a pause counts\n{}", context());
    if seen.paused && phase(before) == phase(after) && phase(before) < Some(UpgradePhase::RollingBack) {
        let (was, is) = (routing_of(before), routing_of(after));
        assert_eq!(was, is, "a pause moves no connection\n{}", context());
    }
    if let (Some(was), Some(is)) = (&before.position, &after.position) {
        let warm = was.phase == UpgradePhase::Drain && was.measured_since.is_none();
        let ends = is.phase == UpgradePhase::Drain && is.measured_since.is_some();
        let may = seen.settled || seen.ends_warmth || was.without_baseline;
        assert!(!(warm && ends) || may, "warm pods end while the new ones are not well\n{}", context());
        let back = is.phase == UpgradePhase::RollingBack;
        let wanted = warm && seen.target == OLD && !was.without_baseline;
        assert!(!wanted || back, "who wants the warm revision waits for a new upgrade\n{}", context());
        let looks = was.phase == UpgradePhase::Preflight && seen.unseen;
        let goes_on = is.phase == UpgradePhase::InstallCanary;
        assert!(!(looks && goes_on), "it begins on half a picture\n{}", context());
    }
    // Whoever waits for long for what ends asks a person.
    let ends = before.position.as_ref().is_some_and(|p| {
        p.phase == UpgradePhase::RolledBack && after.new
            || p.phase == UpgradePhase::Drain && p.measured_since.is_some()
    });
    let same = phase(before) == phase(after) && seen.elapsed == LONG;
    let asks = !matches!(seen.usage, Usage::Used | Usage::Unknown) || decision.asks.is_some();
    assert!(!(ends && same) || asks, "nobody is told\n{}", context());
    if phase(after) == Some(UpgradePhase::Retire) && phase(before) != Some(UpgradePhase::Retire) {
        assert_eq!(seen.usage, Usage::Gone, "{}", context());
    }
    if before.active != after.active {
        let by = phase(before).unwrap();
        let replaced = before.position.as_ref().is_some_and(|p| p.without_baseline);
        assert!(matches!(by, UpgradePhase::Promote | UpgradePhase::RollingBack) || replaced, "{}", context());
    }
    let routing = routing_of(after);
    let parts = [Some(&routing.lead), routing.other.as_ref()].into_iter().flatten();
    let served: Vec<_> = parts.filter(|p| p.size != Size::Ending).collect();
    assert!(served.iter().all(|p| exists(&p.revision)), "only what exists has pods\n{}", context());
    if let Behind::Only(name) | Behind::AnyOf(name) = &routing.behind {
        assert!(served.iter().any(|p| p.revision == *name), "who gets connections has pods\n{}", context());
    }
}

// Nodes go where there is a revision, after the gateways and not without them, and who serves them is not left alone with the rest.
fn check_nodes(before: &World, seen: &Seen, after: &World) {
    let context = || format!("before {before:#?}\nseen {seen:#?}\nafter {after:#?}");
    let phase = |w: &World| w.position.as_ref().map(|p| p.phase);
    let wanted = after.wanted();
    let is_there = |name: &str| if name == NEW { after.new } else { after.old };
    assert!(
        wanted.iter().all(|name| is_there(name)),
        "nodes are given to a revision that is not there\n{}",
        context()
    );
    if let Some(p) = &after.position {
        let over = p.phase >= UpgradePhase::Promote && p.phase < UpgradePhase::RollingBack;
        let over = over || p.phase == UpgradePhase::Bake && p.measured_since.is_some();
        assert!(!over || after.given == NODES, "{}", context());
        let waves = p.phase == UpgradePhase::ShiftNodes;
        assert!(over || waves || after.given == 0 || p.phase == UpgradePhase::Bake, "{}", context());
        let between = |p: &UpgradeStatus| matches!(p.phase, UpgradePhase::ShiftNodes | UpgradePhase::Bake);
        let went_on = between(p) && before.position.as_ref().is_some_and(between);
        assert!(!went_on || after.given >= before.given, "who has gone over went back\n{}", context());
        assert!(!waves || !p.without_baseline, "there is nothing to measure it against\n{}", context());
        let only_new = matches!(routing_of(after).behind, Behind::Only(name) if name == NEW);
        assert!(!over || only_new, "nodes go before the gateways\n{}", context());
    }
    check_waves(before, seen, after);
    if phase(after) == Some(UpgradePhase::Promote) && phase(before) != Some(UpgradePhase::Promote) {
        assert_eq!(after.nodes, [NEW].into(), "nodes are left behind\n{}", context());
    }
    let back = |w: &World| w.position.as_ref().and_then(|p| p.rollback.clone()?.traffic_back).is_some();
    let nowhere = phase(before) == Some(UpgradePhase::RollingBack) && !back(before) && back(after);
    assert!(!nowhere || !after.nodes.contains(NEW), "nodes stay with what is bad\n{}", context());
    if seen.paused && phase(before) == phase(after) && phase(before) < Some(UpgradePhase::RollingBack) {
        let gathers = before.position.as_ref().is_some_and(|p| {
            matches!(p.phase, UpgradePhase::ShiftNodes | UpgradePhase::Bake)
                && p.measured_since.is_none()
                && p.nodes.as_ref().is_some_and(|n| n.canary.is_some())
        });
        assert!(gathers || before.given == after.given, "a pause moves no node\n{}", context());
    }
    assert!(after.new || !after.nodes.contains(NEW), "nodes are served by what was removed\n{}", context());
}

// One node first, and no wave before the one before it was measured, and found good, or somebody knew.
fn check_waves(before: &World, seen: &Seen, after: &World) {
    let context = || format!("before {before:#?}\nseen {seen:#?}\nafter {after:#?}");
    let in_waves = |w: &World| w.position.clone().filter(|p| p.phase == UpgradePhase::ShiftNodes);
    let Some(is) = in_waves(after) else { return };
    let nodes = is.nodes.clone().unwrap_or_default();
    // Where it begins anew others may have it already.
    assert!(is.step != Some(1) || after.given <= before.given.max(1), "{}", context());
    assert!(after.given == 0 || nodes.canary.is_some(), "nobody said which goes first\n{}", context());
    let Some(was) = in_waves(before) else {
        assert_eq!((is.step, after.given), (Some(1), 0), "{}", context());
        return;
    };
    if is.step > was.step {
        assert!(was.measured_since.is_some() && !seen.paused, "{}", context());
        assert_ne!(seen.verdict, Some(VerdictResult::Fail), "{}", context());
        assert!(after.given >= before.given, "{}", context());
    }
    let moved = after.given > before.given;
    assert!(!moved || seen.fits, "a node goes where nobody is ready\n{}", context());
}

// Under these sights, seen again and again, it comes to an end.
fn ends(way: &Way, world: &World, seen: &Seen, is_end: impl Fn(&World) -> bool) {
    let (mut world, mut path) = (world.clone(), Vec::new());
    for _ in 0..60 {
        if is_end(&world) {
            return;
        }
        // Going back by itself would begin the upgrade anew.
        let seen = Seen { retry: false, ..seen.clone() };
        world = step(way, &world, &seen).1;
        path.push(world.position.as_ref().map(|p| (p.phase, p.step)));
    }
    panic!("no end in sight: {path:?}\n{world:#?}\n{seen:#?}");
}

// A step that was measured is left behind, and nobody agreed to that without a verdict.
fn goes_on_unasked(before: &World, after: &World) -> bool {
    let (Some(was), Some(is)) = (&before.position, &after.position) else { return false };
    let measures = |p: &UpgradeStatus| matches!(p.phase, UpgradePhase::Shift | UpgradePhase::ShiftNodes);
    let place = |p: &UpgradeStatus| (p.phase, p.step);
    let goes_on = measures(was) && place(is) > place(was) && is.phase <= UpgradePhase::Bake;
    let number = match (is.phase, is.step) {
        (UpgradePhase::ShiftNodes, step) => format!("nodes-{}", step.unwrap_or(0)),
        (UpgradePhase::Shift, step) => step.unwrap_or(0).to_string(),
        _ => (was.steps.len() + 1).to_string(),
    };
    let unmeasured = format!("{number}{UNMEASURED}");
    goes_on && !is.approvals.iter().any(|a| a.step == unmeasured)
}

fn search(way: &Way) -> usize {
    let start = World::installed();
    let mut known = BTreeMap::from([(key(&start), start.clone())]);
    let mut queue = VecDeque::from([start]);
    while let Some(world) = queue.pop_front() {
        let phase = world.position.as_ref().map(|p| p.phase);
        for seen in all(way, phase) {
            let (decision, after) = step(way, &world, &seen);
            check(&world, &seen, &decision, &after);
            let may_go_back = phase.is_some_and(|p| p < UpgradePhase::Retire) && way.baseline;
            if may_go_back && seen.rollback {
                let back = after.position.as_ref().map(|p| p.phase);
                assert_eq!(back, Some(UpgradePhase::RollingBack), "every phase can go back\n{world:#?}");
            }
            let measured = seen.verdict == Some(VerdictResult::Pass) || seen.no_waves;
            if way.going.on_insufficient == OnInsufficient::Wait && !measured {
                assert!(!goes_on_unasked(&world, &after), "nobody knew\n{world:#?}\n{seen:#?}");
            }
            // An upgrade that is over leaves one revision; what comes then is another upgrade.
            let is_over = after.position.is_none();
            if !is_over && !known.contains_key(&key(&after)) {
                known.insert(key(&after), after.clone());
                queue.push_back(after);
            }
        }
        if world.position.is_some() {
            let over = |w: &World| w.position.is_none();
            let back = |w: &World| {
                let is = |p: &UpgradeStatus| p.phase == UpgradePhase::RolledBack;
                w.position.as_ref().is_none_or(is) && !w.new && w.active == OLD
            };
            let good = Seen { baseline: way.baseline, ..Seen::good() };
            let leaves = world.position.as_ref().is_some_and(|p| p.phase >= UpgradePhase::RollingBack);
            if leaves {
                ends(way, &world, &good, back);
                ends(way, &world, &Seen { target: OLD, ..good.clone() }, over);
            } else {
                // Nodes that were late already, and nobody looked for two days.
                let was_late =
                    |p: &UpgradeStatus| p.phase == UpgradePhase::ShiftNodes && p.blocked_since.is_some();
                let was_late = world.position.as_ref().is_some_and(was_late);
                let over = |w: &World| over(w) || was_late && back(w);
                ends(way, &world, &good, over);
                if way.going.on_insufficient != OnInsufficient::RollBack {
                    let insufficient = Some(VerdictResult::Insufficient);
                    ends(way, &world, &Seen { verdict: insufficient, ..good.clone() }, over);
                }
                if way.baseline && matches!(phase, Some(UpgradePhase::Bake | UpgradePhase::ShiftNodes)) {
                    // Nodes that never come over send it back, unless they have come already.
                    let refuses = Seen { follow: Follow::OnlyBack, ..good.clone() };
                    ends(way, &world, &refuses, |w| over(w) || back(w));
                }
                let retires = world.position.as_ref().is_some_and(|p| p.phase == UpgradePhase::Retire);
                if !retires && way.baseline {
                    ends(way, &world, &Seen { rollback: true, ..good }, back);
                }
            }
        }
    }
    known.len()
}

#[test]
fn every_state_keeps_its_promises_and_leads_to_an_end() {
    let ways = [
        (Strategy::Canary, Approval::Never, OnInsufficient::Wait, (true, false)),
        (Strategy::Canary, Approval::BeforePromote, OnInsufficient::Continue, (true, false)),
        (Strategy::Canary, Approval::EveryStep, OnInsufficient::RollBack, (true, false)),
        (Strategy::Canary, Approval::EveryStep, OnInsufficient::Wait, (true, false)),
        (Strategy::InPlace, Approval::Never, OnInsufficient::Wait, (true, false)),
        (Strategy::Canary, Approval::Never, OnInsufficient::Wait, (false, false)),
        (Strategy::Canary, Approval::Never, OnInsufficient::RollBack, (true, true)),
        (Strategy::Canary, Approval::Never, OnInsufficient::Wait, (true, true)),
    ];
    std::thread::scope(|scope| {
        for (strategy, approval, on_insufficient, has) in ways {
            scope.spawn(move || {
                let states = search(&Way::new(strategy, approval, on_insufficient, has));
                let way =
                    format!("{strategy:?} {approval:?} {on_insufficient:?}, baseline and waves: {has:?}");
                println!("{way}: {states} states");
                assert!(states > 20, "{way} was hardly searched");
            });
        }
    });
}

#[test]
fn what_went_back_is_not_tried_again_until_it_is_asked_for() {
    let way = &Way::new(Strategy::Canary, Approval::Never, OnInsufficient::Wait, (true, true));
    let mut world = World::installed();
    let bad = Seen { verdict: Some(VerdictResult::Fail), ..Seen::good() };
    for _ in 0..30 {
        world = step(way, &world, &bad).1;
    }
    let p = world.position.as_ref().unwrap();
    assert_eq!((p.phase, world.active, world.new), (UpgradePhase::RolledBack, OLD, false));
    assert_eq!(p.rollback.as_ref().unwrap().cause, "ErrorsRose");
    let (_, same) = step(way, &world, &Seen::good());
    assert_eq!(same.position.as_ref().unwrap().phase, UpgradePhase::RolledBack);
    let (_, same) = step(way, &world, &Seen { target: OTHER, rebuilt: true, ..Seen::good() });
    assert!(same.position.is_some(), "the same release with other images");
    let (_, other) = step(way, &world, &Seen { target: OTHER, ..Seen::good() });
    assert_eq!(other.position, None, "the spec asks for something else");
    let (_, again) = step(way, &world, &Seen { retry: true, ..Seen::good() });
    assert_eq!(again.position, None, "then it begins anew");
}

#[test]
fn each_wave_of_nodes_is_asked_for_and_so_is_what_comes_after_them() {
    let way = &Way::new(Strategy::Canary, Approval::EveryStep, OnInsufficient::Wait, (true, true));
    let (mut world, mut asked) = (World::installed(), Vec::new());
    for _ in 0..60 {
        let (decision, after) = step(way, &world, &Seen { agrees: true, ..Seen::good() });
        let p = decision.position.as_ref();
        asked.extend(p.and_then(|p| p.awaits_approval.clone()).map(|step| (step, after.given)));
        // What is asked for is kept for the next look.
        world = World { position: decision.position.clone(), ..after };
    }
    let asked: Vec<(&str, i32)> = asked.iter().map(|(step, given)| (step.as_str(), *given)).collect();
    let nodes = [("nodes-1", 0), ("nodes-2", 1), ("nodes-3", 2)];
    assert_eq!(asked, [&[("1", 0)][..], &nodes, &[("2", 8), ("promote", 8)]].concat());
}
