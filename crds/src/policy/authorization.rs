//! AuthorizationPolicy: who may call pods. After GEP-3779 of the Gateway API, with DENY and attributes of HTTP.

// Columns of one type are no repetition.
#![allow(clippy::duplicated_attributes)]

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PolicyStatus, TargetRef};

/// Who may call pods of the policy's namespace. A call that a DENY policy matches is refused. Pods that some ALLOW policy selects may be called
/// only as an ALLOW policy says; others by everybody. Callers are known by mutual TLS alone, so what a policy covers takes no plaintext.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "meshwright.io",
    version = "v1alpha1",
    kind = "AuthorizationPolicy",
    plural = "authorizationpolicies",
    shortname = "authz",
    category = "mesh",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "AuthorizationPolicy says who may call pods of its namespace. An empty one allows nothing, to any pod of the namespace.",
    printcolumn(name = "ACTION", type_ = "string", json_path = ".spec.action"),
    printcolumn(name = "MODE", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "PODS", type_ = "integer", json_path = ".status.pods"),
    printcolumn(
        name = "ACCEPTED",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Accepted')].status"
    ),
    printcolumn(name = "AGE", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.action != 'DENY' || (has(self.rules) && size(self.rules) > 0)").message("a DENY policy needs rules: without any it would refuse nothing"))]
pub struct AuthorizationPolicySpec {
    /// Pods that it is for; a pod that one of them selects. Unset: all pods of the namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// What happens to calls that a rule matches.
    #[serde(default)]
    pub action: AuthorizationAction,
    /// Enforce, or DryRun: calls that would be refused are counted, and not refused.
    #[serde(default)]
    pub mode: AuthorizationMode,
    /// A call matches the policy if it matches one of these. An ALLOW policy without rules allows nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub rules: Vec<AuthorizationRule>,
}

/// What a policy does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizationAction {
    #[default]
    #[serde(rename = "ALLOW")]
    Allow,
    #[serde(rename = "DENY")]
    Deny,
}

/// Whether a policy is enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthorizationMode {
    #[default]
    Enforce,
    DryRun,
}

/// Calls. All that is said of them has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.http) || size(self.http) == 0 || (has(self.networkAttributes) && has(self.networkAttributes.ports) && size(self.networkAttributes.ports) > 0)").message("a rule with http needs networkAttributes.ports: those ports take HTTP only"))]
pub struct AuthorizationRule {
    /// Who calls: one of these. Unset: everybody of the mesh. Empty: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub sources: Option<Vec<Source>>,
    /// Where to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_attributes: Option<NetworkAttributes>,
    /// Requests: one of these. With any of them, the rule's ports take nothing but HTTP/1 and HTTP/2 (and with it gRPC).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub http: Vec<HttpAttributes>,
}

/// Who calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.type == 'SPIFFE' ? has(self.spiffe) && !has(self.serviceAccount) : has(self.serviceAccount) && !has(self.spiffe)").message("a source has the field that its type names, and not the other"))]
pub struct Source {
    /// Which of the fields below says it.
    #[serde(rename = "type")]
    pub type_: SourceType,
    /// A SPIFFE id, word for word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), regex(pattern = r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$"))]
    pub spiffe: Option<String>,
    /// A service account of this mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountSource>,
}

/// Kinds of sources.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceType {
    #[default]
    ServiceAccount,
    #[serde(rename = "SPIFFE")]
    Spiffe,
}

/// A service account, or all of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountSource {
    /// Its namespace. Unset: the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: Option<String>,
    /// Its name, or `*` for all of the namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)$"))]
    pub name: String,
}

/// Attributes of connections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkAttributes {
    /// Ports of the pod, not of a Service: one of these. Empty: any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<i32>,
}

/// Attributes of requests. All that are set have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.methods) || has(self.paths) || has(self.hosts) || has(self.headers)").message("http attributes that say nothing: name methods, paths, hosts or headers"))]
pub struct HttpAttributes {
    /// Methods: one of these. gRPC's is POST.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16), inner(length(max = 32), regex(pattern = r"^[A-Z][A-Z0-9-]*$")))]
    pub methods: Vec<String>,
    /// Paths: one of these. gRPC's is `/<service>/<method>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub paths: Vec<PathMatch>,
    /// Hosts: one of these, in lower case and without port; `*.example.com` for every name below.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(max = 253),
            regex(pattern = r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
        )
    )]
    pub hosts: Vec<String>,
    /// Headers: all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8))]
    pub headers: Vec<HeaderMatch>,
}

/// A path as the application gets it: decoded where that changes nothing, without dot segments and doubled slashes, without its query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.value.contains('//') && !self.value.contains('/./') && !self.value.contains('/../') && !self.value.endsWith('/.') && !self.value.endsWith('/..')").message("a path must be as applications get it: without doubled slashes and dot segments"))]
pub struct PathMatch {
    /// Exact, or PathPrefix: whole segments, so that `/a` is `/a` and `/a/b`, and not `/ab`.
    #[serde(rename = "type", default)]
    pub type_: PathMatchType,
    /// The path.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^/[A-Za-z0-9._~!$&'()*+,=:@/-]*$"))]
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    #[default]
    PathPrefix,
    Exact,
}

/// A header of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.name.matches('^[^_-]*([_-][^_-]*){0,4}$')").message("a header's name with more than four of - and _ can be spelled in too many ways: choose another header"))]
pub struct HeaderMatch {
    /// Its name, in any case.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_|~-]+$"))]
    pub name: String,
    /// Its value. A header that is there more than once: ALLOW wants this and nothing else, DENY takes one of them. Unset: it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!-+\--~]([ -+\--~]*[!-+\--~])?$"))]
    pub value: Option<String>,
}
