//! What is seen of an upgrade: `status.upgrade` and `status.history`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Strategy;

/// What a step's name ends with in an approval of going on without a verdict.
pub const UNMEASURED: &str = "-unmeasured";

/// Cause of a rollback because something else is asked for: nothing is wrong with the revision.
pub const SUPERSEDED: &str = "Superseded";

/// Where an upgrade is. It is also the operator's own record: written before anything is done, by compare-and-swap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeStatus {
    /// The revision that served when it began.
    pub from: String,
    /// Release of that revision.
    pub from_version: String,
    /// The new revision.
    pub to: String,
    /// Release of the new revision.
    pub to_version: String,
    /// How it is done; fixed when it began.
    pub strategy: Strategy,
    /// The old revision was never ready: it is replaced without comparing or measuring anything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_baseline: bool,
    /// Nobody asked for this release: upgrades are automatic, and it was the newest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_itself: bool,
    /// What is going on.
    pub phase: UpgradePhase,
    /// In phase Shift: which step, from 1. In phase ShiftNodes: which wave, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// Shares of the steps, in percent; fixed when it began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<i32>,
    /// When the upgrade began.
    pub started: Time,
    /// Since when the phase, or its step, goes on.
    pub since: Time,
    /// Since when the gateways have had this step's share, or the new revision has served this wave's nodes; the analysis counts from a little
    /// later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_since: Option<Time>,
    /// Since when something has stood in the way of the phase without a break: a difference, a control plane that is not ready, gateways
    /// that lack pods; a pause ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_since: Option<Time>,
    /// What is awaited, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// Step that waits for a person's approval: its number, `nodes-` and the number of a wave, `promote`, or either number with `-unmeasured` where the deadline of the one
    /// before passed without a good verdict, which nobody who agreed earlier could know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits_approval: Option<String>,
    /// When the waiting ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Share of the new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// How the nodes go over, since phase ShiftNodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeShift>,
    /// What the analysis says of this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Hash of revisions and blockers: what `meshwright.io/acknowledge` must name to go on in spite of them.
    pub plan: String,
    /// What stands in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<Blocker>,
    /// How the configuration of the proxies differs between both revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Who agreed to what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approved>,
    /// Who accepted what stood in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    /// Why it goes back, or went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Phases that are over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<DonePhase>,
}

impl UpgradeStatus {
    /// What `meshwright.io/retry` says to have this very upgrade tried again.
    pub fn attempt(&self) -> String {
        attempt(&self.to, &self.started)
    }

    /// The share of the gateways' connections that its step asks for, in percent; while the nodes go over it is that of the last step.
    pub fn percent(&self) -> i32 {
        let step = match self.phase {
            UpgradePhase::Shift => usize::try_from(self.step.unwrap_or(1) - 1).unwrap_or(0),
            _ => self.steps.len().saturating_sub(1),
        };
        self.steps.get(step).copied().unwrap_or(99)
    }
}

impl UpgradeRecord {
    /// What `meshwright.io/retry` says to have this very upgrade tried again.
    pub fn attempt(&self) -> String {
        attempt(&self.to, &self.started)
    }

    /// It says whether this release is good; one that was taken back before its end does not.
    pub fn judges(&self, version: &str) -> bool {
        self.to_version == version && self.result != UpgradeResult::Superseded
    }
}

fn attempt(to: &str, started: &Time) -> String {
    format!("{to}/{}", started.0)
}

/// Phases of an upgrade, in their order; from every one up to Drain it can go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum UpgradePhase {
    /// Waits for its window, or for the upgrade before it to end.
    Planned,
    /// Looks for what stands in the way.
    Preflight,
    /// Installs the new control plane beside the old one.
    InstallCanary,
    /// Compares what both control planes give the proxies.
    Compare,
    /// Moves a share of the gateways' traffic.
    Shift,
    /// Gives nodes to the new revision's proxies: one, then some, then all. Upgrades with steps only, between releases that have node proxies.
    ShiftNodes,
    /// All traffic goes to the new revision, the old one is measured no more.
    Bake,
    /// Makes the new revision the active one.
    Promote,
    /// The old revision stays warm for a while, then ends its connections.
    Drain,
    /// Removes the old revision.
    Retire,
    /// Takes the traffic back to the old revision.
    RollingBack,
    /// The old revision has all traffic; the new one is being removed, or is.
    RolledBack,
}

/// Share of the new revision in percent of all gateways together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// What the step asks for.
    pub asked: i32,
    /// Of the ready pods behind the gateways' Services: the share of new connections.
    pub connections: i32,
    /// Of the requests that were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<i32>,
}

/// Waves of nodes: the first is one node, the others are shares of all nodes that can be waited for, in percent.
pub const NODE_WAVES: [i32; 3] = [0, 25, 100];

/// What the name of a wave begins with in an approval; its number comes after it.
pub const NODES_STEP: &str = "nodes-";

/// How the nodes go from the old revision's proxies to the new one's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeShift {
    /// The node that goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// How many nodes the new revision is to have in this wave, fixed when it begins; unset in the last one, which gives it all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<i32>,
    /// Nodes that the new revision serves.
    #[serde(default)]
    pub served: i32,
    /// Nodes that can be waited for.
    #[serde(default)]
    pub of: i32,
    /// Nodes that nobody serves, or that do not answer: they hold nothing up. At most twenty of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
}

impl Default for NodeShift {
    // No node yet: nobody has said which goes first.
    fn default() -> Self {
        Self { canary: None, asked: Some(0), served: 0, of: 0, passed_over: Vec::new() }
    }
}

/// A node that is not waited for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassedOver {
    /// Its name.
    pub node: String,
    /// Why, in a sentence.
    pub reason: String,
}

/// What the analysis says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Pass, Fail or Insufficient.
    pub result: VerdictResult,
    /// Why, with the figures.
    pub reason: String,
    /// Requests of the new revision that were measured; in phase ShiftNodes, requests and connections from the wave's nodes since they went over.
    pub canary_requests: i64,
    /// Requests of the old revision in the same time; in phase ShiftNodes, those from the same nodes before they went over.
    pub baseline_requests: i64,
}

/// What a verdict comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerdictResult {
    Pass,
    Fail,
    Insufficient,
}

/// Something that stands in the way of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Blocker {
    /// One word for it, such as `ConfigurationLost`.
    pub reason: String,
    /// What is in the way.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// How the configuration of all proxies differs, counted over all Gateways.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// Parts that are the same in both.
    pub same: i32,
    /// Parts that both have, with other content.
    pub changed: i32,
    /// Parts that only the new revision has.
    pub gained: i32,
    /// Parts that only the old revision has.
    pub lost: i32,
    /// Some of those that differ, the lost ones first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
}

/// A person's agreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approved {
    /// To what: the number of a step, or `promote`.
    pub step: String,
    /// Who, as the API server knew them.
    pub user: String,
    /// When it was seen.
    pub time: Time,
}

/// A person's going on in spite of blockers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// Hash of revisions and blockers.
    pub plan: String,
    /// Reasons of the blockers, such as `ConfigurationLost`.
    pub reasons: Vec<String>,
    /// Who, as the API server knew them.
    pub user: String,
    /// When it was seen.
    pub time: Time,
}

/// Why an upgrade goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollback {
    /// In which phase it was decided.
    pub phase: UpgradePhase,
    /// One word for the cause, such as `AnalysisFailed`.
    pub cause: String,
    /// What was found.
    pub message: String,
    /// When it was decided.
    pub decided: Time,
    /// Generation of the spec at that moment: what went back is left alone until it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// When no new connection went to the new revision any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic_back: Option<Time>,
}

/// A phase, or a step of one, that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DonePhase {
    /// Which.
    pub phase: UpgradePhase,
    /// In phase Shift: which step, from 1. In phase ShiftNodes: which wave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// How long it took, in seconds.
    pub seconds: i64,
    /// What the analysis said at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// An upgrade that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpgradeRecord {
    /// The revision that served when it began.
    pub from: String,
    /// Release of that revision.
    pub from_version: String,
    /// The new revision.
    pub to: String,
    /// Release of the new revision.
    pub to_version: String,
    /// How it was done.
    pub strategy: Strategy,
    /// How it ended.
    pub result: UpgradeResult,
    /// Why, in a sentence.
    pub reason: String,
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Time,
    /// Its phases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub phases: Vec<DonePhase>,
    /// Who agreed to what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approved>,
    /// Who accepted what stood in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
}

/// How an upgrade ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpgradeResult {
    /// The new revision serves.
    Succeeded,
    /// The old revision serves.
    RolledBack,
    /// The spec changed while it was under way.
    Superseded,
}
