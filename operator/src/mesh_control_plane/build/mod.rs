//! What a mesh is made of, as typed objects, one file per kind. Pure: no client, no clock.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{EnvVar, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRoleBinding, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};
use meshwright_api::{AccessLog, MeshRevision, Telemetry, Tracing, labels};

use crate::{
    apply::Desired,
    availability::Plan,
    catalogue::{Builders, Version},
};

mod deployment;
mod network_policy;
mod node;
mod node_volumes;
mod rbac;
mod service;
pub mod shared;
mod whole_mesh;

pub use node::{NodeObjects, OS};
pub use rbac::{CLUSTER_ROLE, ISSUING_CA_ROLE, LEASE_ROLE, NODES_ROLE, role_ref, subject};
pub use whole_mesh::whole_mesh;

/// What could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A revision of a release that this operator does not render any more.
    #[error(
        "MeshRevision {revision} has version {version}, for which this operator has no builders; install one that has"
    )]
    UnknownVersion {
        /// Which revision.
        revision: String,
        /// Its version.
        version: String,
    },
    /// A revision with node proxies that nobody gave ports.
    #[error(
        "MeshRevision {revision} has node proxies and no spec.nodeSlot; apply this operator's CustomResourceDefinitions, then delete it, and it is made anew"
    )]
    NoSlot {
        /// Which revision.
        revision: String,
    },
    /// An object does not serialise.
    #[error("could not serialise an object")]
    Serialise(#[from] serde_json::Error),
}

/// What a revision is built with beside its own snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Namespace of the operator: its pods never join the mesh.
    pub operator: &'a str,
    /// Trust anchors, PEM; none while the root is lost.
    pub anchors: Option<&'a str>,
}

/// What a revision is made of.
#[derive(Debug, Clone)]
pub struct RevisionObjects {
    /// Identity of the control plane.
    pub service_account: ServiceAccount,
    /// What it may read in the cluster, and the status that it writes.
    pub cluster_binding: ClusterRoleBinding,
    /// The status Lease.
    pub lease_binding: RoleBinding,
    /// Who may talk to it.
    pub network_policy: NetworkPolicy,
    /// Its address.
    pub service: Service,
    /// Its pods.
    pub deployment: Deployment,
    /// Their number.
    pub autoscaler: HorizontalPodAutoscaler,
    /// How many may go at once.
    pub disruption_budget: PodDisruptionBudget,
    /// The MeshNodes, where the release has node proxies.
    pub nodes_binding: Option<RoleBinding>,
    /// The node proxies, where the release has them.
    pub node_proxies: Option<NodeObjects>,
}

/// Builds a revision with the builders of its own release.
pub fn revision(
    revision: &MeshRevision,
    issuing_secret: &str,
    plan: &Plan,
    around: Around<'_>,
) -> Result<RevisionObjects, Error> {
    let builders = builders(&revision.name_any(), &revision.spec.version)?;
    let mut objects = v0_1(revision, issuing_secret, plan);
    if builders >= Builders::V0_2 {
        shared::since_0_2(&mut objects.deployment.spec.template, &revision.spec.version);
    }
    if builders >= Builders::V0_3 {
        since_0_3(&mut objects, revision, around)?;
    }
    Ok(objects)
}

// Node proxies; and the control plane knows them, and whose pods they leave alone.
fn since_0_3(
    objects: &mut RevisionObjects,
    revision: &MeshRevision,
    around: Around<'_>,
) -> Result<(), Error> {
    let of = Of::new(revision);
    let slot = revision.spec.node_slot.ok_or_else(|| Error::NoSlot { revision: of.name.clone() })?;
    let pod = objects.deployment.spec.template.spec.get_or_insert_default();
    for container in &mut pod.containers {
        let env = container.env.get_or_insert_default();
        env.push(shared::env("OPERATOR_NAMESPACE", around.operator));
        env.extend(telemetry(&revision.spec.telemetry));
    }
    objects.nodes_binding = Some(rbac::nodes_binding(&of));
    objects.node_proxies = Some(node::build(&of, slot, around.anchors));
    Ok(())
}

/// What the control plane has to know of what proxies tell.
fn telemetry(telemetry: &Telemetry) -> Vec<EnvVar> {
    let mut env = Vec::new();
    if let Some(Tracing { endpoint, sampling }) = &telemetry.tracing {
        env.push(shared::env("PROXY_TRACING_ENDPOINT", endpoint));
        env.push(shared::env("PROXY_TRACING_SAMPLING", sampling));
    }
    if telemetry.access_log == AccessLog::All {
        env.push(shared::env("PROXY_ACCESS_LOG", "true"));
    }
    env
}

/// The builders of a revision's release.
pub fn builders(revision: &str, version: &str) -> Result<Builders, Error> {
    let known = version.parse::<Version>().ok().and_then(Version::builders);
    known.ok_or_else(|| Error::UnknownVersion { revision: revision.to_owned(), version: version.to_owned() })
}

// Released: what comes out of here is compared with golden files and does not change any more.
fn v0_1(revision: &MeshRevision, issuing_secret: &str, plan: &Plan) -> RevisionObjects {
    let of = Of::new(revision);
    RevisionObjects {
        service_account: rbac::service_account(&of),
        cluster_binding: rbac::cluster_binding(&of),
        lease_binding: rbac::lease_binding(&of),
        network_policy: network_policy::build(&of),
        service: service::build(&of),
        deployment: deployment::build(&of, issuing_secret, plan),
        autoscaler: shared::autoscaler(of.meta(), &of.name, plan),
        disruption_budget: shared::disruption_budget(of.meta(), of.selector(), plan),
        nodes_binding: None,
        node_proxies: None,
    }
}

impl RevisionObjects {
    /// In the order of their dependencies: pods start only when all that they need is there.
    pub fn into_desired(self, plan: &Plan) -> Result<Vec<Desired>, Error> {
        // Without `..`, so that a new kind cannot be forgotten.
        let Self {
            service_account,
            cluster_binding,
            lease_binding,
            network_policy,
            service,
            deployment,
            autoscaler,
            disruption_budget,
            nodes_binding,
            node_proxies,
        } = self;
        let mut desired = vec![
            Desired::new(&service_account)?,
            Desired::new(&cluster_binding)?,
            Desired::new(&lease_binding)?,
            Desired::new(&network_policy)?,
            Desired::new(&service)?,
            // Before the pods, or a drain could take them all at once.
            Desired::new(&disruption_budget)?,
            Desired::new(&deployment)?.with_floor(plan.min),
            Desired::new(&autoscaler)?,
        ];
        if let Some(binding) = nodes_binding {
            desired.insert(3, Desired::new(&binding)?);
        }
        // Last: they wait for the control plane anyway.
        if let Some(NodeObjects { service_account, trust, daemon_set }) = node_proxies {
            desired.push(Desired::new(&service_account)?);
            if let Some(trust) = trust {
                desired.push(Desired::new(&trust)?);
            }
            desired.push(Desired::new(&daemon_set)?);
        }
        Ok(desired)
    }
}

/// The revision that is being built.
struct Of<'a> {
    revision: &'a MeshRevision,
    name: String,
    namespace: String,
    owner: Option<OwnerReference>,
}

impl<'a> Of<'a> {
    fn new(revision: &'a MeshRevision) -> Self {
        Self {
            revision,
            name: revision.name_any(),
            namespace: revision.namespace().unwrap_or_default(),
            owner: revision.controller_owner_ref(&()),
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        shared::labels(
            &self.revision.spec.mesh,
            &self.namespace,
            &[(labels::REVISION, &self.name), (labels::COMPONENT, labels::COMPONENT_CONTROL_PLANE)],
        )
    }

    fn meta(&self) -> ObjectMeta {
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            labels: Some(self.labels()),
            owner_references: self.owner.clone().map(|o| vec![o]),
            ..ObjectMeta::default()
        }
    }

    fn selector(&self) -> LabelSelector {
        shared::selector(&[
            (labels::REVISION, &self.name),
            (labels::COMPONENT, labels::COMPONENT_CONTROL_PLANE),
        ])
    }
}
