//! What a user may say about upgrades: `spec.upgrade`.

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
    /// knows it, inside `windows`; one that went back is not taken by itself again.
    #[serde(default)]
    pub mode: UpgradeMode,
    /// When a person must agree.
    #[serde(default)]
    pub approval: Approval,
    /// Shares of the gateways' traffic that the new revision gets, one after the other, before it gets all.
    #[serde(default = "default_steps")]
    #[schemars(length(min = 1, max = 20))]
    pub steps: Vec<Step>,
    /// Most gateway pods above the steady number during the steps, in percent of it. A share that would need more stays below what its
    /// step asks for. From the last step on there are twice the steady number, until the old pods have been warm for long enough.
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
    /// Stop where it is: no phase, step or share follows that has not begun. A bad revision goes back all the same.
    #[serde(default)]
    pub paused: bool,
    /// When Automatic may begin. None: always. A change of other settings does not wait for them.
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
    /// Fewest requests of each revision that a step may go on with, the operator's own probes among them.
    #[serde(default = "default_min_requests")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: i32,
    /// Longest time that a step waits for a verdict, its hold included, as a Go duration: no hold may be longer. Configuration that
    /// would be lost is waited for as long, then the upgrade goes back.
    #[serde(default = "default_deadline")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]{1,5}(h|m|s)){1,3}$"))]
    pub deadline: String,
    /// What to do when there is no verdict by then.
    #[serde(default)]
    pub on_insufficient: OnInsufficient,
    /// Requests of the operator's own through the pods of both revisions, beside one for an unknown host
    /// that every Gateway with a plain HTTP listener gets. A Gateway without one has nothing but its users' requests.
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
