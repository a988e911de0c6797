//! An admission policy on the operator itself: whatever it is tricked into, the bindings that it writes name the fixed
//! roles and the service accounts of control planes.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec,
    Validation, Variable,
};

use super::{OPERATOR, cluster_meta};
use crate::{
    args::InstallArgs,
    gateway::secret_access,
    mesh_control_plane::build::{CLUSTER_ROLE, ISSUING_CA_ROLE, LEASE_ROLE},
};

/// Name of the policy and of its binding.
pub const POLICY: &str = "meshwright-operator-bindings";
/// Name of the policy on approvals and of its binding.
pub const APPROVALS: &str = "meshwright-approvals";

pub(super) fn policy(args: &InstallArgs) -> ValidatingAdmissionPolicy {
    let user = format!("system:serviceaccount:{}:{OPERATOR}", args.namespace);
    ValidatingAdmissionPolicy {
        metadata: cluster_meta(POLICY),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: Some(vec!["rbac.authorization.k8s.io".to_owned()]),
                    api_versions: Some(vec!["v1".to_owned()]),
                    operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
                    resources: Some(vec!["rolebindings".to_owned(), "clusterrolebindings".to_owned()]),
                    ..NamedRuleWithOperations::default()
                }]),
                ..MatchResources::default()
            }),
            match_conditions: Some(vec![MatchCondition {
                name: "by-the-operator".to_owned(),
                expression: format!("request.userInfo.username == '{user}'"),
            }]),
            variables: Some(variables()),
            validations: Some(validations(args)),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        status: None,
    }
}

fn variable(name: &str, expression: &str) -> Variable {
    Variable { name: name.to_owned(), expression: expression.to_owned() }
}

/// An approval names the user who gives it, and nobody else can write that name.
pub(super) fn approvals() -> ValidatingAdmissionPolicy {
    let annotation = meshwright_api::labels::APPROVE;
    let of = |object: &str, operation: &str| {
        format!(
            "{operation}has({object}.metadata.annotations) && '{annotation}' in {object}.metadata.annotations \
             ? {object}.metadata.annotations['{annotation}'] : ''"
        )
    };
    ValidatingAdmissionPolicy {
        metadata: cluster_meta(APPROVALS),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".to_owned()),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: Some(vec![meshwright_api::GROUP.to_owned()]),
                    api_versions: Some(vec!["v1alpha1".to_owned()]),
                    operations: Some(vec!["CREATE".to_owned(), "UPDATE".to_owned()]),
                    resources: Some(vec!["meshcontrolplanes".to_owned()]),
                    ..NamedRuleWithOperations::default()
                }]),
                ..MatchResources::default()
            }),
            variables: Some(vec![
                variable("now", &of("object", "")),
                variable("before", &of("oldObject", "request.operation == 'UPDATE' && ")),
            ]),
            validations: Some(vec![Validation {
                expression:
                    "variables.now == '' || variables.now == variables.before || (variables.now.split('/', 3).size() == 3 \
                             && variables.now.split('/', 3)[2] == request.userInfo.username)"
                        .to_owned(),
                message: Some(format!(
                    "{annotation} must be <revision>/<step>/<user>, and the user is whoever sets it: kubectl mesh approve"
                )),
                reason: Some("Forbidden".to_owned()),
                ..Validation::default()
            }]),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        status: None,
    }
}

fn variables() -> Vec<Variable> {
    vec![
        variable("labels", "has(object.metadata.labels) ? object.metadata.labels : {}"),
        variable("subjects", "has(object.subjects) ? object.subjects : []"),
        variable(
            "mesh",
            "'meshwright.io/mesh-name' in variables.labels ? variables.labels['meshwright.io/mesh-name'] : '-'",
        ),
        variable(
            "meshNamespace",
            "'meshwright.io/mesh-namespace' in variables.labels ? variables.labels['meshwright.io/mesh-namespace'] : '-'",
        ),
    ]
}

fn validations(args: &InstallArgs) -> Vec<Validation> {
    let refuse = |expression: String, message: &str| Validation {
        expression,
        message: Some(message.to_owned()),
        reason: Some("Forbidden".to_owned()),
        ..Validation::default()
    };
    let secrets = secret_access::ROLE;
    vec![
        refuse(
            format!(
                "object.roleRef.kind == 'ClusterRole' && (request.kind.kind == 'ClusterRoleBinding' \
                 ? object.roleRef.name == '{CLUSTER_ROLE}' \
                 : object.roleRef.name in ['{LEASE_ROLE}', '{secrets}', '{ISSUING_CA_ROLE}'])"
            ),
            "the operator binds the fixed roles of Meshwright only",
        ),
        refuse(
            format!(
                "object.roleRef.name == '{ISSUING_CA_ROLE}' ? variables.subjects.all(s, s.kind == 'ServiceAccount' \
                 && s.name == '{OPERATOR}' && s.namespace == '{}') \
                 : variables.subjects.all(s, s.kind == 'ServiceAccount' && s.namespace == variables.meshNamespace \
                 && s.name.startsWith(variables.mesh + '-') && s.name.matches('-[0-9a-f]{{8}}$'))",
                args.namespace
            ),
            "the operator gives rights to the control planes of a mesh, and to itself only those to deliver issuing certificates",
        ),
        refuse(
            format!(
                "object.roleRef.name in ['{LEASE_ROLE}', '{ISSUING_CA_ROLE}'] \
                 ? object.metadata.namespace == variables.meshNamespace : true"
            ),
            "this role is bound in the mesh's own namespace only",
        ),
        refuse(
            format!(
                "object.roleRef.name == '{secrets}' ? object.metadata.namespace != '{}' : true",
                args.namespace
            ),
            "the root keys are in the operator's namespace; no control plane reads Secrets there",
        ),
    ]
}

pub(super) fn binding(policy: &str) -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: cluster_meta(policy),
        spec: ValidatingAdmissionPolicyBindingSpec {
            policy_name: policy.to_owned(),
            validation_actions: vec!["Deny".to_owned()],
            ..ValidatingAdmissionPolicyBindingSpec::default()
        },
    }
}
