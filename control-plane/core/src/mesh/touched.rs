//! What may be something else than at the resolution before.

use std::collections::BTreeSet;

use crate::config::ServiceRoutes;
use crate::difference;
use crate::model::{ObjectKey, Pod, World};

/// Names of what was added, changed or removed. What is not named here is taken for unchanged; naming too much costs time and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Namespaces.
    pub namespaces: BTreeSet<String>,
    /// Pods, by [`Touched::pod`].
    pods: BTreeSet<ObjectKey>,
    /// Every uid that they had.
    uids: BTreeSet<String>,
    /// Nodes whose MeshNode it is, and those of the pods.
    pub nodes: BTreeSet<String>,
    /// Services themselves, or their EndpointSlices.
    pub services: BTreeSet<ObjectKey>,
    /// Policies.
    pub policies: BTreeSet<ObjectKey>,
}

impl Touched {
    /// Everything that there is.
    pub fn all(world: &World) -> Self {
        let mut all = Self {
            namespaces: world.namespaces.keys().cloned().collect(),
            nodes: world.mesh_nodes.keys().cloned().collect(),
            services: world.services.keys().cloned().collect(),
            policies: world
                .authorization_policies
                .keys()
                .chain(world.mesh_tls_policies.keys())
                .cloned()
                .collect(),
            ..Self::default()
        };
        world.pods.iter().for_each(|(key, pod)| all.pod(key.clone(), [Some(&**pod)]));
        all
    }

    /// A pod with what it was and what it is: it never moves, but another of its name may be on another node.
    pub fn pod<'a>(&mut self, key: ObjectKey, states: impl IntoIterator<Item = Option<&'a Pod>>) {
        for state in states.into_iter().flatten() {
            self.nodes.insert(state.node.clone());
            self.uids.insert(state.uid.clone());
        }
        self.pods.insert(key);
    }

    /// Takes in the other's.
    pub fn merge(&mut self, other: Self) {
        let Self { namespaces, pods, uids, nodes, services, policies } = other;
        self.namespaces.extend(namespaces);
        self.pods.extend(pods);
        self.uids.extend(uids);
        self.nodes.extend(nodes);
        self.services.extend(services);
        self.policies.extend(policies);
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        let Self { namespaces, pods, uids: _, nodes, services, policies } = self;
        namespaces.is_empty()
            && pods.is_empty()
            && nodes.is_empty()
            && services.is_empty()
            && policies.is_empty()
    }

    pub(super) fn pods(&self) -> &BTreeSet<ObjectKey> {
        &self.pods
    }

    /// Whether this is, or was, a touched pod.
    pub(super) fn has_uid(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }

    /// With the Services that have other routes now.
    pub(super) fn with_services_of_routes(&self, before: &ServiceRoutes, after: &ServiceRoutes) -> Self {
        let mut touched = self.clone();
        touched.services.extend(difference(before, after, PartialEq::eq).cloned());
        touched
    }

    /// With the pods of its namespaces and of its policies' namespaces: another label may make members of all of them, another policy may be
    /// for all of them. One in namespace `root` is for all pods that there are.
    pub(super) fn with_pods(&self, world: &World, root: &str) -> Self {
        if self.policies.iter().any(|key| key.namespace == root) {
            let mut touched = self.clone();
            world.pods.iter().for_each(|(key, pod)| touched.pod(key.clone(), [Some(&**pod)]));
            return touched;
        }
        let of_policies = self.policies.iter().map(|key| &key.namespace);
        self.clone().with_pods_of(self.namespaces.iter().chain(of_policies), world)
    }

    /// With the pods of these namespaces.
    pub(super) fn with_pods_of<'a>(
        mut self,
        namespaces: impl IntoIterator<Item = &'a String>,
        world: &World,
    ) -> Self {
        for namespace in namespaces {
            let from = world.pods.range(ObjectKey::new(namespace, "")..);
            let pods = from.take_while(|(key, _)| key.namespace == *namespace);
            pods.for_each(|(key, pod)| self.pod(key.clone(), [Some(&**pod)]));
        }
        self
    }

    /// Whether it may be about pods: what selects them, and which of them are members.
    pub(super) fn are_pods(&self) -> bool {
        !(self.pods.is_empty() && self.namespaces.is_empty() && self.policies.is_empty())
    }

    /// Namespaces in which policies may select other pods than before, or their ports speak something else.
    pub(super) fn policy_namespaces(&self) -> BTreeSet<&str> {
        let policies = self.policies.iter().map(|key| key.namespace.as_str());
        let objects = self.pods.iter().chain(&self.services).map(|key| key.namespace.as_str());
        policies.chain(objects).chain(self.namespaces.iter().map(String::as_str)).collect()
    }
}
