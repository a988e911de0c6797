//! The state machine of an upgrade. Pure: (what is seen, now) -> the next position and what comes with it.
//!
//! One call moves at most one phase on. The position is written before anything is done for it, so whoever comes after a crash
//! goes on from there; nothing in here remembers anything.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use meshwright_api::{
    Approval, Approved, Blocker, Comparison, OnInsufficient, Rollback, Share, Strategy, UpgradePhase,
    UpgradeRecord, UpgradeStatus, Verdict, VerdictResult,
};

use super::settings::Settings;

mod phases;
mod record;

pub use record::{HISTORY, is_same_position, plan_hash};

/// A canary that cannot even start, or that broke, is given this long to mend itself.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Cause of going back because something else is asked for: nothing is wrong with the revision.
pub const SUPERSEDED: &str = "Superseded";
/// How often to look where nothing says that something changed.
pub const LOOK: Duration = Duration::from_secs(5);

/// A revision by name and release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its name.
    pub name: String,
    /// Its release.
    pub version: String,
}

/// Something that keeps a revision from working.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// One word for it, such as `CrashLoop`.
    pub cause: String,
    /// What was seen.
    pub message: String,
    /// It does not go away by waiting, or has not for long enough.
    pub lasting: bool,
}

/// How a revision's own pods are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// It was created.
    pub exists: bool,
    /// Its control plane is available, and every replica is up to date.
    pub ready: bool,
    /// What is wrong with it.
    pub trouble: Option<Trouble>,
    /// What refers to it.
    pub in_use: Usage,
}

/// Whether anything refers to a revision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Usage {
    /// It cannot be seen, so it counts as used.
    #[default]
    Unknown,
    /// Streams or pods do.
    Used,
    /// Nothing does, but not for long enough.
    Unused,
    /// Nothing has for the grace period.
    Gone,
}

/// The Gateways, seen together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gateways {
    /// Each has what the position asks for, and all of it is ready.
    pub settled: bool,
    /// No Service sends new connections to the new revision.
    pub back: bool,
    /// Share of the new revision in percent, of ready pods behind the Services.
    pub connections: i32,
    /// What is awaited.
    pub waiting: Option<String>,
    /// Pods of the new revision that do not become ready.
    pub trouble: Option<Trouble>,
}

/// What a person asked for by annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Revision, step and user.
    pub approve: Option<(String, String, String)>,
    /// The plan whose blockers are accepted.
    pub acknowledge: Option<String>,
    /// The new revision that is to be left.
    pub rollback: Option<String>,
    /// The revision that went back and is to be tried again.
    pub retry: Option<String>,
    /// The old revision that need not stay warm.
    pub end_keep_warm: Option<String>,
}

/// Everything that a decision depends on.
#[derive(Debug, Clone)]
pub struct View<'a> {
    /// The time.
    pub now: Timestamp,
    /// How upgrades are carried out.
    pub settings: &'a Settings,
    /// The revision that the spec asks for.
    pub target: Revision,
    /// The revision that is recorded as the active one.
    pub active: Option<Revision>,
    /// The active one has been ready before.
    pub active_was_ready: bool,
    /// Where the upgrade is.
    pub position: Option<&'a UpgradeStatus>,
    /// Why an automatic upgrade cannot begin yet.
    pub closed: Option<String>,
    /// The revision that it goes away from.
    pub from: Health,
    /// The revision that it goes to.
    pub to: Health,
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
    /// How the configuration differs; an error while it cannot be seen.
    pub comparison: Option<Result<Comparison, String>>,
    /// The Gateways.
    pub gateways: Gateways,
    /// Of the step that is being measured.
    pub verdict: Option<Verdict>,
    /// One word for what a bad verdict found.
    pub verdict_cause: String,
    /// Share of the measured requests that the new revision had, in percent.
    pub requests: Option<i32>,
    /// What a person asked for.
    pub wishes: Wishes,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Where the upgrade is from now on.
    pub position: Option<UpgradeStatus>,
    /// The revision that is recorded as the active one from now on.
    pub active: Revision,
    /// The new revision is to be created.
    pub create: bool,
    /// A revision that nothing uses and nobody will go back to: it is to be removed.
    pub retire: Option<String>,
    /// For the history.
    pub ended: Option<UpgradeRecord>,
    /// What a person would ask about: reason and sentence.
    pub told: Vec<(&'static str, String)>,
    /// Something waits for a person.
    pub asks: Option<String>,
    /// When to look again.
    pub recheck: Option<Duration>,
}

/// Decides.
pub fn next(view: &View<'_>) -> Decision {
    let Some(active) = view.active.clone() else {
        let told =
            format!("revision {} is the first of this mesh, installed without analysis", view.target.name);
        let told = vec![("RevisionActivated", told)];
        return Decision { create: true, told, ..Decision::settled(view.target.clone()) };
    };
    match view.position {
        // It may have been deleted by force.
        None if active.name == view.target.name => {
            Decision { create: !view.to.exists, ..Decision::settled(active) }
        }
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
        phase: UpgradePhase::Planned,
        step: None,
        steps,
        started: now.clone(),
        since: now,
        measured_since: None,
        blocked_since: None,
        waiting: None,
        deadline: None,
        share: None,
        verdict: None,
        plan: plan_hash(&active.name, &view.target.name, &[]),
        blockers: Vec::new(),
        comparison: None,
        approvals: Vec::new(),
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
        (position.waiting, position.deadline) = (None, None);
        Self { view, active, position, told: Vec::new(), asks: None, recheck: Some(LOOK) }
    }

    fn next(mut self) -> Decision {
        self.note_approval();
        let before = self.position.phase;
        if self.position.without_baseline
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
        let create = position.phase == UpgradePhase::InstallCanary && !view.to.exists;
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

    // === What makes an upgrade go back, from every phase up to Drain

    fn must_go_back(&self) -> Option<(String, String)> {
        let p = &self.position;
        let why = |cause: &str, message: String| Some((cause.to_owned(), message));
        // Without a baseline there is nothing to go back to.
        if p.without_baseline {
            return None;
        }
        if self.view.wishes.rollback.as_deref() == Some(p.to.as_str()) {
            return why("Requested", format!("annotation {} asks for it", meshwright_api::labels::ROLLBACK));
        }
        // From Promote on another target waits.
        if p.phase < UpgradePhase::Promote && self.view.target.name != p.to {
            let message = format!("the spec asks for revision {} now", self.view.target.name);
            return why(SUPERSEDED, message);
        }
        if p.phase <= UpgradePhase::Preflight {
            return None;
        }
        // Once the old pods end their connections, going back is a person's decision.
        if p.phase == UpgradePhase::Drain && p.measured_since.is_some() {
            return None;
        }
        let of_gateways = matches!(p.phase, UpgradePhase::Shift | UpgradePhase::Bake);
        let of_gateways = self.view.gateways.trouble.as_ref().filter(|_| of_gateways);
        let mut troubles = [self.view.to.trouble.as_ref(), of_gateways].into_iter().flatten();
        if let Some(trouble) = troubles.find(|t| t.lasting) {
            return why(&trouble.cause, trouble.message.clone());
        }
        match &self.view.verdict {
            Some(v) if v.result == VerdictResult::Fail => why(&self.view.verdict_cause, v.reason.clone()),
            _ => None,
        }
    }

    fn go_back(&mut self, (cause, message): (String, String)) {
        let p = &mut self.position;
        if let Some(verdict) = &self.view.verdict {
            p.verdict = Some(verdict.clone());
        }
        let note = format!("revision {} goes back to {} in phase {:?}: {message}", p.to, p.from, p.phase);
        let phase = p.phase;
        let decided = Time(self.view.now);
        // Before the first step there was no traffic, and there may be no new revision.
        let traffic_back = (phase < UpgradePhase::Shift).then(|| decided.clone());
        p.rollback = Some(Rollback { phase, cause, message, decided, traffic_back });
        self.told.push(("RollingBack", note));
        self.enter(UpgradePhase::RollingBack);
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
        if phase != UpgradePhase::Shift {
            p.step = None;
        }
        (p.waiting, p.deadline) = (None, None);
        self.recheck = Some(Duration::ZERO);
    }

    fn wait(&mut self, what: impl Into<String>, until: Option<Timestamp>) {
        self.position.waiting = Some(what.into());
        self.position.deadline = until.map(Time);
        if let Some(until) = until {
            let left = Duration::try_from(until.duration_since(self.view.now)).unwrap_or_default();
            self.recheck = Some(left.min(LOOK));
        }
    }

    fn after(&self, since: &Time, time: Duration) -> Timestamp {
        let time = k8s_openapi::jiff::SignedDuration::try_from(time).unwrap_or_default();
        since.0.checked_add(time).unwrap_or(Timestamp::MAX)
    }

    fn is_over(&self, since: &Time, time: Duration) -> bool {
        self.view.now >= self.after(since, time)
    }

    /// Paused: says so, and nothing begins.
    fn paused(&mut self) -> bool {
        if self.view.settings.paused {
            self.wait("paused by spec.upgrade.paused", None);
        }
        self.view.settings.paused
    }

    fn is_acknowledged(&self) -> bool {
        self.view.wishes.acknowledge.as_deref() == Some(self.position.plan.as_str())
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

    /// The step that comes next, as approvals name it; none where nobody has to be asked.
    fn awaited(&self) -> Option<String> {
        let p = &self.position;
        match p.phase {
            UpgradePhase::Compare => Some("1".to_owned()),
            UpgradePhase::Shift => Some((p.step.unwrap_or(1) + 1).to_string()),
            UpgradePhase::Bake => Some("promote".to_owned()),
            _ => None,
        }
    }

    /// Somebody must agree first; says whom it waits for.
    fn must_ask(&mut self) -> bool {
        let asked = match self.view.settings.approval {
            Approval::EveryStep => true,
            Approval::BeforePromote => self.awaited().as_deref() == Some("promote"),
            Approval::Never => false,
        };
        asked && self.must_agree(None)
    }

    /// Somebody must have agreed, after this moment: who agreed before did not know what is known now.
    fn must_agree(&mut self, after: Option<Timestamp>) -> bool {
        let Some(step) = self.awaited() else { return false };
        let counts = |a: &Approved| a.step == step && after.is_none_or(|t| a.time.0 >= t);
        if self.position.approvals.iter().any(counts) {
            return false;
        }
        let what = match step.as_str() {
            "promote" => "makes the new revision the active one".to_owned(),
            _ => {
                let index = step.parse::<usize>().unwrap_or(1) - 1;
                let percent = self.position.steps.get(index).copied().unwrap_or(100);
                format!("gives it {percent} % of the traffic")
            }
        };
        let ask = format!("approval of step {step}, which {what}: kubectl mesh approve");
        self.asks = Some(ask.clone());
        self.wait(ask, None);
        true
    }

    fn share(&mut self, asked: i32) {
        let connections = self.view.gateways.connections;
        self.position.share = Some(Share { asked, connections, requests: self.view.requests });
    }

    fn insufficient(&mut self) -> Insufficient {
        match self.view.settings.on_insufficient {
            OnInsufficient::Continue => Insufficient::GoOn,
            OnInsufficient::Wait => Insufficient::Ask,
            OnInsufficient::RollBack => Insufficient::GoBack,
        }
    }
}

/// What comes of a step without a verdict.
enum Insufficient {
    GoOn,
    Ask,
    GoBack,
}
