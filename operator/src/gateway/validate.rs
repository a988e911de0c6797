//! A Gateway with its parameters, the mesh's defaults and the active revision, put together.

use std::collections::BTreeMap;

use kube::ResourceExt;
use meshwright_api::{
    GatewayParametersSpec, MeshRevisionSpec, Resources, Scheduling, ServiceType, gateway::Gateway, names,
};

use super::{
    dereference::{Held, Parameters, Seen},
    sizes,
};
use crate::availability::{Plan, Workload, solve};

/// A Gateway that cannot be built.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A reference to something else.
    #[error(
        "parametersRef of {of} names a {kind}; only GatewayParameters of group meshwright.io can be used"
    )]
    UnknownKind {
        /// The Gateway or its class.
        of: &'static str,
        /// What it names.
        kind: String,
    },
    /// What the mesh's status names was not read.
    #[error("the revision that serves is not there; the MeshControlPlane says why")]
    NoRevision,
    /// A reference to nothing.
    #[error("parametersRef of {of} names {object}, which does not exist; create it")]
    Missing {
        /// The Gateway or its class.
        of: &'static str,
        /// What it names.
        object: String,
    },
}

/// A Gateway that can be built.
#[derive(Debug, Clone)]
pub struct ValidatedGateway {
    /// The Gateway, for its owner reference and events.
    pub source: Gateway,
    /// Name of everything that is made for it.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The mesh's name.
    pub mesh: String,
    /// The mesh's namespace.
    pub mesh_namespace: String,
    /// The revision whose builders make what all revisions share.
    pub lead: MeshRevisionSpec,
    /// Proxies of each revision.
    pub parts: Vec<Part>,
    /// The revision that the Service is limited to; none: all.
    pub behind: Option<String>,
    /// Trust anchors, PEM.
    pub anchors: String,
    /// Labels from `spec.infrastructure`.
    pub labels: BTreeMap<String, String>,
    /// Annotations from `spec.infrastructure`.
    pub annotations: BTreeMap<String, String>,
    /// Distinct ports of its listeners, each with the name of its first listener.
    pub ports: BTreeMap<i32, String>,
    /// An address that was asked for.
    pub address: Option<String>,
    /// Kind of the Service.
    pub service: ServiceType,
    /// Availability.
    pub plan: Plan,
}

/// Proxies of one revision.
#[derive(Debug, Clone)]
pub struct Part {
    /// Name of their Deployment.
    pub name: String,
    /// The revision.
    pub revision: String,
    /// What it says.
    pub snapshot: MeshRevisionSpec,
    /// Their number, and what follows from it.
    pub plan: Plan,
    /// They exist already.
    pub exists: bool,
    /// CPU and memory.
    pub resources: Resources,
    /// Where the pods may run.
    pub scheduling: Scheduling,
}

/// Checks and merges: the Gateway's parameters before those of its class before the mesh's.
pub fn validate(gateway: &Gateway, held: &Held, seen: &Seen) -> Result<ValidatedGateway, Error> {
    let of_gateway = parameters("the Gateway", &seen.of_gateway)?;
    let of_class = parameters("the GatewayClass", &seen.of_class)?;
    let layers = [of_gateway, of_class];
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let mesh = &held.mesh;
    let mut bounds: Vec<_> = layers.iter().map(|l| l.as_ref().and_then(|p| p.autoscaling)).collect();
    bounds.push(mesh.spec.gateways.autoscaling);
    let plan = solve(Workload::Gateway, mesh.spec.profile, &bounds);
    let surge = mesh.spec.upgrade.surge_percent;
    let sized = sizes::sizes(&held.routing, &held.there, &plan, surge);
    let scheduling = layers.iter().flatten().find_map(|p| p.scheduling.clone());
    let part = |(revision, plan): (String, Plan)| {
        let snapshot = seen.revisions.get(&revision)?.spec.clone();
        Some(Part {
            name: names::gateway_workload(&gateway.name_any(), &revision),
            exists: held.there.deployments.contains_key(&revision),
            resources: resources(&layers, &snapshot.gateways.resources),
            scheduling: scheduling.clone().unwrap_or_else(|| snapshot.gateways.scheduling.clone()),
            revision,
            snapshot,
            plan,
        })
    };
    let lead = seen.revisions.get(&held.routing.lead.revision).ok_or(Error::NoRevision)?;
    Ok(ValidatedGateway {
        name: names::gateway_resources(&gateway.name_any()),
        namespace: gateway.namespace().unwrap_or_default(),
        mesh: mesh.name_any(),
        mesh_namespace: mesh.namespace().unwrap_or_default(),
        lead: lead.spec.clone(),
        parts: sized.into_iter().filter_map(part).collect(),
        behind: sizes::behind(&held.routing, &held.there, &plan),
        anchors: seen.anchors.clone(),
        labels: infrastructure.and_then(|i| i.labels.clone()).unwrap_or_default(),
        annotations: infrastructure.and_then(|i| i.annotations.clone()).unwrap_or_default(),
        ports: ports(gateway),
        address: address(gateway),
        service: layers.iter().flatten().find_map(|p| p.service).unwrap_or_default().type_,
        plan,
        source: gateway.clone(),
    })
}

fn parameters(of: &'static str, found: &Parameters) -> Result<Option<GatewayParametersSpec>, Error> {
    match found {
        Parameters::None => Ok(None),
        Parameters::Found(parameters) => Ok(Some((**parameters).clone())),
        Parameters::UnknownKind(kind) => Err(Error::UnknownKind { of, kind: kind.clone() }),
        Parameters::Missing(object) => Err(Error::Missing { of, object: object.clone() }),
    }
}

// Amount by amount, so that who sets only the CPU keeps the mesh's memory.
fn resources(layers: &[Option<GatewayParametersSpec>], defaults: &Resources) -> Resources {
    let mut merged = defaults.clone();
    for layer in layers.iter().rev().flatten() {
        let Some(said) = &layer.resources else { continue };
        // A limit alone is taken as the request by Kubernetes; our own request may be higher than that.
        merged.requests.retain(|name, _| !said.limits.contains_key(name));
        merged.requests.extend(said.requests.clone());
        merged.limits.extend(said.limits.clone());
    }
    merged
}

// Several listeners share a port by host name; a Service has each port once.
fn ports(gateway: &Gateway) -> BTreeMap<i32, String> {
    let mut ports = BTreeMap::new();
    for listener in &gateway.spec.listeners {
        ports.entry(listener.port).or_insert_with(|| port_name(&listener.name, listener.port));
    }
    // A Service port's name must be one of its kind, too.
    let mut seen = std::collections::BTreeSet::new();
    for (port, name) in &mut ports {
        if !seen.insert(name.clone()) {
            *name = format!("port-{port}");
        }
    }
    ports
}

// A listener's name may be as long as a DNS name and have dots, which a port's name may not.
fn port_name(listener: &str, port: i32) -> String {
    let fits = listener.len() <= 63 && !listener.contains('.');
    if fits { listener.to_owned() } else { format!("port-{port}") }
}

fn address(gateway: &Gateway) -> Option<String> {
    let wanted = gateway.spec.addresses.iter().flatten();
    let ip = wanted.filter(|a| a.r#type.as_deref().unwrap_or("IPAddress") == "IPAddress");
    ip.filter_map(|a| a.value.clone()).find(|v| !v.is_empty())
}
