//! How a mesh goes from one revision to the next: what a user may say about it, and what is seen of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a new revision replaces the one that serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.steps) || self.steps.map(s, s.percent).all(p, self.steps.map(s, s.percent).filter(q, q == p).size() == 1) && self.steps.map(s, s.percent).isSorted()").message("the percent of each step must be more than that of the step before")
)]
pub struct Upgrade {
    /// Canary: beside the old revision, step by step, measured. InPlace: the same in one step of all traffic, without analysis.
    #[serde(default)]
    pub strategy: Strategy,
    /// Manual: `spec.version` says when. Automatic: while `spec.version` is unset, a newer release is taken as soon as the operator
    /// knows it, inside `windows`.
    #[serde(default)]
    pub mode: UpgradeMode,
    /// When a person must agree.
    #[serde(default)]
    pub approval: Approval,
    /// Shares of the gateways' traffic that the new revision gets, one after the other, before it gets all.
    #[serde(default = "default_steps")]
    #[schemars(length(max = 20))]
    pub steps: Vec<Step>,
    /// Most gateway pods above the steady number, in percent of it. A share that would need more stays below what its step asks for.
    #[serde(default = "default_surge")]
    #[schemars(range(min = 1, max = 900))]
    pub surge_percent: i32,
    /// How long all traffic goes to the new revision before it is the active one, as a Go duration.
    #[serde(default = "default_bake")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub bake: String,
    /// How long the old gateway pods stay ready to go back to, as a Go duration.
    #[serde(default = "default_keep_warm")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub keep_warm: String,
    /// Stop where it is; what serves goes on to serve. A bad revision goes back all the same.
    #[serde(default)]
    pub paused: bool,
    /// When Automatic may begin. None: always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub windows: Vec<Window>,
    /// How the new revision is measured against the old one.
    #[serde(default)]
    pub analysis: Analysis,
}

impl Default for Upgrade {
    fn default() -> Self {
        Self {
            strategy: Strategy::default(),
            mode: UpgradeMode::default(),
            approval: Approval::default(),
            steps: default_steps(),
            surge_percent: default_surge(),
            bake: default_bake(),
            keep_warm: default_keep_warm(),
            paused: false,
            windows: Vec::new(),
            analysis: Analysis::default(),
        }
    }
}

fn default_steps() -> Vec<Step> {
    [10, 25, 50].map(|percent| Step { percent, hold: default_hold() }).into()
}

fn default_hold() -> String {
    "2m".to_owned()
}

fn default_surge() -> i32 {
    100
}

fn default_bake() -> String {
    "2m".to_owned()
}

fn default_keep_warm() -> String {
    "10m".to_owned()
}

/// How a new revision replaces the old one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Strategy {
    #[default]
    Canary,
    InPlace,
}

/// Who decides that a newer release is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpgradeMode {
    #[default]
    Manual,
    Automatic,
}

/// When an upgrade waits for a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Approval {
    #[default]
    Never,
    BeforePromote,
    EveryStep,
}

/// A share of the traffic, and for how long at least.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Share of the gateways' connections, in percent.
    #[schemars(range(min = 1, max = 99))]
    pub percent: i32,
    /// Shortest time at this share, as a Go duration.
    #[serde(default = "default_hold")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub hold: String,
}

/// A time in which an automatic upgrade may begin; one that has begun goes on to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// When it opens, as in cron: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 128))]
    pub schedule: String,
    /// How long it stays open, as a Go duration.
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub duration: String,
    /// Time zone of `schedule`, by its IANA name.
    #[serde(default = "default_time_zone")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

fn default_time_zone() -> String {
    "UTC".to_owned()
}

/// How the new revision is measured against the old one: side by side, in the same window, from the proxies' own statistics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// So much more of its requests may fail than of the old revision's, in percent of requests.
    #[serde(default = "default_error_increase")]
    #[schemars(length(max = 8), regex(pattern = r"^[0-9]{1,2}(\.[0-9]{1,3})?%$"))]
    pub max_error_increase: String,
    /// A rise of its latency by so much, in percent of the old revision's, is found. One by half of it fails the step already when it is
    /// certain; a smaller one never does.
    #[serde(default = "default_latency_increase")]
    #[schemars(length(max = 8), regex(pattern = r"^[0-9]{1,4}(\.[0-9]{1,3})?%$"))]
    pub max_latency_increase: String,
    /// Fewest requests of the new revision that a verdict is given on.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: i32,
    /// Longest time that a step waits for a verdict, as a Go duration.
    #[serde(default = "default_deadline")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub deadline: String,
    /// What to do when there is no verdict by then.
    #[serde(default)]
    pub on_insufficient: OnInsufficient,
    /// Requests of the operator's own through the pods of both revisions, beside one for an unknown host that every gateway gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub probes: Vec<Probe>,
}

impl Default for Analysis {
    fn default() -> Self {
        Self {
            max_error_increase: default_error_increase(),
            max_latency_increase: default_latency_increase(),
            min_requests: default_min_requests(),
            deadline: default_deadline(),
            on_insufficient: OnInsufficient::default(),
            probes: Vec::new(),
        }
    }
}

fn default_error_increase() -> String {
    "0.5%".to_owned()
}

fn default_latency_increase() -> String {
    "20%".to_owned()
}

fn default_min_requests() -> i32 {
    300
}

fn default_deadline() -> String {
    "15m".to_owned()
}

/// What happens to a step without a verdict at its deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInsufficient {
    /// Wait for a person's approval or rollback.
    #[default]
    Wait,
    /// Go on as after a good verdict.
    Continue,
    /// Go back.
    RollBack,
}

/// A request that is sent to every pod of a Gateway while it is measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Namespace of the Gateway.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub gateway: String,
    /// Port of a plain HTTP listener.
    #[serde(default = "default_probe_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Host that is asked for.
    #[schemars(length(min = 1, max = 253))]
    pub host: String,
    /// Path that is asked for, by GET.
    #[serde(default = "default_probe_path")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^/[!-~]*$"))]
    pub path: String,
}

fn default_probe_port() -> i32 {
    80
}

fn default_probe_path() -> String {
    "/".to_owned()
}

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
    /// What is going on.
    pub phase: UpgradePhase,
    /// In phase Shift: which step, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// Shares of the steps, in percent; fixed when it began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<i32>,
    /// When the upgrade began.
    pub started: Time,
    /// Since when the phase, or its step, goes on.
    pub since: Time,
    /// Since when the gateways have had this step's share; the analysis counts from a little later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_since: Option<Time>,
    /// In phase Compare: since when a difference has stood in the way without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_since: Option<Time>,
    /// What is awaited, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// When the waiting ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Share of the new revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    /// What the analysis says of this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Hash of revisions and blockers: what `meshwright.io/acknowledge` must say to go on in spite of them.
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
    /// Why it goes back, or went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<Rollback>,
    /// Phases that are over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<DonePhase>,
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

/// What the analysis says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Pass, Fail or Insufficient.
    pub result: VerdictResult,
    /// Why, with the figures.
    pub reason: String,
    /// Requests of the new revision that were measured.
    pub canary_requests: i64,
    /// Requests of the old revision in the same time.
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
    /// In phase Shift: which step, from 1.
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
