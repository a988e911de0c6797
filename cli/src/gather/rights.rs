//! What an installation asks of its user.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};

use super::{Looked, OPERATOR_NAMESPACE};
use crate::client;

/// To do this with objects of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    /// API group.
    pub group: &'static str,
    /// Plural name.
    pub resource: &'static str,
    /// What is done.
    pub verb: &'static str,
    /// Where; none for the whole cluster.
    pub namespace: Option<&'static str>,
}

const RBAC: &str = "rbac.authorization.k8s.io";
const OWN: Option<&str> = Some(OPERATOR_NAMESPACE);

/// What the install file creates, where, and the MeshControlPlane.
const NEEDED: [(&str, &str, Option<&str>); 13] = [
    ("", "namespaces", None),
    ("", "serviceaccounts", OWN),
    ("", "services", OWN),
    ("apps", "deployments", OWN),
    ("policy", "poddisruptionbudgets", OWN),
    ("apiextensions.k8s.io", "customresourcedefinitions", None),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies", None),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings", None),
    (RBAC, "clusterroles", None),
    (RBAC, "clusterrolebindings", None),
    (RBAC, "roles", OWN),
    (RBAC, "rolebindings", OWN),
    (meshwright_api::GROUP, "meshcontrolplanes", None),
];

/// Roles that say more than their creator may, and bindings of such.
const GRANTED: [(&str, Option<&str>); 2] = [("clusterroles", None), ("roles", OWN)];

/// All of it.
pub fn needed() -> Vec<Right> {
    // `kubectl apply --server-side` patches what it creates.
    let write = NEEDED.iter().flat_map(|&(group, resource, namespace)| {
        ["create", "patch"].map(|verb| Right { group, resource, verb, namespace })
    });
    let grant = GRANTED.iter().flat_map(|&(resource, namespace)| {
        ["escalate", "bind"].map(|verb| Right { group: RBAC, resource, verb, namespace })
    });
    write.chain(grant).collect()
}

/// Asks the API server for each.
pub async fn rights(client: &Client) -> Vec<(Right, Looked<bool>)> {
    join_all(needed().into_iter().map(|right| async move { (right, may(client, right).await) })).await
}

async fn may(client: &Client, right: Right) -> Looked<bool> {
    let Right { group, resource, verb, namespace } = right;
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                verb: Some(verb.to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = api.create(&PostParams::default(), &review).await.map_err(|e| client::reason(&e))?;
    Ok(answer.status.is_some_and(|s| s.allowed))
}
