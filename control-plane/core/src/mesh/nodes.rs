//! Nodes with their members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::policies::Policies;
use super::{COMPONENT, GATEWAY, Member, Node, Refused, Rules, Touched, enrolls, membership};
use crate::model::{ObjectKey, Pod, World};

/// The touched nodes; None for those of which there is nothing to say any more.
pub(super) fn nodes(
    known: &BTreeMap<String, Arc<Node>>,
    touched: &Touched,
    world: &World,
    rules: &Rules,
    mixed: &BTreeSet<String>,
    trust_domain: &str,
) -> BTreeMap<String, Option<Arc<Node>>> {
    let frames = touched.nodes.iter().map(|name| {
        let mut node = known.get(name).map(|node| (**node).clone()).unwrap_or_default();
        node.members.retain(|uid, _| !touched.has_uid(uid));
        node.gateways.retain(|uid, _| !touched.has_uid(uid));
        node.policies.retain(|uid, _| !touched.has_uid(uid));
        node.outside.retain(|uid| !touched.has_uid(uid));
        node.refused.retain(|uid, _| !touched.has_uid(uid));
        let found = world.mesh_nodes.get(name);
        node.claim = found.map(|found| (found.wanted.clone(), found.epoch));
        node.listed = found.into_iter().flat_map(|found| found.pods.keys()).cloned().collect();
        (name, node)
    });
    let mut nodes: BTreeMap<&String, Node> = frames.collect();
    let policies = Policies { world, root: &rules.root, trust_domain };
    let mut identities = Identities { trust_domain, made: BTreeMap::new() };
    for key in touched.pods() {
        let Some(pod) = world.pods.get(key) else { continue };
        let Some(node) = nodes.get_mut(&pod.node) else { continue };
        let namespace = world.namespaces.get(&key.namespace).map(AsRef::as_ref);
        let Err(why) = membership(pod, key, namespace, rules) else {
            node.members.insert(pod.uid.clone(), member(pod, key, &mut identities));
            if let Some(policy) = policies.of(key, pod) {
                node.policies.insert(pod.uid.clone(), Arc::new(policy));
            }
            continue;
        };
        if is_gateway(pod) {
            node.gateways.insert(pod.uid.clone(), member(pod, key, &mut identities));
        }
        if mixed.contains(&key.namespace)
            || namespace.is_some_and(|namespace| enrolls(&key.namespace, namespace, rules))
        {
            node.outside.insert(pod.uid.clone());
        }
        if why.is_obstacle() {
            node.refused.insert(pod.uid.clone(), Refused { pod: key.clone(), why });
        }
    }
    let finished = nodes.into_iter().map(|(name, node)| {
        let node = (node != Node::default()).then(|| Arc::new(node));
        (name.clone(), node)
    });
    finished.collect()
}

/// One whose addresses are its own.
fn is_gateway(pod: &Pod) -> bool {
    let is_labelled = pod.labels.get(COMPONENT).is_some_and(|component| component == GATEWAY);
    is_labelled && !pod.host_network && !pod.service_account.is_empty()
}

fn member<'a>(pod: &'a Pod, key: &'a ObjectKey, identities: &mut Identities<'a>) -> Member {
    Member {
        pod: key.clone(),
        identity: identities.of(&key.namespace, &pod.service_account),
        workload: pod.workload.as_str().into(),
        addresses: pod.addresses.clone(),
    }
}

/// SPIFFE ids of service accounts; many pods have the same.
struct Identities<'a> {
    trust_domain: &'a str,
    made: BTreeMap<(&'a str, &'a str), Arc<str>>,
}

impl<'a> Identities<'a> {
    fn of(&mut self, namespace: &'a str, account: &'a str) -> Arc<str> {
        let make = || format!("spiffe://{}/ns/{namespace}/sa/{account}", self.trust_domain).into();
        self.made.entry((namespace, account)).or_insert_with(make).clone()
    }
}
