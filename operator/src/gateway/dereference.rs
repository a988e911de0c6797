//! Every read of a Gateway's reconcile.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service},
};
use kube::{Api, ResourceExt, api::ListParams};
use meshwright_api::{
    CONTROLLER_NAME, GROUP, GatewayParameters, GatewayParametersSpec, MeshControlPlane, MeshRevision,
    gateway::{Gateway, GatewayClass},
    labels, names,
};

use super::{build, sizes};
use crate::{
    apply,
    availability::{Plan, Workload, solve},
    certificates::{self, root},
    context::Context,
    error::Class,
    mesh_control_plane::mesh_of_cluster,
    upgrade::{
        routing::{self, Routing},
        shares::Load,
    },
};

/// Every change of the mesh's status brings the Gateways, too.
const NOT_YET: Duration = Duration::from_secs(15);

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request.
    #[error(transparent)]
    Request(#[from] apply::Error),
    /// The root.
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    /// The mesh is being installed.
    #[error("the mesh has no active revision or no root certificate; its MeshControlPlane says why")]
    NotYet,
}

impl Error {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Request(e) => e.class(),
            Self::Certificates(e) => e.class(),
            Self::NotYet => Class::Waiting(NOT_YET),
        }
    }
}

/// A reference to parameters, followed.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameters {
    /// There is no reference.
    None,
    /// It leads here.
    Found(Box<GatewayParametersSpec>),
    /// It is of a kind that we do not know.
    UnknownKind(String),
    /// It leads nowhere.
    Missing(String),
}

/// What its proxies depend on whatever the Gateway says.
#[derive(Debug, Clone)]
pub struct Held {
    /// The mesh of this cluster.
    pub mesh: MeshControlPlane,
    /// Which of its revisions have pods here, and who gets connections.
    pub routing: Routing,
    /// What there is of this Gateway.
    pub there: There,
}

impl Held {
    /// Availability as the mesh alone says it.
    pub fn plan(&self) -> Plan {
        solve(Workload::Gateway, self.mesh.spec.profile, &[])
    }
}

/// What the Gateway and others say.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The revisions that have pods here.
    pub revisions: BTreeMap<String, MeshRevision>,
    /// Trust anchors, PEM.
    pub anchors: String,
    /// Parameters of the class.
    pub of_class: Parameters,
    /// Parameters of the Gateway.
    pub of_gateway: Parameters,
}

/// What was made for a Gateway before.
#[derive(Debug, Clone, Default)]
pub struct There {
    /// Its proxies, by revision.
    pub deployments: BTreeMap<String, Deployment>,
    /// What the autoscalers saw last, by revision.
    pub load: BTreeMap<String, Load>,
    /// The address.
    pub service: Option<Service>,
    /// The revision that the Service is limited to.
    pub behind: Option<String>,
}

/// Whose a Gateway is.
#[derive(Debug)]
pub enum Whose {
    /// Ours to serve.
    Ours(Box<Held>, Box<Seen>),
    /// Ours, with proxies, and about to go; or its class is missing: a class that is made again must not have cost the address.
    Left(Box<Held>),
    /// Another controller's: its class says so.
    Others,
    /// Nobody's for now: there is no mesh, or nothing was made for it. What runs goes on.
    Nobodys,
}

/// Reads.
pub async fn dereference(ctx: &Context, gateway: &Gateway) -> Result<Whose, Error> {
    let classes: Api<GatewayClass> = Api::all(ctx.client.clone());
    let name = &gateway.spec.gateway_class_name;
    let class = classes.get_opt(name).await;
    let class = class.map_err(apply::Error::request("read", format!("GatewayClass {name}")))?;
    if class.as_ref().is_some_and(|c| c.spec.controller_name != CONTROLLER_NAME) {
        return Ok(Whose::Others);
    }
    let mesh = mesh_of_cluster(ctx).await?;
    let Some(mesh) = mesh.filter(|m| m.metadata.deletion_timestamp.is_none()) else {
        return Ok(Whose::Nobodys);
    };
    let routing = mesh.status.as_ref().and_then(routing::of);
    let going = gateway.metadata.deletion_timestamp.is_some();
    let (routing, class) = match (routing, class.filter(|_| !going)) {
        (Some(routing), Some(class)) => (routing, class),
        (None, Some(_)) => return Err(Error::NotYet),
        (None, None) => return Ok(Whose::Nobodys),
        (Some(routing), None) => {
            let there = there(ctx, gateway).await?;
            return Ok(match there.deployments.is_empty() {
                true => Whose::Nobodys,
                false => Whose::Left(Box::new(Held { mesh, routing, there })),
            });
        }
    };
    let mut revisions = BTreeMap::new();
    for part in std::iter::once(&routing.lead).chain(&routing.other) {
        match revision(ctx, &mesh, &part.revision).await {
            Ok(found) => drop(revisions.insert(part.revision.clone(), found)),
            // Somebody may have removed it by force; the one that leads serves.
            Err(Error::NotYet) if part.revision != routing.lead.revision => {}
            Err(error) => return Err(error),
        }
    }
    let seen = Seen {
        revisions,
        anchors: anchors(ctx, &mesh, gateway).await?,
        of_class: of_class(ctx, &class).await?,
        of_gateway: of_gateway(ctx, gateway).await?,
    };
    let held = Held { there: there(ctx, gateway).await?, routing, mesh };
    Ok(Whose::Ours(Box::new(held), Box::new(seen)))
}

// Those that the Gateway has, where the root is lost: a person must decide what becomes of it, and meanwhile everything
// else of the Gateway goes on to be mended.
pub(super) async fn anchors(
    ctx: &Context,
    mesh: &MeshControlPlane,
    gateway: &Gateway,
) -> Result<String, Error> {
    let lost = match root::read(ctx, &mesh.namespace().unwrap_or_default(), &mesh.name_any()).await {
        Ok(Some(root)) => return Ok(root.pem),
        Ok(None) => Error::NotYet,
        Err(certificates::Error::Apply(error)) => return Err(error.into()),
        Err(error) => error.into(),
    };
    let name = names::gateway_resources(&gateway.name_any());
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &gateway.namespace().unwrap_or_default());
    let there = api.get_opt(&name).await;
    let there = there.map_err(apply::Error::request("read", format!("ConfigMap {name}")))?;
    there
        .filter(|c| super::is_owned(c.owner_references(), gateway))
        .and_then(|c| c.data?.remove(build::ANCHORS))
        .ok_or(lost)
}

async fn there(ctx: &Context, gateway: &Gateway) -> Result<There, Error> {
    let (client, namespace) = (ctx.client.clone(), gateway.namespace().unwrap_or_default());
    let name = gateway.name_any();
    let selector = format!(
        "{}={},{}={}",
        labels::GATEWAY_NAME,
        names::fit(&name),
        labels::COMPONENT,
        labels::COMPONENT_GATEWAY
    );
    let params = ListParams::default().labels(&selector);
    let what = || format!("objects of Gateway {namespace}/{name}");
    let deployments = Api::<Deployment>::namespaced(client.clone(), &namespace).list(&params).await;
    let deployments = deployments.map_err(apply::Error::request("list", what()))?.items;
    let scalers = Api::<HorizontalPodAutoscaler>::namespaced(client.clone(), &namespace).list(&params).await;
    let scalers = scalers.map_err(apply::Error::request("list", what()))?.items;
    let service =
        Api::<Service>::namespaced(client, &namespace).get_opt(&names::gateway_resources(&name)).await;
    let service = service.map_err(apply::Error::request("read", what()))?;
    let ours = |owners: &[_]| super::is_owned(owners, gateway);
    let deployments: BTreeMap<String, Deployment> = deployments
        .into_iter()
        .filter(|d| ours(d.owner_references()) && d.metadata.deletion_timestamp.is_none())
        .filter_map(|d| Some((d.labels().get(labels::REVISION)?.clone(), d)))
        .collect();
    Ok(There {
        load: scalers
            .iter()
            .filter(|s| ours(s.owner_references()))
            .filter_map(|s| {
                let revision = s.labels().get(labels::REVISION)?;
                Some((revision.clone(), load(s, deployments.get(revision)?)?))
            })
            .collect(),
        deployments,
        behind: service
            .as_ref()
            .and_then(|s| s.spec.as_ref()?.selector.as_ref()?.get(labels::REVISION).cloned()),
        service: service.filter(|s| ours(s.owner_references())),
    })
}

// Of pods that are not ready yet the autoscaler has no figures, and it counts them all the same.
fn load(scaler: &HorizontalPodAutoscaler, deployment: &Deployment) -> Option<Load> {
    let status = scaler.status.as_ref()?;
    let metrics = status.current_metrics.as_ref()?;
    let cpu_percent = metrics.iter().find_map(|m| m.resource.as_ref()?.current.average_utilization)?;
    Some(Load { pods: status.current_replicas?.min(sizes::ready_of(deployment)), cpu_percent })
}

async fn revision(ctx: &Context, mesh: &MeshControlPlane, name: &str) -> Result<MeshRevision, Error> {
    let api: Api<MeshRevision> = Api::namespaced(ctx.client.clone(), &mesh.namespace().unwrap_or_default());
    let revision = api.get_opt(name).await;
    let revision = revision.map_err(apply::Error::request("read", format!("MeshRevision {name}")))?;
    revision.ok_or(Error::NotYet)
}

async fn of_gateway(ctx: &Context, gateway: &Gateway) -> Result<Parameters, Error> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let Some(to) = infrastructure.and_then(|i| i.parameters_ref.as_ref()) else {
        return Ok(Parameters::None);
    };
    follow(ctx, &to.group, &to.kind, &gateway.namespace().unwrap_or_default(), &to.name).await
}

async fn of_class(ctx: &Context, class: &GatewayClass) -> Result<Parameters, Error> {
    let Some(to) = &class.spec.parameters_ref else { return Ok(Parameters::None) };
    follow(ctx, &to.group, &to.kind, to.namespace.as_deref().unwrap_or_default(), &to.name).await
}

async fn follow(
    ctx: &Context,
    group: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Parameters, Error> {
    if (group, kind) != (GROUP, "GatewayParameters") {
        return Ok(Parameters::UnknownKind(format!("{kind} of group {group:?}")));
    }
    let described = format!("GatewayParameters {namespace}/{name}");
    if namespace.is_empty() {
        return Ok(Parameters::Missing(described));
    }
    let api: Api<GatewayParameters> = Api::namespaced(ctx.client.clone(), namespace);
    let found = api.get_opt(name).await.map_err(apply::Error::request("read", described.clone()))?;
    Ok(found.map_or(Parameters::Missing(described), |p| Parameters::Found(Box::new(p.spec))))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_that_are_not_ready_have_no_part_in_the_load() {
        let metric =
            json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 140}}});
        let status = json!({"currentReplicas": 6, "desiredReplicas": 6, "currentMetrics": [metric]});
        let scaler: HorizontalPodAutoscaler = serde_json::from_value(json!({"status": status})).unwrap();
        let deployment: Deployment = serde_json::from_value(json!({"status": {"readyReplicas": 3}})).unwrap();
        assert_eq!(load(&scaler, &deployment), Some(Load { pods: 3, cpu_percent: 140 }));
    }
}
