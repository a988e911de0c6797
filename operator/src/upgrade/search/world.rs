//! What the search remembers between two reconciles, what it may see in one, and one step of the state machine.

use std::collections::BTreeSet;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use meshwright_api::{
    Approval, Blocker, Comparison, OnInsufficient, Strategy, Upgrade, UpgradePhase, UpgradeStatus, Verdict,
    VerdictResult,
};

use crate::{
    mesh_control_plane::nodes::{self, Wanted},
    upgrade::{
        Settings, View,
        machine::{Decision, Gateways, Health, Nodes, Revision, Trouble, Usage, Waves, Wishes, next},
    },
};

pub(super) const OLD: &str = "mesh-00000001";
pub(super) const NEW: &str = "mesh-00000002";
/// So many nodes there are.
pub(super) const NODES: i32 = 8;
pub(super) const OTHER: &str = "mesh-00000003";
/// Longer than every hold, grace and patience, shorter than every deadline.
pub(super) const A_WHILE: SignedDuration = SignedDuration::from_mins(3);
/// Longer than everything.
pub(super) const LONG: SignedDuration = SignedDuration::from_hours(48);

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// What is remembered between two reconciles: the record, which revisions exist, and which of them serve nodes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct World {
    pub(super) position: Option<UpgradeStatus>,
    pub(super) active: &'static str,
    pub(super) old: bool,
    pub(super) new: bool,
    pub(super) nodes: BTreeSet<&'static str>,
    /// How many of the [`NODES`] the new revision is to have.
    pub(super) given: i32,
}

impl World {
    /// A mesh that is installed.
    pub(super) fn installed() -> Self {
        Self { position: None, active: OLD, old: true, new: false, nodes: [OLD].into(), given: 0 }
    }

    /// The revisions that nodes are given to.
    pub(super) fn wanted(&self) -> BTreeSet<&'static str> {
        let (new, old) = (self.given > 0, self.given < NODES);
        [(new, NEW), (old, OLD)].into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect()
    }

    /// As the operator gives them; `fits` is whether new proxies are ready to take them.
    fn give(&mut self, fits: bool) {
        let asked = self.position.as_ref().and_then(|p| Some(p.nodes.as_ref()?.asked)).unwrap_or(Some(0));
        let measured = self.position.as_ref().is_some_and(|p| p.measured_since.is_some());
        self.given = match nodes::wanted(self.active, self.position.as_ref()) {
            Wanted::All(NEW) => NODES,
            Wanted::All(_) => 0,
            Wanted::Wave(_) if measured && asked.is_some() || !fits => self.given,
            Wanted::Wave(_) => asked.unwrap_or(NODES).max(self.given),
        };
    }

    fn follow(&mut self, follow: Follow) {
        let wanted = self.wanted();
        match follow {
            Follow::Nobody => {}
            Follow::OnlyBack if wanted.contains(NEW) => {}
            Follow::Some => self.nodes.extend(wanted),
            Follow::All | Follow::OnlyBack => self.nodes = wanted,
        }
    }

    fn waves(&self, seen: &Seen) -> Option<Waves> {
        let p = self.position.as_ref().filter(|_| !seen.no_waves)?;
        let nodes = p.nodes.clone().unwrap_or_default();
        let asked = nodes.asked.unwrap_or(NODES);
        let arrived = self.given >= asked && self.nodes == self.wanted();
        Some(Waves {
            candidate: (seen.fits && !seen.asleep).then(|| "n1".to_owned()),
            canary_is_there: nodes.canary.is_some() && !seen.canary_gone && !seen.asleep,
            able: if seen.asleep { 0 } else { NODES },
            asleep: seen.asleep,
            served: if self.nodes.contains(NEW) && !seen.canary_gone && !seen.asleep {
                self.given
            } else {
                0
            },
            waiting: (!arrived).then(|| "nodes".to_owned()),
            passed_over: Vec::new(),
        })
    }
}

/// Which nodes have gone over to whom they were given since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    Nobody,
    Some,
    All,
    /// All of them, but never to the new revision.
    OnlyBack,
}

/// What may be seen.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) target: &'static str,
    pub(super) elapsed: SignedDuration,
    pub(super) paused: bool,
    pub(super) closed: bool,
    pub(super) held: bool,
    pub(super) unseen: bool,
    pub(super) rebuilt: bool,
    pub(super) baseline: bool,
    pub(super) trouble: bool,
    pub(super) ready: bool,
    pub(super) old_ready: bool,
    pub(super) blocked: bool,
    pub(super) compared: Option<Result<i32, ()>>,
    pub(super) settled: bool,
    pub(super) back: bool,
    pub(super) stuck: bool,
    pub(super) follow: Follow,
    pub(super) no_ports: bool,
    pub(super) no_waves: bool,
    pub(super) asleep: bool,
    pub(super) fits: bool,
    pub(super) canary_gone: bool,
    pub(super) verdict: Option<VerdictResult>,
    pub(super) usage: Usage,
    pub(super) agrees: bool,
    pub(super) accepts: bool,
    pub(super) rollback: bool,
    pub(super) retry: bool,
    pub(super) ends_warmth: bool,
}

impl Seen {
    pub(super) fn good() -> Self {
        Self {
            target: NEW,
            elapsed: LONG,
            paused: false,
            closed: false,
            held: false,
            unseen: false,
            rebuilt: false,
            baseline: true,
            trouble: false,
            ready: true,
            old_ready: true,
            blocked: false,
            compared: Some(Ok(0)),
            settled: true,
            back: true,
            stuck: false,
            follow: Follow::All,
            no_ports: false,
            no_waves: false,
            asleep: false,
            fits: true,
            canary_gone: false,
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
pub(super) struct Way {
    pub(super) baseline: bool,
    /// Both releases have node proxies.
    pub(super) waves: bool,
    pub(super) going: Settings,
    pub(super) paused: Settings,
}

impl Way {
    pub(super) fn new(
        strategy: Strategy,
        approval: Approval,
        on_insufficient: OnInsufficient,
        (baseline, waves): (bool, bool),
    ) -> Self {
        let settings = |paused| {
            let mut upgrade = Upgrade { strategy, approval, paused, ..Upgrade::default() };
            // Where the nodes have steps, too, one of the gateways tells as much as two.
            upgrade.steps.truncate(if waves { 1 } else { 2 });
            upgrade.analysis.on_insufficient = on_insufficient;
            Settings::parse(&upgrade).unwrap()
        };
        Self { baseline, waves, going: settings(false), paused: settings(true) }
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
        acknowledge: p.filter(|_| seen.accepts).map(|p| (p.plan.clone(), "alice".to_owned())),
        rollback: seen.rollback.then(|| NEW.to_owned()),
        retry: p.filter(|_| seen.retry).map(UpgradeStatus::attempt),
        end_keep_warm: seen.ends_warmth.then(|| OLD.to_owned()),
    }
}

pub(super) fn step(way: &Way, world: &World, seen: &Seen) -> (Decision, World) {
    let mut world = world.clone();
    world.follow(seen.follow);
    let world = &world;
    // As `in_use` of a revision: who serves a node is used, whatever else is seen.
    let in_use = |name: &str| if world.nodes.contains(name) { Usage::Used } else { seen.usage };
    let awaited = |is: bool| is.then(|| "nodes".to_owned());
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
        // Who asks for something else changes the spec; other images of the same release do not.
        generation: [NEW, OLD, OTHER]
            .iter()
            .position(|t| *t == seen.target && !seen.rebuilt)
            .map(|n| n as i64)
            .or(Some(0)),
        by_itself: false,
        unseen: seen.unseen.then(|| "budgets".to_owned()),
        opens: seen.closed.then(|| now() + LONG),
        held_back: seen.held.then(|| "0.1.0".to_owned()),
        from: Health { exists: world.old, ready: seen.old_ready, trouble: None, in_use: in_use(OLD) },
        to: Health {
            exists: world.new,
            ready: world.new && seen.ready,
            trouble: trouble(seen.trouble),
            in_use: in_use(NEW),
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
        nodes: Nodes {
            forward: awaited(world.nodes.contains(OLD)),
            back: awaited(world.nodes.contains(NEW)),
            waves: world.waves(seen).filter(|_| way.waves),
        },
        ports: awaited(seen.no_ports),
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
    after.give(seen.fits);
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
    p.started = Time(now() - LONG);
}

// What no later decision depends on would make every state a new one.
fn forget(p: &mut UpgradeStatus) {
    p.done.clear();
    p.accepted.clear();
    // What was agreed to before the step before this one is asked for no more.
    let old = p.approvals.len().saturating_sub(2);
    p.approvals.drain(..old);
    p.approvals.iter_mut().for_each(|a| a.time = Time(now()));
    (p.waiting, p.deadline, p.share, p.verdict, p.comparison) = (None, None, None, None, None);
    if let Some(rollback) = &mut p.rollback {
        rollback.decided = Time(now());
        rollback.traffic_back.iter_mut().for_each(|t| t.0 = now());
        rollback.message.clear();
    }
    if p.phase == UpgradePhase::ShiftNodes {
        p.since = Time(now());
    } else if p.phase > UpgradePhase::Bake {
        p.nodes = None;
    }
    if let Some(nodes) = &mut p.nodes {
        nodes.of = 0;
    }
    age(p, SignedDuration::ZERO);
}
