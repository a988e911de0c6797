//! What node proxies tell of single requests.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the node proxies tell of single requests, besides their metrics, which are always there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    /// Traces of HTTP requests between pods. Unset: nobody traces, and requests get no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,
    /// Lines on the standard output of the node proxies' container `envoy`, in JSON. None: no lines. All: one for each request and for each
    /// connection that ended. They have neither headers nor what follows the question mark of a path.
    #[serde(default)]
    pub access_log: AccessLog,
}

impl Telemetry {
    /// Whether nothing is told.
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// Traces of HTTP requests, with the headers of W3C Trace Context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tracing {
    /// Host and port of a collector that takes OTLP over gRPC without TLS, such as `collector.observability.svc:4317`. The proxies reach it from
    /// the nodes' own network, not from a pod's.
    #[schemars(
        length(min = 3, max = 259),
        regex(pattern = r"^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?:[0-9]{1,5}$")
    )]
    #[x_kube(validation = Rule::new("int(self.split(':')[1]) >= 1 && int(self.split(':')[1]) <= 65535").message("the port of endpoint must be between 1 and 65535"))]
    pub endpoint: String,
    /// How many requests begin a trace, in percent. One that a caller has begun goes on, or not, as the caller says.
    #[serde(default = "default_sampling")]
    #[schemars(length(max = 8), regex(pattern = r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$"))]
    pub sampling: String,
}

fn default_sampling() -> String {
    "1%".to_owned()
}

/// Which requests and connections give a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AccessLog {
    #[default]
    None,
    All,
}
