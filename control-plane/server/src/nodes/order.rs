//! What the agent of a node is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::mesh::{self, Mesh, Node};
use meshwright_proto::nodes::{Claim, Member, NodeOrder};

/// What an order is made from. Two with the same parts, by their addresses, make the same order.
#[derive(Debug, Clone)]
pub struct Basis {
    node: Option<Arc<Node>>,
    namespaces: Arc<BTreeMap<String, bool>>,
    mixed: Arc<BTreeSet<String>>,
}

impl Basis {
    /// What the mesh has for this node.
    pub fn of(mesh: &Mesh, node: &str) -> Self {
        let (namespaces, mixed) = (mesh.namespaces.clone(), mesh.mixed.clone());
        Self { node: mesh.nodes.get(node).cloned(), namespaces, mixed }
    }

    /// Whether another order would come of it.
    pub fn is_same(&self, other: &Self) -> bool {
        let same_node = match (&self.node, &other.node) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            _ => false,
        };
        same_node
            && Arc::ptr_eq(&self.namespaces, &other.namespaces)
            && Arc::ptr_eq(&self.mixed, &other.mixed)
    }

    /// The order. A node that nothing is known of has no members: that is the truth once everything was listed.
    pub fn order(&self) -> NodeOrder {
        let node = self.node.as_deref();
        let members = node.into_iter().flat_map(|node| &node.members);
        let claim = node.and_then(|node| node.claim.clone());
        NodeOrder {
            members: members.map(|(uid, of)| (uid.clone(), member(of))).collect(),
            namespaces: self.namespaces.iter().map(|(name, joins)| (name.clone(), *joins)).collect(),
            claim: claim.map(|(revision, epoch)| Claim { revision, epoch }),
            outside: node.into_iter().flat_map(|node| &node.outside).cloned().collect(),
            mixed: self.mixed.iter().cloned().collect(),
            listed: node.into_iter().flat_map(|node| &node.listed).cloned().collect(),
        }
    }
}

fn member(member: &mesh::Member) -> Member {
    Member {
        namespace: member.pod.namespace.clone(),
        name: member.pod.name.clone(),
        identity: member.identity.to_string(),
        addresses: member.addresses.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{member, mesh};
    use super::*;

    #[test]
    fn an_order_says_everything_about_the_node_and_nothing_about_others() {
        let mesh = mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], Some(("mesh-1", 3)));
        let order = Basis::of(&mesh, "n1").order();
        let expected = Member {
            namespace: "shop".to_owned(),
            name: "pod-u1".to_owned(),
            identity: "spiffe://cluster.local/ns/shop/sa/of-u1".to_owned(),
            addresses: vec!["10.0.0.1".to_owned()],
        };
        assert_eq!(order.members, [("u1".to_owned(), expected)].into());
        assert_eq!(order.namespaces, [("shop".to_owned(), true)].into());
        assert_eq!(order.claim, Some(Claim { revision: "mesh-1".to_owned(), epoch: 3 }));

        let [outside, listed] = ["u9", "u8"].map(|uid| [uid.to_owned()].into());
        let others = Node { outside, listed, ..Node::default() };
        let beside = Mesh { nodes: [("n1".to_owned(), Arc::new(others))].into(), ..mesh.clone() };
        let order = Basis::of(&beside, "n1").order();
        assert_eq!((order.outside, order.listed), (vec!["u9".to_owned()], vec!["u8".to_owned()]));

        let mixed = Mesh { mixed: Arc::new(["web".to_owned()].into()), ..mesh.clone() };
        assert_eq!(Basis::of(&mixed, "n3").order().mixed, ["web"]);
        assert!(!Basis::of(&mixed, "n3").is_same(&Basis::of(&mesh, "n3")));

        let unknown = Basis::of(&mesh, "n3").order();
        assert!(unknown.members.is_empty() && unknown.claim.is_none() && unknown.namespaces.len() == 1);
    }

    #[test]
    fn what_happens_on_other_nodes_makes_no_order() {
        let mesh = mesh(&[("n1", "u1", "10.0.0.1")], None);
        let (here, nowhere) = (Basis::of(&mesh, "n1"), Basis::of(&mesh, "n3"));
        let mut elsewhere = mesh.clone();
        let other = Node { members: [member("u2", "10.0.0.2")].into(), ..Node::default() };
        elsewhere.nodes.insert("n2".to_owned(), Arc::new(other.clone()));
        assert!(here.is_same(&Basis::of(&elsewhere, "n1")) && nowhere.is_same(&Basis::of(&elsewhere, "n3")));
        elsewhere.nodes.insert("n1".to_owned(), Arc::new(other));
        assert!(!here.is_same(&Basis::of(&elsewhere, "n1")));
        elsewhere.nodes.remove("n1");
        assert!(!here.is_same(&Basis::of(&elsewhere, "n1")));
        let namespaces = Mesh { namespaces: Arc::default(), ..mesh.clone() };
        assert!(!here.is_same(&Basis::of(&namespaces, "n1")));
    }
}
