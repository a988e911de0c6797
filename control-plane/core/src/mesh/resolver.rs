//! From the cluster to what node proxies do.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claims::{Claims, Disputes};
use super::{
    Mesh, Node, Peer, Rules, Touched, enrolls, membership, nodes, peers, policies, routes, services,
};
use crate::config::ServiceRoutes;
use crate::model::{ObjectKey, World};
use crate::status::PolicyStatuses;

/// Resolution after resolution of a world that changes a little each time.
#[derive(Debug)]
pub struct MeshResolver {
    rules: Rules,
    trust_domain: String,
    mesh: Arc<Mesh>,
    /// Members by namespace.
    members: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// By node; put together they are the mesh's.
    peers: BTreeMap<String, Vec<(String, Peer)>>,
    claims: Claims,
    disputes: Disputes,
    statuses: Arc<PolicyStatuses>,
}

impl MeshResolver {
    /// Knows an empty world.
    pub fn new(rules: Rules, trust_domain: impl Into<String>) -> Self {
        Self {
            rules,
            trust_domain: trust_domain.into(),
            mesh: Arc::default(),
            members: BTreeMap::new(),
            peers: BTreeMap::new(),
            claims: Claims::default(),
            disputes: Disputes::default(),
            statuses: Arc::default(),
        }
    }

    /// What node proxies have to do in a world where since the last time nothing changed but what was touched, and perhaps the routes.
    /// Whatever is what it was before is the same allocation, the whole mesh included.
    pub fn resolve(&mut self, world: &World, touched: &Touched, routes: &Arc<ServiceRoutes>) -> Arc<Mesh> {
        let known = self.mesh.clone();
        let touched = touched.with_services_of_routes(&known.routes, routes);
        let services = touched.services.iter().map(|key| {
            let service = services::service(known.services.get(key).map(AsRef::as_ref), key, world, routes);
            (key.clone(), service)
        });
        let services = shared(&known.services, patched(&known.services, services));
        let routes = if known.routes == *routes { &known.routes } else { routes };
        let backends = routes::backends(&known, routes, &touched, world);
        let namespaces = touched.namespaces.iter().map(|name| {
            let enrolls = world.namespaces.get(name).map(|found| enrolls(name, found, &self.rules));
            (name.clone(), enrolls)
        });
        let namespaces = shared(&known.namespaces, patched(&known.namespaces, namespaces));
        let touched = touched.with_pods(world, &self.rules.root);
        let mixed = self.mixed(&namespaces, &touched, world);
        // Where some are members now and none were, or the other way round, it is another thing to be none.
        let touched = touched.with_pods_of(known.mixed.symmetric_difference(&mixed), world);
        let nodes = nodes::nodes(&known.nodes, &touched, world, &self.rules, &mixed, &self.trust_domain);
        let nodes = patched(&known.nodes, nodes.into_iter());
        let peers = self.peers(&nodes, &touched, world);
        let mut namespaces_of = touched.policy_namespaces();
        let of_nodes = touched.nodes.iter();
        let captured = of_nodes.flat_map(|name| captured_otherwise(known.nodes.get(name), nodes.get(name)));
        let captured: BTreeSet<&str> = captured.collect();
        // A policy of the mesh's own namespace may be for any pod.
        if !captured.is_empty() || touched.are_pods() {
            namespaces_of.insert(&self.rules.root);
        }
        namespaces_of.extend(captured);
        let namespaces_of = namespaces_of.into_iter();
        self.statuses = policies::status::statuses(&self.statuses, namespaces_of, world, &self.rules);
        let is_same = matches!(nodes, Cow::Borrowed(_))
            && Arc::ptr_eq(&services, &known.services)
            && Arc::ptr_eq(routes, &known.routes)
            && Arc::ptr_eq(&backends, &known.backends)
            && Arc::ptr_eq(&namespaces, &known.namespaces)
            && Arc::ptr_eq(&mixed, &known.mixed)
            && Arc::ptr_eq(&peers, &known.peers);
        if !is_same {
            let (nodes, routes) = (nodes.into_owned(), routes.clone());
            self.mesh = Arc::new(Mesh { nodes, services, routes, backends, peers, namespaces, mixed });
        }
        self.mesh.clone()
    }

    fn mixed(
        &mut self,
        enrolled: &BTreeMap<String, bool>,
        touched: &Touched,
        world: &World,
    ) -> Arc<BTreeSet<String>> {
        let mut names: BTreeSet<&String> = touched.namespaces.iter().collect();
        for key in touched.pods() {
            let namespace = world.namespaces.get(&key.namespace).map(AsRef::as_ref);
            let pod = world.pods.get(key);
            let joins = pod.is_some_and(|pod| membership(pod, key, namespace, &self.rules).is_ok());
            let members = self.members.entry(key.namespace.clone()).or_default();
            if joins {
                members.insert(key.clone())
            } else {
                members.remove(key)
            };
            names.insert(&key.namespace);
        }
        self.members.retain(|_, members| !members.is_empty());
        let known = &self.mesh.mixed;
        let is_mixed = |name: &String| self.members.contains_key(name) && enrolled.get(name) != Some(&true);
        let (now, gone): (BTreeSet<&String>, _) = names.into_iter().partition(|name| is_mixed(name));
        if now.iter().all(|name| known.contains(*name)) && gone.iter().all(|name| !known.contains(*name)) {
            return known.clone();
        }
        let kept = known.iter().filter(|name| !gone.contains(name));
        Arc::new(kept.chain(now.iter().copied()).cloned().collect())
    }

    /// Statuses of the policies, after the last resolution.
    pub fn statuses(&self) -> Arc<PolicyStatuses> {
        self.statuses.clone()
    }

    fn peers(
        &mut self,
        nodes: &BTreeMap<String, Arc<Node>>,
        touched: &Touched,
        world: &World,
    ) -> Arc<BTreeMap<String, Peer>> {
        let known = &self.mesh.peers;
        self.claims.update(touched.pods(), world);
        let disputes = self.claims.disputes(nodes, world);
        let mut has_changed = disputes != self.disputes;
        self.disputes = disputes;
        for name in &touched.nodes {
            let both = nodes.get(name).zip(world.mesh_nodes.get(name));
            let peers = both.map(|(node, reported)| peers::of_node(node, reported));
            if self.peers.get(name) != peers.as_ref() {
                has_changed = true;
                match peers {
                    Some(peers) => self.peers.insert(name.clone(), peers),
                    None => self.peers.remove(name),
                };
            }
        }
        if !has_changed {
            return known.clone();
        }
        let peers = peers::all(self.peers.values(), &self.disputes);
        if **known == peers { known.clone() } else { Arc::new(peers) }
    }
}

/// Resolves a world of which nothing is known, with these routes.
pub fn resolve(world: &World, rules: &Rules, trust_domain: &str, routes: &Arc<ServiceRoutes>) -> Arc<Mesh> {
    MeshResolver::new(rules.clone(), trust_domain).resolve(world, &Touched::all(world), routes)
}

/// Namespaces of the members of a node that its proxy has captured and had not before, or the other way round.
pub(super) fn captured_otherwise<'a>(
    before: Option<&'a Arc<Node>>,
    after: Option<&'a Arc<Node>>,
) -> BTreeSet<&'a str> {
    let is_listed = |node: Option<&Arc<Node>>, uid: &str| node.is_some_and(|node| node.listed.contains(uid));
    let members = [before, after].into_iter().flatten().flat_map(|node| &node.members);
    let changed = members.filter(|(uid, _)| is_listed(before, uid) != is_listed(after, uid));
    changed.map(|(_, member)| member.pod.namespace.as_str()).collect()
}

/// The map with other values for some keys, None for those that are gone; borrowed if it is what it was. Equal values stay as they are.
fn patched<K: Ord + Clone, V: Clone + PartialEq>(
    known: &BTreeMap<K, V>,
    values: impl Iterator<Item = (K, Option<V>)>,
) -> Cow<'_, BTreeMap<K, V>> {
    let mut next = Cow::Borrowed(known);
    for (key, value) in values {
        if known.get(&key) != value.as_ref() {
            match value {
                Some(value) => next.to_mut().insert(key, value),
                None => next.to_mut().remove(&key),
            };
        }
    }
    next
}

fn shared<T: Clone>(known: &Arc<T>, next: Cow<'_, T>) -> Arc<T> {
    match next {
        Cow::Borrowed(_) => known.clone(),
        Cow::Owned(next) => Arc::new(next),
    }
}
