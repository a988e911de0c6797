//! What is of one node only, as it was made last: listeners, and what policies say about its pods. It saves work and changes nothing: who asks
//! for the same gets the same, and of a node that changed only the pods that came, or of which something else is said, are encoded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use meshwright_core::mesh::{Member, Node};

use super::{Ports, authorize, pod};
use crate::{Resource, Resources};

#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<BTreeMap<(String, Ports), Made>>);

/// Resources of a node, with those that all nodes have.
#[derive(Debug, Clone)]
pub(super) struct Made {
    node: Option<Arc<Node>>,
    /// The extensions that all nodes have.
    shared: Arc<Resources>,
    pub listeners: Arc<Resources>,
    pub extensions: Arc<Resources>,
}

impl Memo {
    /// The resources of a node; `inner` are the listeners and the extensions that all nodes have.
    pub fn of_node(
        &self,
        trust_domain: &str,
        inner: (&[Arc<Resource>], &Arc<Resources>),
        name: &str,
        node: Option<&Arc<Node>>,
        ports: Ports,
    ) -> Made {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&(name.to_owned(), ports));
        let same_node = known.filter(|known| is_same(known.node.as_ref(), node));
        if let Some(known) = same_node
            && Arc::ptr_eq(&known.shared, inner.1)
        {
            return known.clone();
        }
        // Policies are none of a listener's business.
        let same_members = known.filter(|known| shapes(known.node.as_ref()).eq(shapes(node)));
        let listeners = match same_members {
            Some(known) => known.listeners.clone(),
            None => Arc::new(listeners(known, trust_domain, inner.0, node, ports)),
        };
        let made = Made {
            node: node.cloned(),
            shared: inner.1.clone(),
            extensions: Arc::new(extensions(known, inner.1, node)),
            listeners,
        };
        all.insert((name.to_owned(), ports), made.clone());
        made
    }

    /// Forgets nodes that are not among these.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(name, _), _| is_there(name));
    }
}

fn listeners(
    known: Option<&Made>,
    trust_domain: &str,
    inner: &[Arc<Resource>],
    node: Option<&Arc<Node>>,
    ports: Ports,
) -> Resources {
    let mut listeners = Resources::default();
    inner.iter().for_each(|resource| listeners.insert(resource.clone()));
    for (uid, member) in node.into_iter().flat_map(|node| &node.members) {
        let before = known
            .filter(|known| self::member(known, uid).is_some_and(|before| shape(before) == shape(member)))
            .and_then(|known| both(&known.listeners, uid));
        match before {
            Some(before) => before.into_iter().for_each(|resource| listeners.insert(resource)),
            None => pod::listeners(trust_domain, uid, member, ports)
                .into_iter()
                .for_each(|resource| listeners.insert(resource)),
        }
    }
    listeners
}

fn extensions(known: Option<&Made>, shared: &Resources, node: Option<&Arc<Node>>) -> Resources {
    let mut extensions = shared.clone();
    for (uid, member) in node.into_iter().flat_map(|node| &node.members) {
        let policy = node.and_then(|node| node.policies.get(uid));
        let before = known.filter(|known| {
            let before = known.node.as_ref().and_then(|node| node.policies.get(uid));
            before == policy
                && self::member(known, uid).is_some_and(|before| before.identity == member.identity)
        });
        let before = before.and_then(|known| known.extensions.get(&authorize::policy_name(uid)));
        match before {
            Some(before) => extensions.insert(before.clone()),
            None => extensions.insert(authorize::policy(uid, &member.identity, policy.map(AsRef::as_ref))),
        }
    }
    let policies = |node: Option<&Arc<Node>>| node.map(|node| node.policies.clone()).unwrap_or_default();
    let before = known.filter(|known| policies(known.node.as_ref()) == policies(node));
    match before.and_then(|known| known.extensions.get(authorize::RULES)) {
        Some(before) => extensions.insert(before.clone()),
        None => extensions.insert(authorize::rules(node.map(AsRef::as_ref))),
    }
    extensions
}

fn is_same(one: Option<&Arc<Node>>, other: Option<&Arc<Node>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// What a pod's listeners are made of.
fn shapes(node: Option<&Arc<Node>>) -> impl Iterator<Item = (&String, [&Arc<str>; 2])> {
    let members = node.into_iter().flat_map(|node| &node.members);
    members.map(|(uid, member)| (uid, shape(member)))
}

fn shape(member: &Member) -> [&Arc<str>; 2] {
    [&member.identity, &member.workload]
}

fn member<'a>(made: &'a Made, uid: &str) -> Option<&'a Member> {
    made.node.as_ref()?.members.get(uid)
}

fn both(listeners: &Resources, uid: &str) -> Option<[Arc<Resource>; 2]> {
    let outbound = listeners.get(&pod::outbound_name(uid))?;
    let inbound = listeners.get(&pod::inbound_name(uid))?;
    Some([outbound.clone(), inbound.clone()])
}
