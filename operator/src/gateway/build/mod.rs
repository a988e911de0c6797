//! What a Gateway is made of, as typed objects in its own namespace, owned by the Gateway and never by a revision, or
//! retiring one would take the address away. Pure.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use kube::{Resource, ResourceExt};
use meshwright_api::{labels, names};

use super::ValidatedGateway;
use crate::{
    apply::Desired,
    availability::Plan,
    catalogue::{self, Release},
    mesh_control_plane::build::shared,
};

mod deployment;
mod service;

/// Key of the trust anchors in their ConfigMap.
pub const ANCHORS: &str = "ca.crt";

/// What could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A revision of a release that this operator does not render any more.
    #[error(
        "MeshRevision {revision} has version {version}, which this operator does not know; it knows {}",
        catalogue::known()
    )]
    UnknownVersion {
        /// Which revision.
        revision: String,
        /// Its version.
        version: String,
    },
    /// An object does not serialise.
    #[error("could not serialise an object")]
    Serialise(#[from] serde_json::Error),
}

/// What a Gateway is made of.
#[derive(Debug, Clone)]
pub struct GatewayObjects {
    /// Identity of the proxies.
    pub service_account: ServiceAccount,
    /// Trust anchors for the first connection to the control plane.
    pub trust: ConfigMap,
    /// The address.
    pub service: Service,
    /// The proxies.
    pub deployment: Deployment,
    /// Their number.
    pub autoscaler: HorizontalPodAutoscaler,
    /// How many may go at once, of all revisions together: with two budgets on a pod an eviction fails.
    pub disruption_budget: PodDisruptionBudget,
}

/// Builds with the builders of the active revision's release.
pub fn gateway(gateway: &ValidatedGateway) -> Result<GatewayObjects, Error> {
    match Release::parse(&gateway.snapshot.version) {
        Some(Release::V0_1_0) => Ok(v0_1_0(gateway)),
        None => Err(Error::UnknownVersion {
            revision: gateway.revision.clone(),
            version: gateway.snapshot.version.clone(),
        }),
    }
}

fn v0_1_0(gateway: &ValidatedGateway) -> GatewayObjects {
    GatewayObjects {
        service_account: ServiceAccount {
            metadata: propagated(gateway),
            // The token that proxies need is projected with an audience of ours; no other is mounted.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        trust: ConfigMap {
            metadata: meta(gateway),
            data: Some(BTreeMap::from([(ANCHORS.to_owned(), gateway.anchors.clone())])),
            ..ConfigMap::default()
        },
        service: service::build(gateway),
        deployment: deployment::build(gateway),
        autoscaler: shared::autoscaler(meta(gateway), &gateway.name, &gateway.plan),
        disruption_budget: shared::disruption_budget(meta(gateway), selector(gateway), &gateway.plan),
    }
}

impl GatewayObjects {
    /// In the order of their dependencies; the address early, because giving one out takes time.
    pub fn into_desired(self, plan: &Plan) -> Result<Vec<Desired>, Error> {
        // Without `..`, so that a new kind cannot be forgotten.
        let Self { service_account, trust, service, deployment, autoscaler, disruption_budget } = self;
        Ok(vec![
            Desired::new(&service)?,
            Desired::new(&service_account)?,
            Desired::new(&trust)?,
            Desired::new(&disruption_budget)?,
            Desired::new(&deployment)?.with_floor(plan.min),
            Desired::new(&autoscaler)?,
        ])
    }
}

/// The same for the whole life of the Gateway: a Deployment's selector cannot change.
fn selector(gateway: &ValidatedGateway) -> LabelSelector {
    shared::selector(&[
        (labels::GATEWAY_NAME, &names::fit(&gateway.source.name_any())),
        (labels::COMPONENT, labels::COMPONENT_GATEWAY),
    ])
}

fn own_labels(gateway: &ValidatedGateway) -> BTreeMap<String, String> {
    shared::labels(
        &gateway.mesh,
        &gateway.mesh_namespace,
        &[
            (labels::COMPONENT, labels::COMPONENT_GATEWAY),
            (labels::GATEWAY_NAME, &names::fit(&gateway.source.name_any())),
            (labels::GATEWAY_CLASS_NAME, &names::fit(&gateway.source.spec.gateway_class_name)),
        ],
    )
}

fn meta(gateway: &ValidatedGateway) -> ObjectMeta {
    ObjectMeta {
        name: Some(gateway.name.clone()),
        namespace: Some(gateway.namespace.clone()),
        labels: Some(own_labels(gateway)),
        owner_references: gateway.source.controller_owner_ref(&()).map(|o| vec![o]),
        ..ObjectMeta::default()
    }
}

/// With the labels and annotations of `spec.infrastructure`; ours win, because selectors need them.
fn propagated(gateway: &ValidatedGateway) -> ObjectMeta {
    let mut labels = gateway.labels.clone();
    labels.extend(own_labels(gateway));
    ObjectMeta {
        labels: Some(labels),
        annotations: Some(gateway.annotations.clone()).filter(|a| !a.is_empty()),
        ..meta(gateway)
    }
}
