//! What the agent of a node is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::mesh::{self, Mesh, Node};
use meshwright_proto::nodes::{Admission, CallerRule, Claim, Member, NodeOrder, PodPolicy};

/// What an order is made from. Two with the same parts, by their addresses, make the same order.
#[derive(Debug, Clone)]
pub struct Basis {
    node: Option<Arc<Node>>,
    namespaces: Arc<BTreeMap<String, bool>>,
    mixed: Arc<BTreeSet<String>>,
    /// Who has the addresses that the agent asks about.
    callers: BTreeMap<String, Arc<str>>,
}

impl Basis {
    /// What the mesh has for this node, whose agent wants to know who has these addresses.
    pub fn of(mesh: &Mesh, node: &str, asked: &[String]) -> Self {
        Self {
            node: mesh.nodes.get(node).cloned(),
            namespaces: mesh.namespaces.clone(),
            mixed: mesh.mixed.clone(),
            callers: callers(mesh, asked),
        }
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
            && self.callers == other.callers
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
            policies: node
                .into_iter()
                .flat_map(|node| &node.policies)
                .filter(|(_, policy)| policy.plaintext.refuses_any())
                .map(|(uid, policy)| {
                    let identity =
                        node.and_then(|node| node.members.get(uid)).map(|member| &*member.identity);
                    let version =
                        meshwright_xds::mesh::policy_version(uid, identity.unwrap_or_default(), policy);
                    (uid.clone(), plaintext(policy, version))
                })
                .collect(),
            callers: self.callers.iter().map(|(address, id)| (address.clone(), id.to_string())).collect(),
        }
    }
}

/// Agents ask seldom: where rules change. Of two pods with one address nobody can tell which it is.
fn callers(mesh: &Mesh, asked: &[String]) -> BTreeMap<String, Arc<str>> {
    let nobody: Arc<str> = "".into();
    let mut callers: BTreeMap<_, _> = asked.iter().map(|address| (address.clone(), nobody.clone())).collect();
    if callers.is_empty() {
        return callers;
    }
    // Gateways call members, too, and show who they are.
    let all = mesh.nodes.values().flat_map(|node| node.members.values().chain(node.gateways.values()));
    for member in all {
        for address in &member.addresses {
            if let Some(known) = callers.get_mut(address) {
                let is_other = !known.is_empty() && *known != member.identity;
                *known = if is_other { nobody.clone() } else { member.identity.clone() };
            }
        }
    }
    callers
}

fn admission(rules: &mesh::RuleSet) -> Admission {
    let http_ports = rules.http_ports().into_iter().map(u32::from).collect();
    let rules = rules.of_connections();
    let all = |rules: &[mesh::Rule]| rules.iter().map(caller_rule).collect();
    Admission {
        limited: rules.allow.is_some(),
        allow: all(rules.allow.as_deref().unwrap_or_default()),
        deny: all(&rules.deny),
        http_ports,
    }
}

fn caller_rule(rule: &mesh::Rule) -> CallerRule {
    let mut made = CallerRule {
        everybody: rule.callers.is_none(),
        ports: rule.ports.iter().copied().map(u32::from).collect(),
        ..CallerRule::default()
    };
    for caller in rule.callers.iter().flatten() {
        match caller {
            mesh::Caller::Id(id) => made.ids.push(id.to_string()),
            mesh::Caller::Below(prefix) => made.below.push(prefix.to_string()),
        }
    }
    made
}

fn plaintext(policy: &mesh::PodPolicy, version: String) -> PodPolicy {
    let mesh::Plaintext { refused, except } = &policy.plaintext;
    PodPolicy {
        refused: *refused,
        except: except.iter().copied().map(u32::from).collect(),
        probes: policy.probes.iter().copied().map(u32::from).collect(),
        admission: Some(admission(&policy.authorization.enforced)),
        version,
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
        let order = Basis::of(&mesh, "n1", &[]).order();
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
        let order = Basis::of(&beside, "n1", &[]).order();
        assert_eq!((order.outside, order.listed), (vec!["u9".to_owned()], vec!["u8".to_owned()]));

        let mixed = Mesh { mixed: Arc::new(["web".to_owned()].into()), ..mesh.clone() };
        assert_eq!(Basis::of(&mixed, "n3", &[]).order().mixed, ["web"]);
        assert!(!Basis::of(&mixed, "n3", &[]).is_same(&Basis::of(&mesh, "n3", &[])));

        let strict = mesh::PodPolicy {
            plaintext: mesh::Plaintext { refused: true, except: [80].into() },
            probes: [8080].into(),
            ..mesh::PodPolicy::default()
        };
        let policies = [("u1", strict), ("u2", mesh::PodPolicy::default())];
        let policies = policies.map(|(uid, policy)| (uid.to_owned(), Arc::new(policy))).into();
        let node = Node { policies, ..Node::default() };
        let strict = Mesh { nodes: [("n1".to_owned(), Arc::new(node))].into(), ..mesh.clone() };
        let admission = Some(Admission::default());
        let policies = Basis::of(&strict, "n1", &[]).order().policies;
        let version = policies["u1"].version.clone();
        assert!(!version.is_empty());
        let expected = PodPolicy { refused: true, except: vec![80], probes: vec![8080], admission, version };
        assert_eq!(policies, [("u1".to_owned(), expected)].into());

        let unknown = Basis::of(&mesh, "n3", &[]).order();
        assert!(unknown.members.is_empty() && unknown.claim.is_none() && unknown.namespaces.len() == 1);
    }

    #[test]
    fn what_happens_on_other_nodes_makes_no_order() {
        let mesh = mesh(&[("n1", "u1", "10.0.0.1")], None);
        let (here, nowhere) = (Basis::of(&mesh, "n1", &[]), Basis::of(&mesh, "n3", &[]));
        let mut elsewhere = mesh.clone();
        let other = Node { members: [member("u2", "10.0.0.2")].into(), ..Node::default() };
        elsewhere.nodes.insert("n2".to_owned(), Arc::new(other.clone()));
        assert!(
            here.is_same(&Basis::of(&elsewhere, "n1", &[]))
                && nowhere.is_same(&Basis::of(&elsewhere, "n3", &[]))
        );
        elsewhere.nodes.insert("n1".to_owned(), Arc::new(other));
        assert!(!here.is_same(&Basis::of(&elsewhere, "n1", &[])));
        elsewhere.nodes.remove("n1");
        assert!(!here.is_same(&Basis::of(&elsewhere, "n1", &[])));
        let namespaces = Mesh { namespaces: Arc::default(), ..mesh.clone() };
        assert!(!here.is_same(&Basis::of(&namespaces, "n1", &[])));
    }

    #[test]
    fn callers_are_whose_pods_have_the_address() {
        let pods = [("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2"), ("n2", "u3", "10.0.0.1")];
        let mut mesh = mesh(&pods, None);
        let node = Arc::make_mut(mesh.nodes.get_mut("n1").unwrap());
        node.gateways = [member("edge", "10.0.0.4"), member("other", "10.0.0.5")].into();
        node.members.extend([member("u5", "10.0.0.5")]);
        let addresses = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"];
        let asked = addresses.map(str::to_owned);
        let basis = Basis::of(&mesh, "n1", &asked);
        let callers = basis.order().callers;
        assert_eq!(callers["10.0.0.2"], "spiffe://cluster.local/ns/shop/sa/of-u2");
        assert_eq!(callers["10.0.0.4"], "spiffe://cluster.local/ns/shop/sa/of-edge", "a gateway's");
        let unknown = ["10.0.0.1", "10.0.0.3", "10.0.0.5"].map(|address| callers[address].as_str());
        assert_eq!(unknown, [""; 3], "two pods, none, and two again");
        assert!(
            !basis.is_same(&Basis::of(&mesh, "n1", &[])) && basis.is_same(&Basis::of(&mesh, "n1", &asked))
        );
    }

    #[test]
    fn an_admission_says_what_is_known_of_connections() {
        let callers = [mesh::Caller::Id("a".into()), mesh::Caller::Below("b/".into())];
        let some = mesh::Rule { callers: Some(callers.into()), ports: [80].into(), http: Vec::new() };
        let rules = mesh::RuleSet { allow: Some(vec![mesh::Rule::default()]), deny: vec![some] };
        let made = admission(&rules);
        let anybody = CallerRule { everybody: true, ..CallerRule::default() };
        assert_eq!((made.limited, made.allow), (true, vec![anybody]));
        let ids = vec!["a".to_owned()];
        assert_eq!(
            made.deny,
            [CallerRule { ids, below: vec!["b/".to_owned()], ports: vec![80], everybody: false }]
        );
        assert!(made.http_ports.is_empty());
        let looks =
            mesh::Rule { ports: [8080].into(), http: vec![mesh::Attributes::default()], callers: None };
        let made = admission(&mesh::RuleSet { allow: None, deny: vec![looks] });
        assert_eq!(
            (made.http_ports, made.deny),
            (vec![8080], Vec::new()),
            "requests are, connections are not"
        );
    }
}
