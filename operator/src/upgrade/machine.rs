//! The state machine of an upgrade. Pure: (what is seen, now) -> the next position and what comes with it.
//!
//! One call moves at most one phase on. The position is written before anything is done for it, so whoever comes after a crash
//! goes on from there; nothing in here remembers anything.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use meshwright_api::{
    Accepted, Approval, Approved, Blocker, NODE_WAVES, NODES_STEP, OnInsufficient, Share, Strategy,
    UNMEASURED, UpgradePhase, UpgradeRecord, UpgradeStatus, VerdictResult,
};

mod back;
mod ending;
mod nodes;
mod phases;
mod record;
mod view;

pub use record::{HISTORY, is_same_position, plan_hash};
pub use view::{Decision, Gateways, Health, Nodes, Revision, Trouble, Usage, View, Waves, Wishes};

/// A canary that cannot even start, or that broke, is given this long to mend itself.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Cause of going back because a person asks for it.
pub const REQUESTED: &str = "Requested";
/// How often to look where nothing says that something changed.
pub const LOOK: Duration = Duration::from_secs(5);

/// Decides.
pub fn next(view: &View<'_>) -> Decision {
    let Some(active) = view.active.clone() else {
        let told =
            format!("revision {} is the first of this mesh, installed without analysis", view.target.name);
        let told = vec![("RevisionActivated", told)];
        return Decision { told, ..Decision::create(view, view.target.clone()) };
    };
    match view.position {
        // It may have been deleted by force.
        None if active.name == view.target.name && view.to.exists => Decision::settled(active),
        None if active.name == view.target.name => Decision::create(view, active),
        None => begin(view, active),
        Some(position) => Going::new(view, active, position).next(),
    }
}

fn begin(view: &View<'_>, active: Revision) -> Decision {
    let now = Time(view.now);
    let unmeasured = !view.active_was_ready;
    let canary = view.settings.strategy == Strategy::Canary && !unmeasured;
    let steps = if canary { view.settings.steps.iter().map(|s| s.0).collect() } else { Vec::new() };
    let position = UpgradeStatus {
        from: active.name.clone(),
        from_version: active.version.clone(),
        to: view.target.name.clone(),
        to_version: view.target.version.clone(),
        strategy: if canary { Strategy::Canary } else { Strategy::InPlace },
        without_baseline: unmeasured,
        by_itself: view.by_itself,
        phase: UpgradePhase::Planned,
        step: None,
        steps,
        started: now.clone(),
        since: now,
        measured_since: None,
        blocked_since: None,
        waiting: None,
        awaits_approval: None,
        deadline: None,
        share: None,
        nodes: None,
        verdict: None,
        plan: plan_hash(&active.name, &view.target.name, &[]),
        blockers: Vec::new(),
        comparison: None,
        approvals: Vec::new(),
        accepted: Vec::new(),
        rollback: None,
        done: Vec::new(),
    };
    let mut told = format!(
        "upgrade from revision {} ({}) to {} ({})",
        active.name, active.version, view.target.name, view.target.version
    );
    if unmeasured {
        told.push_str("; the old one was never ready, so it is replaced without comparing or measuring");
    }
    let told = vec![("UpgradePlanned", told)];
    let position = Some(position);
    Decision { position, told, recheck: Some(Duration::ZERO), ..Decision::settled(active) }
}

impl Decision {
    /// The active revision is to be made, as soon as it can have ports on the nodes.
    fn create(view: &View<'_>, active: Revision) -> Self {
        let recheck = view.ports.as_ref().map(|_| LOOK);
        Self { create: view.ports.is_none(), recheck, ..Self::settled(active) }
    }

    fn settled(active: Revision) -> Self {
        Self {
            position: None,
            active,
            create: false,
            retire: None,
            ended: None,
            told: Vec::new(),
            asks: None,
            recheck: None,
        }
    }
}

/// What comes of a phase.
enum Outcome {
    /// It goes on, or another one does.
    Stays,
    /// What went back stays recorded until something else is asked for.
    Ends(UpgradeRecord),
    /// There is no upgrade any more.
    Over(Option<UpgradeRecord>),
}

/// An upgrade under way.
struct Going<'a> {
    view: &'a View<'a>,
    active: Revision,
    position: UpgradeStatus,
    told: Vec<(&'static str, String)>,
    asks: Option<String>,
    recheck: Option<Duration>,
}

impl<'a> Going<'a> {
    fn new(view: &'a View<'a>, active: Revision, position: &UpgradeStatus) -> Self {
        let mut position = position.clone();
        (position.waiting, position.awaits_approval, position.deadline) = (None, None, None);
        Self { view, active, position, told: Vec::new(), asks: None, recheck: Some(LOOK) }
    }

    fn next(mut self) -> Decision {
        self.note_approval();
        let before = self.position.phase;
        // Nothing was made yet: another plan takes its place, and nothing goes back.
        if before <= UpgradePhase::Preflight && self.view.target.name != self.position.to {
            self.recheck = Some(Duration::ZERO);
            return self.end(Outcome::Over(None));
        }
        if self.position.without_baseline
            && !self.view.from.ready
            && before < UpgradePhase::Promote
            && self.view.target.name != self.position.to
        {
            let outcome = self.replace_again();
            return self.end(outcome);
        }
        if before < UpgradePhase::Retire
            && let Some(why) = self.must_go_back()
        {
            self.go_back(why);
            return self.end(Outcome::Stays);
        }
        let outcome = match before {
            UpgradePhase::Planned => self.planned(),
            UpgradePhase::Preflight => self.preflight(),
            UpgradePhase::InstallCanary => self.install_canary(),
            UpgradePhase::Compare => self.compare(),
            UpgradePhase::Shift => self.shift(),
            UpgradePhase::ShiftNodes => self.shift_nodes(),
            UpgradePhase::Bake => self.bake(),
            UpgradePhase::Promote => self.promote(),
            UpgradePhase::Drain => self.drain(),
            UpgradePhase::Retire => self.retire(),
            UpgradePhase::RollingBack => self.rolling_back(),
            UpgradePhase::RolledBack => self.rolled_back(),
        };
        self.end(outcome)
    }

    fn end(self, outcome: Outcome) -> Decision {
        let Self { view, active, position, told, asks, recheck } = self;
        let installs = position.phase == UpgradePhase::InstallCanary && !view.to.exists;
        let create = installs && view.ports.is_none();
        let retire = match position.phase {
            UpgradePhase::Retire if view.from.exists => Some(position.from.clone()),
            UpgradePhase::RolledBack if view.to.exists && view.to.in_use == Usage::Gone => {
                Some(position.to.clone())
            }
            _ => None,
        };
        let (position, ended) = match outcome {
            Outcome::Stays => (Some(position), None),
            Outcome::Ends(record) => (Some(position), Some(record)),
            Outcome::Over(record) => (None, record),
        };
        Decision { position, active, create, retire, ended, told, asks, recheck }
    }

    /// Neither revision was ever ready: the next one replaces whichever there is.
    fn replace_again(&mut self) -> Outcome {
        if self.view.to.exists {
            let p = &self.position;
            self.active = Revision { name: p.to.clone(), version: p.to_version.clone() };
        }
        self.recheck = Some(Duration::ZERO);
        let reason = format!("revision {} was asked for instead", self.view.target.name);
        let result = meshwright_api::UpgradeResult::Superseded;
        Outcome::Over(Some(record::record(&self.position, result, reason, self.view.now)))
    }

    // === Common parts

    /// Goes on to another phase, or step of one.
    fn enter(&mut self, phase: UpgradePhase) {
        record::close_phase(&mut self.position, self.view.now);
        let p = &mut self.position;
        p.phase = phase;
        p.since = Time(self.view.now);
        p.measured_since = None;
        p.blocked_since = None;
        p.verdict = None;
        if !matches!(phase, UpgradePhase::Shift | UpgradePhase::ShiftNodes) {
            p.step = None;
        }
        (p.waiting, p.awaits_approval, p.deadline) = (None, None, None);
        self.recheck = Some(Duration::ZERO);
    }

    fn wait(&mut self, what: impl Into<String>, until: Option<Timestamp>) {
        self.position.waiting = Some(what.into());
        self.position.deadline = until.map(Time);
        if let Some(until) = until {
            self.recheck = Some(self.left(until).min(LOOK));
        }
    }

    fn left(&self, until: Timestamp) -> Duration {
        Duration::try_from(until.duration_since(self.view.now)).unwrap_or_default()
    }

    fn after(&self, since: &Time, time: Duration) -> Timestamp {
        let time = k8s_openapi::jiff::SignedDuration::try_from(time).unwrap_or_default();
        since.0.checked_add(time).unwrap_or(Timestamp::MAX)
    }

    fn is_over(&self, since: &Time, time: Duration) -> bool {
        self.view.now >= self.after(since, time)
    }

    /// Held: says so, and nothing begins.
    fn must_hold(&mut self) -> bool {
        let held = self.view.settings.held();
        if let Some(why) = held {
            self.wait(why, None);
        }
        held.is_some()
    }

    /// A person accepts what stands in the way now; who and what goes on record.
    fn is_acknowledged(&mut self) -> bool {
        let p = &self.position;
        let Some((_, user)) = self.view.wishes.acknowledge.as_ref().filter(|(plan, _)| *plan == p.plan)
        else {
            return false;
        };
        if !p.accepted.iter().any(|a| a.plan == p.plan) {
            let reasons: Vec<String> = p.blockers.iter().map(|b| b.reason.clone()).collect();
            self.told.push(("Acknowledged", format!("{user} goes on in spite of {}", reasons.join(", "))));
            let time = Time(self.view.now);
            let accepted = Accepted { plan: p.plan.clone(), reasons, user: user.clone(), time };
            self.position.accepted.push(accepted);
        }
        true
    }

    fn block(&mut self, blockers: Vec<Blocker>) {
        let p = &mut self.position;
        p.plan = plan_hash(&p.from, &p.to, &blockers);
        p.blockers = blockers;
    }

    // An old approval never passes a new step: it is taken over once, for the revision and step that it names.
    fn note_approval(&mut self) {
        let Some((revision, step, user)) = &self.view.wishes.approve else { return };
        let known = self.position.approvals.iter().any(|a| a.step == *step);
        if *revision == self.position.to && !known && self.awaited().as_deref() == Some(step.as_str()) {
            let approved = Approved { step: step.clone(), user: user.clone(), time: Time(self.view.now) };
            self.told.push(("Approved", format!("{user} approved step {step} of revision {revision}")));
            self.position.approvals.push(approved);
        }
    }

    /// The step that comes next, as approvals name it; none where nobody has to be asked. Who agreed before the deadline did not know
    /// that there would be no verdict, so what is asked for then has another name.
    fn awaited(&self) -> Option<String> {
        let p = &self.position;
        match p.phase {
            UpgradePhase::Compare => Some("1".to_owned()),
            UpgradePhase::Shift | UpgradePhase::ShiftNodes => {
                let step = match p.phase {
                    UpgradePhase::ShiftNodes => self.awaited_of_nodes(),
                    _ if self.waves_come() => format!("{NODES_STEP}1"),
                    _ => (p.step.unwrap_or(1) + 1).to_string(),
                };
                Some(if self.is_unmeasured() { step + UNMEASURED } else { step })
            }
            UpgradePhase::Bake => Some("promote".to_owned()),
            _ => None,
        }
    }

    /// The deadline of the step's analysis has passed without a good verdict, and a person is to say what that means.
    fn is_unmeasured(&self) -> bool {
        let settings = self.view.settings;
        let since = self.position.measured_since.as_ref();
        settings.on_insufficient == OnInsufficient::Wait
            && !self.has_passed()
            && since.is_some_and(|s| self.is_over(s, settings.deadline))
    }

    fn has_passed(&self) -> bool {
        self.view.verdict.as_ref().is_some_and(|v| v.result == VerdictResult::Pass)
    }

    /// Somebody must agree first; says whom it waits for.
    fn must_ask(&mut self) -> bool {
        let asked = match self.view.settings.approval {
            Approval::EveryStep => true,
            Approval::BeforePromote => self.awaited().as_deref() == Some("promote"),
            Approval::Never => false,
        };
        asked && self.must_agree()
    }

    /// Somebody must have agreed. Who did so without a verdict agrees with a good one, too.
    fn must_agree(&mut self) -> bool {
        let Some(step) = self.awaited() else { return false };
        let number = step.strip_suffix(UNMEASURED).unwrap_or(&step);
        let unmeasured = number.to_owned() + UNMEASURED;
        if self.position.approvals.iter().any(|a| a.step == step || a.step == unmeasured) {
            return false;
        }
        let without = |step: &str| if step == unmeasured { " without a good verdict" } else { "" };
        let what = match number {
            "promote" => "makes the new revision the active one".to_owned(),
            _ if number.starts_with(NODES_STEP) => {
                let wave = number.trim_start_matches(NODES_STEP).parse::<usize>().unwrap_or(1);
                let what = match NODE_WAVES.get(wave - 1) {
                    Some(0) | None => "one node".to_owned(),
                    Some(percent) => format!("{percent} % of the nodes"),
                };
                format!("gives {what} to the new revision{}", without(&step))
            }
            _ => {
                let index = number.parse::<usize>().unwrap_or(1) - 1;
                let percent = self.position.steps.get(index).copied().unwrap_or(100);
                let without = without(&step);
                format!("asks for {percent} % of new connections, in whole pods{without}")
            }
        };
        let ask = format!("approval of step {step}, which {what}: kubectl mesh approve {step}");
        self.asks = Some(ask.clone());
        self.wait(ask, None);
        self.position.awaits_approval = Some(step);
        true
    }

    fn share(&mut self, asked: i32) {
        let connections = self.view.gateways.connections;
        self.position.share = Some(Share { asked, connections, requests: self.view.requests });
    }
}
