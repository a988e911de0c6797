//! Listeners of nodes, as they were made last. It saves work and changes nothing: who asks for the same gets the same, and of a node that
//! changed only the pods that came are encoded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use meshwright_core::mesh::{Member, Node};

use super::{Ports, pod};
use crate::{Resource, Resources};

#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<BTreeMap<(String, Ports), Made>>);

#[derive(Debug)]
struct Made {
    node: Option<Arc<Node>>,
    listeners: Arc<Resources>,
}

impl Memo {
    /// The listeners of a node; `inner` are those that all nodes have.
    pub fn listeners(
        &self,
        trust_domain: &str,
        inner: &[Arc<Resource>],
        name: &str,
        node: Option<&Arc<Node>>,
        ports: Ports,
    ) -> Arc<Resources> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = all.get(&(name.to_owned(), ports));
        if let Some(known) = known
            && is_same(known.node.as_ref(), node)
        {
            return known.listeners.clone();
        }
        let mut listeners = Resources::default();
        inner.iter().for_each(|resource| listeners.insert(resource.clone()));
        for (uid, member) in node.into_iter().flat_map(|node| &node.members) {
            let before = known
                .filter(|known| is_as_before(known, uid, member))
                .and_then(|known| both(&known.listeners, uid));
            match before {
                Some(before) => before.into_iter().for_each(|resource| listeners.insert(resource)),
                None => pod::listeners(trust_domain, uid, member, ports)
                    .into_iter()
                    .for_each(|resource| listeners.insert(resource)),
            }
        }
        let listeners = Arc::new(listeners);
        all.insert((name.to_owned(), ports), Made { node: node.cloned(), listeners: listeners.clone() });
        listeners
    }

    /// Forgets nodes that are not among these.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(name, _), _| is_there(name));
    }
}

fn is_same(one: Option<&Arc<Node>>, other: Option<&Arc<Node>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// Whether the pod's listeners would be what they were.
fn is_as_before(made: &Made, uid: &str, member: &Member) -> bool {
    let before = made.node.as_ref().and_then(|node| node.members.get(uid));
    before.is_some_and(|before| (&before.identity, &before.workload) == (&member.identity, &member.workload))
}

fn both(listeners: &Resources, uid: &str) -> Option<[Arc<Resource>; 2]> {
    let outbound = listeners.get(&pod::outbound_name(uid))?;
    let inbound = listeners.get(&pod::inbound_name(uid))?;
    Some([outbound.clone(), inbound.clone()])
}
