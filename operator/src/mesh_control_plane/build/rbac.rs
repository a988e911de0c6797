//! Identity and rights of the control plane. The roles are fixed and come with the install file; the operator may bind
//! exactly these and grant nothing else.

use k8s_openapi::{
    api::{
        core::v1::ServiceAccount,
        rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::Of;

/// What a control plane reads and writes in the whole cluster.
pub const CLUSTER_ROLE: &str = "meshwright-control-plane";
/// The status Lease, in the mesh's namespace.
pub const LEASE_ROLE: &str = "meshwright-control-plane-lease";
/// MeshNodes and their status, in the mesh's namespace.
pub const NODES_ROLE: &str = "meshwright-control-plane-nodes";
/// Creating and deleting Secrets in the mesh's namespace; for the operator itself.
pub const ISSUING_CA_ROLE: &str = "meshwright-issuing-ca";

pub(super) fn service_account(of: &Of<'_>) -> ServiceAccount {
    ServiceAccount { metadata: of.meta(), ..ServiceAccount::default() }
}

pub(super) fn cluster_binding(of: &Of<'_>) -> ClusterRoleBinding {
    // Cluster-scoped objects cannot have an owner in a namespace; labels say whose it is.
    let metadata = ObjectMeta {
        name: Some(format!("{CLUSTER_ROLE}.{}.{}", of.namespace, of.name)),
        labels: Some(of.labels()),
        ..ObjectMeta::default()
    };
    ClusterRoleBinding {
        metadata,
        role_ref: role_ref(CLUSTER_ROLE),
        subjects: Some(vec![subject(&of.namespace, &of.name)]),
    }
}

pub(super) fn lease_binding(of: &Of<'_>) -> RoleBinding {
    binding(of, "lease", LEASE_ROLE)
}

pub(super) fn nodes_binding(of: &Of<'_>) -> RoleBinding {
    binding(of, "nodes", NODES_ROLE)
}

fn binding(of: &Of<'_>, what: &str, role: &str) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta { name: Some(format!("{}-{what}", of.name)), ..of.meta() },
        role_ref: role_ref(role),
        subjects: Some(vec![subject(&of.namespace, &of.name)]),
    }
}

/// One of the fixed roles.
pub fn role_ref(name: &str) -> RoleRef {
    RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "ClusterRole".to_owned(),
        name: name.to_owned(),
    }
}

/// A service account.
pub fn subject(namespace: &str, name: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        ..Subject::default()
    }
}
