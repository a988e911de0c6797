//! What holds for any world, and for any way to it.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

const NAMESPACES: [&str; 4] = ["shop", "web", "kube-system", "mesh"];
const NODES: [&str; 2] = ["n1", "n2"];
const VALUES: [Option<&str>; 4] = [None, Some("enabled"), Some("disabled"), Some("yes")];
const ADDRESSES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1"];

/// Something that happens to a world. Numbers choose among a few names.
#[derive(Debug, Clone)]
enum Step {
    Namespace(usize, Option<&'static str>),
    NamespaceGone(usize),
    /// Namespace, name, incarnation, node, label, addresses, account, obstacle, since when it has its network.
    Pod(usize, u8, u8, usize, Option<&'static str>, Vec<&'static str>, u8, u8, i64),
    PodGone(usize, u8),
    /// What the agent of a node reports: who has which address, by namespace, name and incarnation.
    Listed(usize, i64, Vec<(usize, u8, u8, &'static str)>),
    MeshNodeGone(usize),
    Service(u8, Vec<&'static str>, Vec<(u16, Option<&'static str>)>),
    ServiceGone(u8),
    Slice(u8, Vec<&'static str>),
    SliceGone(u8),
    /// Namespace, name, labels that it selects by, whether it denies and is only tried; ports.
    Authorization(usize, u8, Option<&'static str>, bool, bool, Vec<u16>),
    AuthorizationGone(usize, u8),
    /// Namespace, name, labels that it selects by, age, whether it is strict; ports.
    Tls(usize, u8, Option<&'static str>, i64, bool, BTreeMap<u16, bool>),
    TlsGone(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let value = || proptest::sample::select(&VALUES[..]);
    let address = || proptest::sample::select(&ADDRESSES[..]);
    let application = proptest::option::of(proptest::sample::select(&["http", "tcp"][..]));
    let pod = (
        0_usize..3,
        0_u8..2,
        0_u8..2,
        0_usize..2,
        value(),
        vec(address(), 0..3),
        0_u8..3,
        0_u8..12,
        0_i64..3,
    );
    prop_oneof![
        2 => (0_usize..3, value()).prop_map(|(name, value)| Step::Namespace(name, value)),
        1 => (0_usize..3).prop_map(Step::NamespaceGone),
        6 => pod.prop_map(|(namespace, name, life, node, label, addresses, account, obstacle, since)| {
            Step::Pod(namespace, name, life, node, label, addresses, account, obstacle, since)
        }),
        2 => (0_usize..3, 0_u8..2).prop_map(|(namespace, name)| Step::PodGone(namespace, name)),
        6 => (0_usize..2, 0_i64..2, vec((0_usize..3, 0_u8..2, 0_u8..2, address()), 0..6))
            .prop_map(|(node, epoch, listed)| Step::Listed(node, epoch, listed)),
        1 => (0_usize..2).prop_map(Step::MeshNodeGone),
        2 => (0_u8..2, vec(address(), 0..3), vec((80_u16..83, application), 0..3))
            .prop_map(|(name, ips, ports)| Step::Service(name, ips, ports)),
        1 => (0_u8..2).prop_map(Step::ServiceGone),
        2 => (0_u8..2, vec(address(), 0..3)).prop_map(|(service, all)| Step::Slice(service, all)),
        1 => (0_u8..2).prop_map(Step::SliceGone),
        2 => (0_usize..4, 0_u8..2, value(), any::<bool>(), any::<bool>(), vec(80_u16..83, 0..2)).prop_map(
            |(namespace, name, label, denies, tries, ports)| {
                Step::Authorization(namespace, name, label, denies, tries, ports)
            }
        ),
        1 => (0_usize..4, 0_u8..2).prop_map(|(namespace, name)| Step::AuthorizationGone(namespace, name)),
        2 => (0_usize..4, 0_u8..3, value(), 0_i64..2, any::<bool>(), btree_map(80_u16..83, any::<bool>(), 0..2))
            .prop_map(|(namespace, name, label, age, strict, ports)| {
                Step::Tls(namespace, name, label, age, strict, ports)
            }),
        1 => (0_usize..4, 0_u8..3).prop_map(|(namespace, name)| Step::TlsGone(namespace, name)),
    ]
}

fn uid(namespace: usize, name: u8, life: u8) -> String {
    format!("u-{namespace}-{name}-{life}")
}

fn take(world: &mut World, step: Step) {
    let name = |number: u8| format!("p{number}");
    match step {
        Step::Namespace(namespace, value) => {
            let label: Vec<_> = value.map(|value| ("meshwright.io/mesh", value)).into_iter().collect();
            add_namespace(world, NAMESPACES[namespace], &label);
        }
        Step::NamespaceGone(namespace) => drop(world.namespaces.remove(NAMESPACES[namespace])),
        Step::Pod(namespace, number, life, node, label, addresses, account, obstacle, since) => {
            let label: Vec<_> = label.map(|value| ("meshwright.io/mesh", value)).into_iter().collect();
            let pod = Pod {
                labels: labels(&label),
                service_account: ["a", "b", ""][usize::from(account)].to_owned(),
                host_network: obstacle == 0,
                since,
                sidecar: (obstacle == 1).then(|| "istio-proxy".to_owned()),
                ..pod(&uid(namespace, number, life), NODES[node], &addresses)
            };
            add_pod(world, NAMESPACES[namespace], &name(number), pod);
        }
        Step::PodGone(namespace, number) => {
            world.pods.remove(&ObjectKey::new(NAMESPACES[namespace], name(number)));
        }
        Step::Listed(node, epoch, listed) => {
            let mut pods: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (namespace, number, life, address) in listed {
                pods.entry(uid(namespace, number, life)).or_default().push(address.to_owned());
            }
            let found = MeshNode { wanted: "mesh-1".to_owned(), epoch, pods };
            world.mesh_nodes.insert(NODES[node].to_owned(), Arc::new(found));
        }
        Step::MeshNodeGone(node) => drop(world.mesh_nodes.remove(NODES[node])),
        Step::Service(number, ips, ports) => {
            let ports = ports.into_iter().map(|(number, protocol)| port("x", number, protocol));
            add_service(world, &name(number), &ips, ports.collect());
        }
        Step::ServiceGone(number) => drop(world.services.remove(&ObjectKey::new("shop", name(number)))),
        Step::Slice(number, all) => add_slice(world, &name(number), &["x"], &all),
        Step::Authorization(namespace, number, label, denies, dry_run, ports) => {
            let policy = AuthorizationPolicy {
                denies,
                dry_run,
                target: target(label),
                rules: vec![AuthorizationRule {
                    http: (number == 0 && !ports.is_empty())
                        .then(HttpAttributes::default)
                        .into_iter()
                        .collect(),
                    ports,
                    ..AuthorizationRule::default()
                }],
                ..policies::authorization(NAMESPACES[namespace], &name(number))
            };
            policies::add_authorization(world, policy);
        }
        Step::AuthorizationGone(namespace, number) => {
            world.authorization_policies.remove(&ObjectKey::new(NAMESPACES[namespace], name(number)));
        }
        Step::Tls(namespace, number, label, created, strict, ports) => {
            let meta = Meta::new(NAMESPACES[namespace], name(number), 1, created);
            let policy = MeshTlsPolicy { meta, target: target(label), strict, ports, unreadable: None };
            world.mesh_tls_policies.insert(policy.meta.key.clone(), Arc::new(policy));
        }
        Step::TlsGone(namespace, number) => {
            world.mesh_tls_policies.remove(&ObjectKey::new(NAMESPACES[namespace], name(number)));
        }
        Step::SliceGone(number) => drop(world.endpoint_slices.remove(&ObjectKey::new("shop", name(number)))),
    }
}

/// All pods, or those with this label.
fn target(label: Option<&str>) -> Target {
    let selector = |value: &str| LabelSelector {
        match_labels: labels(&[("meshwright.io/mesh", value)]),
        match_expressions: Vec::new(),
    };
    Target(label.map(selector).into_iter().collect())
}

/// No pod of these namespaces may be in the mesh.
fn is_closed(namespace: &str) -> bool {
    ["kube-system", "mesh"].contains(&namespace)
}

/// What its label says, or its namespace's.
fn asks(world: &World, key: &ObjectKey, pod: &Pod) -> Option<String> {
    let of = |labels: &BTreeMap<String, String>| labels.get("meshwright.io/mesh").cloned();
    let around = || world.namespaces.get(&key.namespace).and_then(|namespace| of(&namespace.labels));
    of(&pod.labels).or_else(around)
}

/// Written from the pod's side, in words of its own: may it be in the mesh?
fn may_join(world: &World, key: &ObjectKey, pod: &Pod) -> bool {
    asks(world, key, pod).as_deref() == Some("enabled")
        && !is_closed(&key.namespace)
        && !(pod.host_network || pod.sidecar.is_some() || pod.service_account.is_empty())
}

/// Every pod that has this address for its own.
fn claimants<'a>(world: &'a World, address: &str) -> Vec<(&'a ObjectKey, &'a Pod)> {
    let pods = world.pods.iter().map(|(key, pod)| (key, &**pod));
    pods.filter(|(_, pod)| !pod.host_network && pod.addresses.iter().any(|own| own == address)).collect()
}

/// Every pod that may have this address and take mutual TLS there: current uid, on the node that lists it.
fn takers<'a>(world: &'a World, address: &str) -> Vec<(&'a ObjectKey, &'a Pod)> {
    let listed = |pod: &Pod| {
        let node = world.mesh_nodes.get(&pod.node)?;
        node.pods.get(&pod.uid)?.iter().any(|other| other == address).then_some(())
    };
    let pods = world.pods.iter().map(|(key, pod)| (key, &**pod));
    pods.filter(|(key, pod)| may_join(world, key, pod))
        .filter(|(_, pod)| pod.addresses.iter().any(|own| own == address) && listed(pod).is_some())
        .collect()
}

proptest! {
    #[test]
    fn what_was_before_changes_nothing(steps in vec((step(), any::<bool>()), 1..40)) {
        let (mut world, mut resolver) = (World::default(), resolver());
        let mut known = resolver.resolve(&world);
        for (step, is_looked_at) in steps {
            take(&mut world, step);
            if !is_looked_at {
                continue;
            }
            let next = resolver.resolve(&world);
            prop_assert_eq!(&next, &fresh(&world));
            prop_assert_eq!(resolver.resolver.statuses(), policies::fresh_statuses(&world));
            // What is equal is also the same.
            prop_assert_eq!(next == known, Arc::ptr_eq(&next, &known));
            for (key, service) in next.services.iter() {
                let before = known.services.get(key).filter(|before| *before == service);
                prop_assert!(before.is_none_or(|before| Arc::ptr_eq(before, service)));
            }
            for (name, node) in &next.nodes {
                let before = known.nodes.get(name).filter(|before| *before == node);
                prop_assert!(before.is_none_or(|before| Arc::ptr_eq(before, node)));
            }
            known = next;
        }
    }

    #[test]
    fn members_and_peers_are_exactly_who_may_be(steps in vec(step(), 1..40)) {
        let (mut world, mut resolver) = (World::default(), resolver());
        for step in steps {
            take(&mut world, step);
            let mesh = resolver.resolve(&world);
            let mut told = 0;
            for (key, pod) in &world.pods {
                let node = mesh.nodes.get(&pod.node);
                let is_member = node.is_some_and(|node| node.members.contains_key(&pod.uid));
                let is_outside = node.is_some_and(|node| node.outside.contains(&pod.uid));
                prop_assert_eq!(is_member, may_join(&world, key, pod), "{} {:?}", key, pod);
                let enrolled = mesh.namespaces.get(&key.namespace) == Some(&true);
                let joins = |(other, pod): (&ObjectKey, &Arc<Pod>)| {
                    other.namespace == key.namespace && may_join(&world, other, pod)
                };
                let some_join = world.pods.iter().any(joins);
                prop_assert_eq!(mesh.mixed.contains(&key.namespace), some_join && !enrolled, "{}", key);
                let expected = !is_member && (enrolled || some_join);
                prop_assert_eq!(is_outside, expected, "{} {:?}", key, pod);
                let is_refused = node.is_some_and(|node| node.refused.contains_key(&pod.uid));
                let asked = asks(&world, key, pod).is_some_and(|value| value != "disabled");
                prop_assert_eq!(is_refused, asked && !is_member && !is_closed(&key.namespace), "{}", key);
                told += usize::from(is_member) + usize::from(is_outside);
            }
            let all = mesh.nodes.values().map(|node| node.members.len() + node.outside.len());
            prop_assert_eq!(told, all.sum::<usize>(), "nobody else is told of");
            for address in ADDRESSES {
                let (takers, has) = (takers(&world, address), claimants(&world, address));
                let newest = has.iter().map(|(_, pod)| pod.since).max();
                let is_newest = |(_, pod): &&(&ObjectKey, &Pod)| Some(pod.since) == newest;
                let of_the_mesh = has.iter().filter(is_newest).any(|(key, pod)| may_join(&world, key, pod));
                // Nodes of those who void older claims, if anybody does: of their own nodes.
                let strangers = || has.iter().filter(is_newest).map(|(_, pod)| &pod.node);
                let latest = |off: Option<&String>| {
                    let all = takers.iter().filter(|(_, pod)| Some(&pod.node) != off);
                    all.map(|(_, pod)| pod.since).max()
                };
                match mesh.peers.get(address) {
                    Some(peer) => {
                        let (key, own) = takers.iter().find(|(_, pod)| pod.uid == *peer.uid).unwrap();
                        let is_last = |off| latest(off) == Some(own.since) && Some(&own.node) != off;
                        let last = if of_the_mesh { is_last(None) } else { strangers().any(|node| is_last(Some(node))) };
                        prop_assert!(last, "the latest of those who count");
                        let named = format!("spiffe://example.org/ns/{}/sa/{}", key.namespace, own.service_account);
                        prop_assert_eq!(named.as_str(), &*peer.identity);
                    }
                    // Plaintext: only where nobody takes anything else, or a stranger has got the address on the very node.
                    None => {
                        let voided = !of_the_mesh && strangers().any(|node| latest(Some(node)).is_none());
                        prop_assert!(takers.is_empty() || voided, "{} {:?}", address, takers);
                    }
                }
            }
        }
    }
}
