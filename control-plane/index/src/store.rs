//! The model and how events change it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::config::ClusterRef;
use meshwright_core::mesh::Touched;
use meshwright_core::model::{EndpointSlice, GatewayObservation, ObjectId, ObjectKind, Pod, SecretState};
use meshwright_core::{ObjectKey, World, difference};
use meshwright_k8s::Update;

use crate::apply::{apply, map, split};
use crate::convert::{GatewayDeployment, GatewayService, ServiceView, combined};
use crate::event::{Event, Seen};
use crate::live::LiveObjects;
use crate::understood::understood;

/// The model with what is needed to keep it up to date.
pub(crate) struct Store {
    pub(crate) world: World,
    /// Clusters whose endpoints are wanted although no Gateway may name them.
    pub(crate) kept: BTreeSet<ClusterRef>,
    live: LiveObjects,
    /// By the Service's key.
    gateway_services: BTreeMap<ObjectKey, Arc<GatewayService>>,
    /// By the Deployment's key.
    gateway_deployments: BTreeMap<ObjectKey, Arc<GatewayDeployment>>,
    /// By the slice's key; the model has them by Service.
    slices: BTreeMap<ObjectKey, Arc<EndpointSlice>>,
}

/// What an event changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Something that resolution looks at.
    pub(crate) structural: bool,
    /// Services whose endpoints may be others now.
    pub(crate) endpoints: BTreeSet<ObjectKey>,
    /// What the mesh is made of.
    pub(crate) mesh: Touched,
}

impl Change {
    pub(crate) fn merge(&mut self, other: Self) {
        self.structural |= other.structural;
        self.endpoints.extend(other.endpoints);
        self.mesh.merge(other.mesh);
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.structural && self.endpoints.is_empty() && self.mesh.is_empty()
    }

    /// Services or their slices.
    fn endpoints(services: BTreeSet<ObjectKey>) -> Self {
        let mut change = Self::default();
        change.mesh.services = services.clone();
        Self { endpoints: services, ..change }
    }

    fn policies(keys: impl Iterator<Item = ObjectKey>) -> Self {
        let mut change = Self::default();
        change.mesh.policies = keys.collect();
        change
    }

    fn structural(structural: bool) -> Self {
        Self { structural, ..Self::default() }
    }
}

impl Store {
    pub(crate) fn new(live: LiveObjects) -> Self {
        Self {
            world: World::default(),
            kept: BTreeSet::new(),
            live,
            gateway_services: BTreeMap::new(),
            gateway_deployments: BTreeMap::new(),
            slices: BTreeMap::new(),
        }
    }

    pub(crate) fn apply(&mut self, event: Event) -> Change {
        let world = &mut self.world;
        let structural = match event {
            Event::Services(update) => return self.apply_services(update),
            Event::EndpointSlices(update) => return self.apply_slices(update),
            Event::Deployments(update) => return self.apply_deployments(update),
            Event::Secret(key, state) => return self.apply_secret(key, state),
            Event::Kept(kept) => {
                let new = kept.difference(&self.kept).map(|cluster| cluster.service.clone()).collect();
                self.kept = kept;
                return Change { endpoints: new, ..Change::default() };
            }
            Event::Pods(update) => return self.apply_pods(update),
            Event::MeshNodes(update) => {
                let mut change = Change::default();
                change.mesh.nodes = apply(&mut world.mesh_nodes, map(update, Some)).into_keys().collect();
                return change;
            }
            Event::AuthorizationPolicies(update) => {
                let (models, live) = split(update, parts);
                self.live.update_authorization_policies(live);
                let models = understood(&world.authorization_policies, models);
                return Change::policies(apply(&mut world.authorization_policies, models).into_keys());
            }
            Event::MeshTlsPolicies(update) => {
                let (models, live) = split(update, parts);
                self.live.update_mesh_tls_policies(live);
                let models = understood(&world.mesh_tls_policies, models);
                return Change::policies(apply(&mut world.mesh_tls_policies, models).into_keys());
            }
            Event::Namespaces(update) => {
                let mut change = Change::default();
                change.mesh.namespaces =
                    apply(&mut world.namespaces, map(update, Some)).into_keys().collect();
                return Change { structural: !change.mesh.is_empty(), ..change };
            }
            Event::GatewayClasses(update) => {
                let (models, live) = split(update, parts);
                self.live.update_gateway_classes(live);
                !apply(&mut world.gateway_classes, models).is_empty()
            }
            Event::Gateways(update) => {
                let (models, live) = split(update, parts);
                self.live.update_gateways(live);
                !apply(&mut world.gateways, models).is_empty()
            }
            Event::HttpRoutes(update) => {
                let (models, live) = split(update, parts);
                self.live.update_http_routes(live);
                !apply(&mut world.http_routes, models).is_empty()
            }
            Event::GrpcRoutes(update) => {
                let (models, live) = split(update, parts);
                self.live.update_grpc_routes(live);
                !apply(&mut world.grpc_routes, models).is_empty()
            }
            Event::TcpRoutes(update) => {
                let (models, live) = split(update, parts);
                self.live.update_tcp_routes(live);
                !apply(&mut world.tcp_routes, models).is_empty()
            }
            Event::ReferenceGrants(update) => {
                !apply(&mut world.reference_grants, map(update, Some)).is_empty()
            }
            Event::GatewayParameters(update) => {
                !apply(&mut world.gateway_parameters, map(update, Some)).is_empty()
            }
            Event::BundleVersion(version) => {
                std::mem::replace(&mut world.crd_bundle_version, version.clone()) != version
            }
            Event::Rejections(rejections) => {
                let before = std::mem::replace(&mut world.rejections, rejections);
                let changed: Vec<_> = difference(&before, &world.rejections, PartialEq::eq).collect();
                let mut change = Change::structural(!changed.is_empty());
                // Their policies say it.
                for (key, pod) in &world.pods {
                    let is_of = |object: &&ObjectId| match object.kind {
                        ObjectKind::Pod => object.key.name == pod.uid,
                        ObjectKind::Node => object.key.name == pod.node,
                        _ => false,
                    };
                    if changed.iter().any(is_of) {
                        change.mesh.pod(key.clone(), [Some(&**pod)]);
                    }
                }
                return change;
            }
        };
        Change::structural(structural)
    }

    fn apply_secret(&mut self, key: ObjectKey, state: SecretState) -> Change {
        let known = self.world.secrets.get(&key).map(AsRef::as_ref);
        // A refusal says something about our rights and nothing about the certificate. When the reference is not permitted any more the
        // Secret is forgotten, whatever was known of it.
        if matches!((known, &state), (Some(SecretState::Ok(_)), SecretState::Unreadable(_))) {
            return Change::default();
        }
        let changed = known.is_none_or(|known| *known != state);
        self.world.secrets.insert(key, Arc::new(state));
        Change::structural(changed)
    }

    fn apply_services(&mut self, update: Update<ServiceView>) -> Change {
        let (services, gateways) = split(update, |view| (Some(view.service), view.gateway));
        let endpoints: BTreeSet<ObjectKey> = apply(&mut self.world.services, services).into_keys().collect();
        let observed = !apply(&mut self.gateway_services, gateways).is_empty() && self.observe();
        Change { structural: observed || !endpoints.is_empty(), ..Change::endpoints(endpoints) }
    }

    fn apply_deployments(&mut self, update: Update<Option<GatewayDeployment>>) -> Change {
        let changed = !apply(&mut self.gateway_deployments, update).is_empty();
        Change::structural(changed && self.observe())
    }

    /// Puts together what is known of the objects made for each Gateway. They are few, and so are their changes.
    fn observe(&mut self) -> bool {
        let mut observations: BTreeMap<ObjectKey, GatewayObservation> = BTreeMap::new();
        for service in self.gateway_services.values() {
            observations.entry(service.gateway.clone()).or_default().addresses = service.addresses.clone();
        }
        for deployment in self.gateway_deployments.values() {
            let observation = observations.entry(deployment.gateway.clone()).or_default();
            observation.deployment = combined([&observation.deployment, &deployment.state].into_iter());
        }
        let known = &mut self.world.gateway_observations;
        let same = known.len() == observations.len()
            && known.iter().zip(&observations).all(|((a, x), (b, y))| a == b && **x == *y);
        if !same {
            *known = observations.into_iter().map(|(key, one)| (key, Arc::new(one))).collect();
        }
        !same
    }

    fn apply_slices(&mut self, update: Update<Option<EndpointSlice>>) -> Change {
        let mut endpoints = BTreeSet::new();
        for (key, before) in apply(&mut self.slices, update) {
            if let Some(before) = before
                && let Some(slices) = self.world.endpoint_slices.get_mut(&before.service)
            {
                slices.remove(&key.name);
                if slices.is_empty() {
                    self.world.endpoint_slices.remove(&before.service);
                }
                endpoints.insert(before.service.clone());
            }
            if let Some(slice) = self.slices.get(&key) {
                let slices = self.world.endpoint_slices.entry(slice.service.clone()).or_default();
                slices.insert(key.name.clone(), slice.clone());
                endpoints.insert(slice.service.clone());
            }
        }
        Change::endpoints(endpoints)
    }

    fn apply_pods(&mut self, update: Update<Option<Pod>>) -> Change {
        let mut change = Change::default();
        for (key, before) in apply(&mut self.world.pods, update) {
            let states = [before.as_deref(), self.world.pods.get(&key).map(AsRef::as_ref)];
            change.mesh.pod(key.clone(), states);
        }
        change
    }
}

fn parts<M, S>(seen: Seen<M, S>) -> (Option<M>, crate::live::Live<S>) {
    (Some(seen.model), seen.live)
}
