//! What a decision depends on, and what it says.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use meshwright_api::{Blocker, Comparison, PassedOver, UpgradeRecord, UpgradeStatus, Verdict};

use crate::upgrade::settings::Settings;

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

/// The nodes that are ready, seen together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// What is awaited until the new revision has all of them.
    pub forward: Option<String>,
    /// What is awaited until it has none of them any more.
    pub back: Option<String>,
    /// How they go over one after the other; none where they cannot, because one of the releases has no node proxies, or somebody has accepted
    /// that they may not run.
    pub waves: Option<Waves>,
}

impl Nodes {
    /// Nodes can go over one after the other, now or when they are ready again.
    pub fn have_waves(&self) -> bool {
        self.waves.as_ref().is_some_and(|waves| waves.able > 0 || waves.asleep)
    }
}

/// The nodes, seen while they go over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waves {
    /// The node to begin with, if one had to be chosen now.
    pub candidate: Option<String>,
    /// The one that was chosen can still be waited for.
    pub canary_is_there: bool,
    /// How many nodes can be waited for.
    pub able: i32,
    /// There are nodes that are not ready, and may be again.
    pub asleep: bool,
    /// How many of these the new revision serves.
    pub served: i32,
    /// What is awaited until it serves those of this wave.
    pub waiting: Option<String>,
    /// Those that are not waited for.
    pub passed_over: Vec<PassedOver>,
}

/// What a person asked for by annotations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Revision, step and user.
    pub approve: Option<(String, String, String)>,
    /// The plan whose blockers are accepted, and the user.
    pub acknowledge: Option<(String, String)>,
    /// The new revision that is to be left.
    pub rollback: Option<String>,
    /// The upgrade that went back and is to be tried again.
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
    /// Generation of the spec.
    pub generation: Option<i64>,
    /// Nobody asks for the release: it is the newest, and upgrades are automatic.
    pub by_itself: bool,
    /// What of the surroundings could not be looked at.
    pub unseen: Option<String>,
    /// When the next window opens; none where the upgrade may begin now.
    pub opens: Option<Timestamp>,
    /// A release that would be taken by itself, had it not gone back before.
    pub held_back: Option<String>,
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
    /// The nodes.
    pub nodes: Nodes,
    /// What is awaited until the revision that the spec asks for can have ports on the nodes. It counts only before that is made.
    pub ports: Option<String>,
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
