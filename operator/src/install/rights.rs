//! Rights: no wildcard, no escalate, no impersonation. The operator may bind five fixed roles and grant nothing else.

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef,
};

use super::{OPERATOR, cluster_meta, meta};
use crate::{
    args::InstallArgs,
    gateway::secret_access,
    mesh_control_plane::build::{CLUSTER_ROLE, ISSUING_CA_ROLE, LEASE_ROLE, NODES_ROLE, role_ref, subject},
};

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];
const KEEP: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];
/// Kinds of the Gateway API that the control plane reads and reports on.
const REPORTED: [&str; 5] = ["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tcproutes"];
/// Policies between workloads, which the control plane reads and reports on.
const POLICIES: [&str; 2] = ["authorizationpolicies", "meshtlspolicies"];
/// Its annotation says which release of the Gateway API is installed.
const VERSION_BEARER: &str = "gatewayclasses.gateway.networking.k8s.io";

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(own(resources)),
        verbs: own(verbs),
        ..PolicyRule::default()
    }
}

fn named(names: &[String], rule: PolicyRule) -> PolicyRule {
    PolicyRule { resource_names: Some(names.to_vec()), ..rule }
}

fn role(name: &str, rules: Vec<PolicyRule>) -> ClusterRole {
    ClusterRole {
        metadata: cluster_meta(name),
        rules: Some(rules),
        aggregation_rule: None::<AggregationRule>,
    }
}

/// Roles that the operator binds, and those that people's roles take in.
pub fn fixed_roles() -> Vec<ClusterRole> {
    let statuses: Vec<String> = REPORTED.iter().map(|kind| format!("{kind}/status")).collect();
    let statuses: Vec<&str> = statuses.iter().map(String::as_str).collect();
    let policy_statuses = POLICIES.map(|kind| format!("{kind}/status"));
    let policy_statuses = policy_statuses.each_ref().map(String::as_str);
    let control_plane = vec![
        rule("", &["services", "namespaces", "pods"], &READ),
        rule("discovery.k8s.io", &["endpointslices"], &READ),
        rule("apps", &["deployments"], &READ),
        rule(GATEWAY_API, &REPORTED, &READ),
        rule(GATEWAY_API, &["referencegrants"], &READ),
        rule(GATEWAY_API, &statuses, &["patch", "update"]),
        rule(meshwright_api::GROUP, &["gatewayparameters"], &READ),
        rule(meshwright_api::GROUP, &POLICIES, &READ),
        rule(meshwright_api::GROUP, &policy_statuses, &["patch", "update"]),
        named(
            &[VERSION_BEARER.to_owned()],
            rule("apiextensions.k8s.io", &["customresourcedefinitions"], &["get"]),
        ),
        rule("authentication.k8s.io", &["tokenreviews"], &["create"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ];
    let lease = rule("coordination.k8s.io", &["leases"], &["get", "list", "watch", "update", "patch"]);
    vec![
        role(CLUSTER_ROLE, control_plane),
        role(LEASE_ROLE, vec![lease]),
        role(
            NODES_ROLE,
            vec![
                rule(meshwright_api::GROUP, &["meshnodes"], &READ),
                rule(meshwright_api::GROUP, &["meshnodes/status"], &["patch", "update"]),
            ],
        ),
        role(secret_access::ROLE, vec![rule("", &["secrets"], &["get", "watch"])]),
        // Not get, not list: who delivers a key need not read others.
        role(ISSUING_CA_ROLE, vec![rule("", &["secrets"], &["create", "delete"])]),
        aggregated(
            "meshwright-view",
            &["view", "edit", "admin"],
            vec![rule(
                meshwright_api::GROUP,
                &[&["meshcontrolplanes", "meshrevisions", "meshnodes", "gatewayparameters"], &POLICIES[..]]
                    .concat(),
                &READ,
            )],
        ),
        // For whoever steers upgrades and nothing else; bound by whom the cluster belongs to, never by aggregation.
        role(
            "meshwright-operate",
            vec![
                rule(meshwright_api::GROUP, &["meshcontrolplanes"], &["get", "list", "watch", "patch"]),
                rule(meshwright_api::GROUP, &["meshrevisions", "meshnodes"], &READ),
            ],
        ),
        aggregated(
            "meshwright-edit",
            &["edit", "admin"],
            vec![rule(
                meshwright_api::GROUP,
                &[&["gatewayparameters"], &POLICIES[..]].concat(),
                &["create", "update", "patch", "delete"],
            )],
        ),
    ]
}

fn aggregated(name: &str, into: &[&str], rules: Vec<PolicyRule>) -> ClusterRole {
    let mut role = role(name, rules);
    let labels = role.metadata.labels.get_or_insert_default();
    for target in into {
        labels.insert(format!("rbac.authorization.k8s.io/aggregate-to-{target}"), "true".to_owned());
    }
    role
}

/// What the operator does in the whole cluster.
pub fn cluster(args: &InstallArgs) -> ClusterRole {
    let group = meshwright_api::GROUP;
    let bindable = [CLUSTER_ROLE, LEASE_ROLE, NODES_ROLE, secret_access::ROLE, ISSUING_CA_ROLE];
    let bindable = bindable.map(str::to_owned);
    let rules = vec![
        rule(group, &["meshcontrolplanes"], &["get", "list", "watch", "patch"]),
        rule(group, &["meshcontrolplanes/status", "meshrevisions/status"], &["update"]),
        rule(group, &["meshrevisions", "meshnodes"], &KEEP),
        rule(group, &["gatewayparameters"], &READ),
        rule("", &["services", "serviceaccounts", "configmaps"], &KEEP),
        rule("", &["pods"], &["list"]),
        rule("", &["nodes"], &["list", "watch"]),
        // Whether a mesh's namespace is going.
        rule("", &["namespaces"], &["get"]),
        // Its own only, to notice its own removal.
        named(std::slice::from_ref(&args.namespace), rule("", &["namespaces"], &READ)),
        rule("apps", &["deployments", "daemonsets"], &KEEP),
        rule("autoscaling", &["horizontalpodautoscalers"], &KEEP),
        rule("policy", &["poddisruptionbudgets"], &KEEP),
        rule("networking.k8s.io", &["networkpolicies"], &KEEP),
        rule("coordination.k8s.io", &["leases"], &["get", "create", "patch"]),
        rule("rbac.authorization.k8s.io", &["rolebindings", "clusterrolebindings"], &KEEP),
        named(&bindable, rule("rbac.authorization.k8s.io", &["clusterroles"], &["bind"])),
        rule(GATEWAY_API, &["gatewayclasses"], &KEEP),
        rule(GATEWAY_API, &["gateways", "referencegrants"], &READ),
        rule("apiextensions.k8s.io", &["customresourcedefinitions"], &["get", "create"]),
        named(&definitions(), rule("apiextensions.k8s.io", &["customresourcedefinitions"], &["patch"])),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
    ];
    role(OPERATOR, rules)
}

// Only the Gateway API's own can be changed; another's definition cannot.
fn definitions() -> Vec<String> {
    let others = ["backendtlspolicies", "listenersets", "referencegrants", "tlsroutes", "udproutes"];
    let standard = REPORTED.iter().chain(&others).map(|kind| format!("{kind}.{GATEWAY_API}"));
    let experimental = ["xbackends", "xbackendtrafficpolicies", "xmeshes", "xtelemetrypolicies"];
    standard.chain(experimental.iter().map(|kind| format!("{kind}.gateway.networking.x-k8s.io"))).collect()
}

/// Binds it.
pub fn cluster_binding(args: &InstallArgs) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: cluster_meta(OPERATOR),
        role_ref: role_ref(OPERATOR),
        subjects: Some(vec![subject(&args.namespace, OPERATOR)]),
    }
}

/// What the operator does in its own namespace: the root keys and its Lease.
pub fn own_namespace(args: &InstallArgs) -> Role {
    Role {
        metadata: meta(args, OPERATOR),
        rules: Some(vec![
            rule("", &["secrets"], &["get", "create", "delete"]),
            rule("coordination.k8s.io", &["leases"], &["get", "create", "update"]),
        ]),
    }
}

/// Binds it.
pub fn own_namespace_binding(args: &InstallArgs) -> RoleBinding {
    RoleBinding {
        metadata: meta(args, OPERATOR),
        role_ref: RoleRef { kind: "Role".to_owned(), ..role_ref(OPERATOR) },
        subjects: Some(vec![subject(&args.namespace, OPERATOR)]),
    }
}
