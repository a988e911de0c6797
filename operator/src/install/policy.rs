//! Admission policies. One on the operator itself: whatever it is tricked into, the bindings that it writes name the fixed roles and the
//! service accounts of control planes. One on people: whoever agrees to a step, or accepts what stands in the way, does it in their own
//! name.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec,
    Validation, Variable,
};
use meshwright_api::labels;

use super::{OPERATOR, cluster_meta};
use crate::{
    args::InstallArgs,
    gateway::secret_access,
    mesh_control_plane::build::{CLUSTER_ROLE, ISSUING_CA_ROLE, LEASE_ROLE, NODES_ROLE},
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

/// Annotations that end with the user who sets them, each with the number of its parts and how to set it.
const SIGNED: [(&str, usize, &str, &str); 2] = [
    (labels::APPROVE, 3, "<revision>/<step>/<user>", "kubectl mesh approve"),
    (labels::ACKNOWLEDGE, 2, "<plan>/<user>", "kubectl mesh acknowledge"),
];

/// An approval, and going on in spite of blockers, name the user, and nobody else can write that name.
pub(super) fn approvals() -> ValidatingAdmissionPolicy {
    let of = |annotation: &str, object: &str, operation: &str| {
        format!(
            "{operation}has({object}.metadata.annotations) && '{annotation}' in {object}.metadata.annotations \
             ? {object}.metadata.annotations['{annotation}'] : ''"
        )
    };
    let variables = SIGNED.iter().enumerate().flat_map(|(n, (annotation, ..))| {
        [
            variable(&format!("now{n}"), &of(annotation, "object", "")),
            variable(
                &format!("before{n}"),
                &of(annotation, "oldObject", "request.operation == 'UPDATE' && "),
            ),
        ]
    });
    let validations = SIGNED.iter().enumerate().map(|(n, (annotation, parts, form, how))| {
        let last = parts - 1;
        Validation {
            expression: format!(
                "variables.now{n} == '' || variables.now{n} == variables.before{n} \
                 || (variables.now{n}.split('/', {parts}).size() == {parts} \
                 && variables.now{n}.split('/', {parts})[{last}] == request.userInfo.username)"
            ),
            message: Some(format!("{annotation} must be {form}, and the user is whoever sets it: {how}")),
            reason: Some("Forbidden".to_owned()),
            ..Validation::default()
        }
    });
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
            variables: Some(variables.collect()),
            validations: Some(validations.collect()),
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
                 : object.roleRef.name in ['{LEASE_ROLE}', '{NODES_ROLE}', '{secrets}', '{ISSUING_CA_ROLE}'])"
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
                "object.roleRef.name in ['{LEASE_ROLE}', '{NODES_ROLE}', '{ISSUING_CA_ROLE}'] \
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
