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

use super::{ValidatedGateway, validate::Part};
use crate::{
    apply::Desired,
    catalogue::Builders,
    mesh_control_plane::build::{Error, builders, shared},
};

mod deployment;
mod service;

/// Key of the trust anchors in their ConfigMap.
pub const ANCHORS: &str = "ca.crt";

/// What a Gateway is made of.
#[derive(Debug, Clone)]
pub struct GatewayObjects {
    /// Identity of the proxies.
    pub service_account: ServiceAccount,
    /// Trust anchors for the first connection to the control plane.
    pub trust: ConfigMap,
    /// The address.
    pub service: Service,
    /// The proxies of each revision.
    pub workloads: Vec<Workload>,
    /// How many may go at once, of all revisions together: with two budgets on a pod an eviction fails.
    pub disruption_budget: PodDisruptionBudget,
}

/// The proxies of one revision.
#[derive(Debug, Clone)]
pub struct Workload {
    /// They.
    pub deployment: Deployment,
    /// Their number.
    pub autoscaler: HorizontalPodAutoscaler,
    /// Their fewest.
    pub floor: i32,
    /// They are there already.
    pub exists: bool,
}

/// Builds: what all revisions share with the builders of the one that leads, the proxies with those of their own.
pub fn gateway(gateway: &ValidatedGateway) -> Result<GatewayObjects, Error> {
    let lead = gateway.parts.first().map_or("", |p| p.revision.as_str());
    match builders(lead, &gateway.lead.version)? {
        Builders::V0_1 | Builders::V0_2 | Builders::V0_3 => {}
    }
    let workloads = gateway.parts.iter().filter(|part| !is_left(gateway, part));
    let workloads = workloads.map(|part| workload(gateway, part));
    Ok(GatewayObjects {
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
        workloads: workloads.collect::<Result<_, _>>()?,
        disruption_budget: shared::disruption_budget(meta(gateway), selector(gateway), &gateway.plan),
    })
}

/// Proxies that are left as they are, because this operator does not know their release; of the revision that leads that is an error.
pub fn unknown(gateway: &ValidatedGateway) -> Vec<String> {
    let unknown = gateway.parts.iter().filter(|part| is_left(gateway, part));
    let say = |part: &Part| {
        let (revision, version) = (&part.revision, &part.snapshot.version);
        format!(
            "the proxies of revision {revision} are left as they are: this operator does not know release {version}"
        )
    };
    unknown.map(say).collect()
}

fn is_left(gateway: &ValidatedGateway, part: &Part) -> bool {
    let leads = gateway.parts.first().is_some_and(|first| first.revision == part.revision);
    !leads && builders(&part.revision, &part.snapshot.version).is_err()
}

fn workload(gateway: &ValidatedGateway, part: &Part) -> Result<Workload, Error> {
    let mut deployment = deployment::build(gateway, part);
    match builders(&part.revision, &part.snapshot.version)? {
        Builders::V0_1 => {}
        Builders::V0_2 | Builders::V0_3 => {
            shared::since_0_2(&mut deployment.spec.template, &part.snapshot.version);
        }
    }
    Ok(Workload {
        deployment,
        autoscaler: shared::autoscaler(part_meta(gateway, part), &part.name, &part.plan),
        floor: part.plan.min,
        exists: part.exists,
    })
}

impl GatewayObjects {
    /// In the order of their dependencies; the address early, because giving one out takes time.
    pub fn into_desired(self) -> Result<Vec<Desired>, Error> {
        // Without `..`, so that a new kind cannot be forgotten.
        let Self { service_account, trust, service, workloads, disruption_budget } = self;
        let mut desired =
            vec![Desired::new(&service_account)?, Desired::new(&trust)?, Desired::new(&disruption_budget)?];
        for Workload { deployment, autoscaler, floor, exists } in workloads {
            let pair = [Desired::new(&deployment)?.with_floor(floor), Desired::new(&autoscaler)?];
            // An autoscaler that still has the old bounds would take a larger number back; one without a Deployment complains.
            let [deployment, autoscaler] = pair;
            desired.extend(if exists { [autoscaler, deployment] } else { [deployment, autoscaler] });
        }
        desired.insert(0, Desired::new(&service)?);
        Ok(desired)
    }
}

/// The same for the whole life of the Gateway: a Deployment's selector cannot change.
fn selector(gateway: &ValidatedGateway) -> LabelSelector {
    shared::selector(&[
        (labels::GATEWAY_NAME, &names::fit(&gateway.source.name_any())),
        (labels::COMPONENT, labels::COMPONENT_GATEWAY),
    ])
}

/// Of the proxies of one revision.
fn part_selector(gateway: &ValidatedGateway, part: &Part) -> LabelSelector {
    let mut selector = selector(gateway);
    let labels = selector.match_labels.get_or_insert_default();
    labels.insert(labels::REVISION.to_owned(), part.revision.clone());
    selector
}

fn part_meta(gateway: &ValidatedGateway, part: &Part) -> ObjectMeta {
    of_part(meta(gateway), part)
}

fn of_part(meta: ObjectMeta, part: &Part) -> ObjectMeta {
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert(labels::REVISION.to_owned(), part.revision.clone());
    ObjectMeta { name: Some(part.name.clone()), labels: Some(labels), ..meta }
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
