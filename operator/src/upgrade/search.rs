//! Every state that an upgrade can get into, by brute force: from each state each thing that may be seen next, until nothing new
//! comes up. Time is three lengths: none, longer than every hold, longer than every deadline.

use std::collections::{BTreeMap, VecDeque};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use meshwright_api::{
    Approval, Blocker, Comparison, MeshControlPlaneStatus, OnInsufficient, Strategy, Upgrade, UpgradePhase,
    UpgradeStatus, Verdict, VerdictResult,
};

use super::{
    Settings, View,
    machine::{Decision, Gateways, Health, Revision, Trouble, Usage, Wishes, next},
    routing::{self, Behind, Size},
};

const OLD: &str = "mesh-00000001";
const NEW: &str = "mesh-00000002";
const OTHER: &str = "mesh-00000003";
/// Longer than every hold, grace and patience, shorter than every deadline.
const A_WHILE: SignedDuration = SignedDuration::from_mins(3);
/// Longer than everything.
const LONG: SignedDuration = SignedDuration::from_hours(48);

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// What is remembered between two reconciles: the record, and which revisions exist.
#[derive(Debug, Clone, PartialEq)]
struct World {
    position: Option<UpgradeStatus>,
    active: &'static str,
    old: bool,
    new: bool,
}

/// What may be seen.
#[derive(Debug, Clone)]
struct Seen {
    target: &'static str,
    elapsed: SignedDuration,
    paused: bool,
    closed: bool,
    held: bool,
    baseline: bool,
    trouble: bool,
    ready: bool,
    old_ready: bool,
    blocked: bool,
    compared: Option<Result<i32, ()>>,
    settled: bool,
    back: bool,
    stuck: bool,
    verdict: Option<VerdictResult>,
    usage: Usage,
    agrees: bool,
    accepts: bool,
    rollback: bool,
    retry: bool,
    ends_warmth: bool,
}

impl Seen {
    fn good() -> Self {
        Self {
            target: NEW,
            elapsed: LONG,
            paused: false,
            closed: false,
            held: false,
            baseline: true,
            trouble: false,
            ready: true,
            old_ready: true,
            blocked: false,
            compared: Some(Ok(0)),
            settled: true,
            back: true,
            stuck: false,
            verdict: Some(VerdictResult::Pass),
            usage: Usage::Gone,
            agrees: true,
            accepts: true,
            rollback: false,
            retry: false,
            ends_warmth: false,
        }
    }
}

/// Settings that change which ways there are.
#[derive(Debug)]
struct Way {
    baseline: bool,
    going: Settings,
    paused: Settings,
}

impl Way {
    fn new(strategy: Strategy, approval: Approval, on_insufficient: OnInsufficient, baseline: bool) -> Self {
        let settings = |paused| {
            let mut upgrade = Upgrade { strategy, approval, paused, ..Upgrade::default() };
            upgrade.steps.truncate(2);
            upgrade.analysis.on_insufficient = on_insufficient;
            Settings::parse(&upgrade).unwrap()
        };
        Self { baseline, going: settings(false), paused: settings(true) }
    }
}

fn revision(name: &str) -> Revision {
    Revision { name: name.to_owned(), version: "0.1.0".to_owned() }
}

fn wishes(world: &World, seen: &Seen) -> Wishes {
    let p = world.position.as_ref();
    // To what was asked last.
    let asked = p.filter(|_| seen.agrees).and_then(|p| p.awaits_approval.clone());
    Wishes {
        approve: asked.map(|step| (NEW.to_owned(), step, "alice".to_owned())),
        acknowledge: p.filter(|_| seen.accepts).map(|p| p.plan.clone()),
        rollback: seen.rollback.then(|| NEW.to_owned()),
        retry: seen.retry.then(|| NEW.to_owned()),
        end_keep_warm: seen.ends_warmth.then(|| OLD.to_owned()),
    }
}

fn step(way: &Way, world: &World, seen: &Seen) -> (Decision, World) {
    let mut position = world.position.clone();
    if let Some(p) = &mut position {
        age(p, seen.elapsed);
    }
    let trouble = |is: bool| {
        is.then(|| Trouble { cause: "Crashes".to_owned(), message: "it crashes".to_owned(), lasting: true })
    };
    let settings = if seen.paused { &way.paused } else { &way.going };
    let verdict =
        |result| Verdict { result, reason: "because".to_owned(), canary_requests: 1, baseline_requests: 1 };
    let blocker = Blocker { reason: "R".to_owned(), message: "m".to_owned(), remedy: "r".to_owned() };
    let view = View {
        now: now(),
        settings,
        target: revision(seen.target),
        active: Some(revision(world.active)),
        active_was_ready: seen.baseline,
        position: position.as_ref(),
        opens: seen.closed.then(|| now() + LONG),
        held_back: seen.held.then(|| "0.1.0".to_owned()),
        from: Health { exists: world.old, ready: seen.old_ready, trouble: None, in_use: seen.usage },
        to: Health {
            exists: world.new,
            ready: world.new && seen.ready,
            trouble: trouble(seen.trouble),
            in_use: seen.usage,
        },
        blockers: if seen.blocked { vec![blocker] } else { Vec::new() },
        comparison: seen.compared.map(|c| {
            c.map(|lost| Comparison { lost, ..Comparison::default() }).map_err(|()| "silent".to_owned())
        }),
        gateways: Gateways {
            settled: seen.settled,
            back: seen.back,
            connections: 10,
            waiting: None,
            trouble: trouble(seen.stuck),
        },
        verdict: seen.verdict.map(verdict),
        verdict_cause: "ErrorsRose".to_owned(),
        requests: None,
        wishes: wishes(world, seen),
    };
    let decision = next(&view);
    let name = |n: &str| if n == NEW { NEW } else { OLD };
    let mut after =
        World { position: decision.position.clone(), active: name(&decision.active.name), ..world.clone() };
    after.new |= decision.create;
    match decision.retire.as_deref() {
        Some(OLD) => after.old = false,
        Some(NEW) => after.new = false,
        _ => {}
    }
    if let Some(p) = &mut after.position {
        forget(p);
    }
    (decision, after)
}

// Moves the record into the past.
fn age(p: &mut UpgradeStatus, by: SignedDuration) {
    let back = |t: &mut Time| {
        let old = now().duration_since(t.0) + by;
        let kept = if old >= LONG {
            LONG
        } else if old.is_zero() {
            SignedDuration::ZERO
        } else {
            A_WHILE
        };
        t.0 = now() - kept;
    };
    back(&mut p.since);
    p.measured_since.iter_mut().for_each(&back);
    p.blocked_since.iter_mut().for_each(&back);
    p.approvals.iter_mut().for_each(|a| back(&mut a.time));
    p.started = Time(now() - LONG);
}

// What no later decision depends on would make every state a new one.
fn forget(p: &mut UpgradeStatus) {
    p.done.clear();
    (p.waiting, p.deadline, p.share, p.verdict, p.comparison) = (None, None, None, None, None);
    if let Some(rollback) = &mut p.rollback {
        rollback.decided = Time(now());
        rollback.traffic_back.iter_mut().for_each(|t| t.0 = now());
        rollback.message.clear();
    }
    age(p, SignedDuration::ZERO);
}

fn each<T: Copy>(of: Vec<Seen>, values: &[T], set: impl Fn(&mut Seen, T)) -> Vec<Seen> {
    let one = |seen: &Seen, value: T| {
        let mut seen = seen.clone();
        set(&mut seen, value);
        seen
    };
    of.iter().flat_map(|seen| values.iter().map(|value| one(seen, *value)).collect::<Vec<_>>()).collect()
}

// All that may be seen where it matters for the phase; each thing that sends it back, with everything else as it should be.
fn all(way: &Way, phase: Option<UpgradePhase>) -> Vec<Seen> {
    let both = [false, true];
    let mut all = vec![Seen { baseline: way.baseline, ..Seen::good() }];
    all = each(all, &[SignedDuration::ZERO, A_WHILE, LONG], |s, v| s.elapsed = v);
    all = each(all, &both, |s, v| s.paused = v);
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
            each(each(all, &both, |s, v| s.blocked = v), &both, |s, v| s.accepts = v)
        }
        UpgradePhase::InstallCanary => each(all, &both, |s, v| s.ready = v),
        UpgradePhase::Compare => {
            all = each(all, &[None, Some(Ok(0)), Some(Ok(1)), Some(Err(()))], |s, v| s.compared = v);
            all = each(all, &both, |s, v| s.accepts = v);
            all = each(all, &both, |s, v| s.old_ready = v);
            each(all, &both, |s, v| s.agrees = v)
        }
        UpgradePhase::Shift | UpgradePhase::Bake => {
            use VerdictResult::{Fail, Insufficient, Pass};
            all = each(all, &[None, Some(Pass), Some(Fail), Some(Insufficient)], |s, v| s.verdict = v);
            all = each(all, &both, |s, v| s.settled = v);
            all = each(all, &both, |s, v| s.stuck = v);
            each(all, &both, |s, v| s.agrees = v)
        }
        UpgradePhase::Drain => each(with_usage(all), &both, |s, v| s.ends_warmth = v),
        UpgradePhase::RollingBack => each(all, &both, |s, v| s.back = v),
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

fn key(world: &World) -> String {
    format!(
        "{} {} {} {}",
        world.active,
        world.old,
        world.new,
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
    }
    let phase = |w: &World| w.position.as_ref().map(|p| p.phase);
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

fn search(way: &Way) -> usize {
    let start = World { position: None, active: OLD, old: true, new: false };
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
                ends(way, &world, &good, over);
                if way.going.on_insufficient != OnInsufficient::RollBack {
                    let insufficient = Some(VerdictResult::Insufficient);
                    ends(way, &world, &Seen { verdict: insufficient, ..good.clone() }, over);
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
        (Strategy::Canary, Approval::Never, OnInsufficient::Wait, true),
        (Strategy::Canary, Approval::BeforePromote, OnInsufficient::Continue, true),
        (Strategy::Canary, Approval::EveryStep, OnInsufficient::RollBack, true),
        (Strategy::Canary, Approval::EveryStep, OnInsufficient::Wait, true),
        (Strategy::InPlace, Approval::Never, OnInsufficient::Wait, true),
        (Strategy::Canary, Approval::Never, OnInsufficient::Wait, false),
    ];
    std::thread::scope(|scope| {
        for (strategy, approval, on_insufficient, baseline) in ways {
            scope.spawn(move || {
                let states = search(&Way::new(strategy, approval, on_insufficient, baseline));
                let way = format!("{strategy:?} {approval:?} {on_insufficient:?}, baseline: {baseline}");
                println!("{way}: {states} states");
                assert!(states > 20, "{way} was hardly searched");
            });
        }
    });
}

#[test]
fn what_went_back_is_not_tried_again_until_it_is_asked_for() {
    let way = &Way::new(Strategy::Canary, Approval::Never, OnInsufficient::Wait, true);
    let mut world = World { position: None, active: OLD, old: true, new: false };
    let bad = Seen { verdict: Some(VerdictResult::Fail), ..Seen::good() };
    for _ in 0..30 {
        world = step(way, &world, &bad).1;
    }
    let p = world.position.as_ref().unwrap();
    assert_eq!((p.phase, world.active, world.new), (UpgradePhase::RolledBack, OLD, false));
    assert_eq!(p.rollback.as_ref().unwrap().cause, "ErrorsRose");
    let (_, same) = step(way, &world, &Seen::good());
    assert_eq!(same.position.as_ref().unwrap().phase, UpgradePhase::RolledBack);
    let (_, again) = step(way, &world, &Seen { retry: true, ..Seen::good() });
    assert_eq!(again.position, None, "then it begins anew");
}
