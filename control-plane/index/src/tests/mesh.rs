//! Pods and MeshNodes, and what becomes of them.

use meshwright_api::labels;
use meshwright_core::mesh::{self, Mesh, resolve};
use meshwright_core::model::{MeshNode, Pod, RouteKind};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::Change;

#[test]
fn labels_are_spelled_as_in_the_api() {
    let ours = [mesh::LABEL, mesh::ENABLED, mesh::DISABLED, mesh::COMPONENT];
    assert_eq!(ours, [labels::MESH, labels::MESH_ENABLED, labels::MESH_DISABLED, labels::COMPONENT]);
}

fn namespace(name: &str, mesh: Option<&str>) -> Event {
    let labels = mesh.map(|value| (labels::MESH.to_owned(), value.to_owned())).into_iter().collect();
    let namespace = meshwright_core::model::Namespace { labels };
    Event::Namespaces(Update::Applied((String::new(), name.to_owned()), namespace))
}

fn pod(uid: &str, node: &str, address: &str) -> Pod {
    Pod {
        uid: uid.to_owned(),
        node: node.to_owned(),
        service_account: "cart".to_owned(),
        addresses: vec![address.to_owned()],
        ..Pod::default()
    }
}

fn mesh_node(pods: &[(&str, &str)]) -> MeshNode {
    let pods = pods.iter().map(|(uid, address)| ((*uid).to_owned(), vec![(*address).to_owned()]));
    MeshNode { wanted: "mesh-1".to_owned(), epoch: 1, pods: pods.collect() }
}

fn applied<T>(namespace: &str, name: &str, object: T) -> Update<T> {
    Update::Applied((namespace.to_owned(), name.to_owned()), object)
}

/// A route whose parent is the Service `shop/cart`.
fn mesh_route(path: &str) -> Event {
    let spec = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}], "rules": [{
        "matches": [{"path": {"value": path}}], "backendRefs": [{"name": "pay", "port": 80}]}]});
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "shop", "name": "split"}, "spec": spec});
    Event::HttpRoutes(applied("shop", "split", seen(convert::http_route(&object(route)))))
}

#[tokio::test]
async fn a_route_of_a_service_is_published_and_so_is_where_it_leads() {
    let mut running = start(&["pods"]);
    let pay = json!({"metadata": {"namespace": "shop", "name": "pay"}, "spec": {"ports": [{"port": 80}]}});
    let pay = Event::Services(applied("shop", "pay", convert::service(object(pay))));
    for event in world().into_iter().chain([pay, mesh_route("/a"), Event::Pods(all(Vec::new()))]) {
        running.events.send(event).await.unwrap();
    }
    let first = running.next().await;
    let [cart, pay] = ["cart", "pay"].map(|name| ObjectKey::new("shop", name));
    let path = |output: &Output| {
        let routes = output.mesh.routes[&cart][&80].producer.as_ref().unwrap();
        format!("{:?}", routes[0].matches.path)
    };
    assert!(path(&first).contains("/a"));
    assert!(first.mesh.backends[&(pay.clone(), 80)].is_empty());

    let mut moved = slice("10.0.0.7");
    moved.service = pay.clone();
    running.events.send(Event::EndpointSlices(applied("shop", "pay-1", Some(moved)))).await.unwrap();
    let second = running.next().await;
    assert!(!second.mesh.backends[&(pay, 80)].is_empty());
    assert!(Arc::ptr_eq(&first.mesh.routes, &second.mesh.routes));

    running.events.send(mesh_route("/b")).await.unwrap();
    let third = running.next().await;
    assert!(path(&third).contains("/b"));
    assert!(Arc::ptr_eq(&second.mesh.backends, &third.mesh.backends));
}

#[tokio::test]
async fn a_tcp_route_is_published_and_told_and_goes_when_its_kind_does() {
    let mut running = start(&["pods", "tcproutes"]);
    let spec = json!({"parentRefs": [{"group": "", "kind": "Service", "name": "cart"}],
        "rules": [{"backendRefs": [{"name": "cart", "port": 80}, {"name": "gone", "port": 80}]}]});
    let route = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute",
        "metadata": {"namespace": "shop", "name": "split"}, "spec": spec});
    let route = Event::TcpRoutes(applied("shop", "split", seen(convert::tcp_route(&object(route)))));
    let empty = || Event::TcpRoutes(Update::Replaced { objects: Vec::new(), undecodable: Vec::new() });
    for event in world().into_iter().chain([Event::Pods(all(Vec::new())), empty()]) {
        running.events.send(event).await.unwrap();
    }
    let cart = ObjectKey::new("shop", "cart");
    assert!(!running.next().await.mesh.routes.contains_key(&cart));
    running.events.send(route).await.unwrap();
    let output = running.next().await;
    assert!(output.mesh.routes[&cart][&80].connections.producer.is_some());
    assert_eq!(output.mesh.backends.keys().collect::<Vec<_>>(), [&(cart.clone(), 80)]);
    // As where the API server does not serve the kind any more.
    running.events.send(empty()).await.unwrap();
    assert!(!running.next().await.mesh.routes.contains_key(&cart));
}

#[tokio::test]
async fn pods_mesh_nodes_and_slices_change_the_mesh_and_resolve_no_gateway() {
    let mut running = start(&["pods"]);
    for event in world().into_iter().chain([route("/a"), namespace("shop", Some("enabled"))]) {
        running.events.send(event).await.unwrap();
    }
    let peers = |output: &Output| output.mesh.peers.keys().cloned().collect::<Vec<_>>();
    running.events.send(Event::Pods(all(Vec::new()))).await.unwrap();
    let first = running.next().await;
    assert_eq!(peers(&first), [""; 0]);
    assert_eq!(*first.mesh.namespaces, [("shop".to_owned(), true)].into());
    let resolutions = running.metrics.resolutions.get();

    let found = Event::Pods(applied("shop", "cart-0", Some(pod("u", "n1", "10.0.0.1"))));
    running.events.send(found).await.unwrap();
    let joined = running.next().await;
    assert_eq!(joined.mesh.nodes["n1"].members.keys().collect::<Vec<_>>(), ["u"]);
    assert!(Arc::ptr_eq(&first.mesh.namespaces, &joined.mesh.namespaces));
    let listed = Event::MeshNodes(applied("mesh", "n1", mesh_node(&[("u", "10.0.0.1")])));
    running.events.send(listed).await.unwrap();
    assert_eq!(peers(&*running.next().await), ["10.0.0.1"]);
    let moved = Event::EndpointSlices(applied("shop", "cart-1", Some(slice("10.0.0.2"))));
    running.events.send(moved).await.unwrap();
    let moved = running.next().await;
    assert_eq!(moved.endpoints.values().next().unwrap().zones[""][0].address, "10.0.0.2");
    running.events.send(Event::Pods(applied("shop", "cart-0", None))).await.unwrap();
    let left = running.next().await;
    assert_eq!(peers(&left), [""; 0]);

    assert_eq!(running.metrics.resolutions.get(), resolutions);
    let edge = ObjectKey::new("shop", "edge");
    assert!(Arc::ptr_eq(&first.gateways[&edge], &left.gateways[&edge]));
    assert!(Arc::ptr_eq(&moved.mesh.services, &left.mesh.services));

    // And the other way round: a route does not look at the mesh.
    running.events.send(route("/b")).await.unwrap();
    let routed = running.next().await;
    assert!(running.metrics.resolutions.get() > resolutions && Arc::ptr_eq(&left.mesh, &routed.mesh));
}

#[test]
fn a_pod_that_is_as_it_was_changes_nothing() {
    let mut store = Store::new(LiveObjects::default());
    let same = || Event::Pods(applied("shop", "cart-0", Some(pod("u", "n1", "10.0.0.1"))));
    assert!(!store.apply(same()).is_empty());
    assert_eq!(store.apply(same()), Change::default());
    let listed = || Event::MeshNodes(applied("mesh", "n1", mesh_node(&[])));
    assert!(!store.apply(listed()).is_empty());
    assert_eq!(store.apply(listed()), Change::default());
}

/// An event of one of the kinds that the mesh is made of. Numbers choose among a few names, None takes the object away.
#[derive(Debug, Clone)]
enum Step {
    Namespace(usize, Option<Option<&'static str>>),
    Pod(usize, Option<(u8, usize)>),
    /// The watch begins anew and has only these, and others that do not decode.
    Pods(Vec<(usize, u8, usize)>, Option<usize>),
    MeshNode(usize, Option<Vec<u8>>),
    Service(usize, bool),
    /// A route, for a Service or gone, with one as backend.
    Route(RouteKind, Option<usize>, usize),
    Slice(usize, Option<(usize, u8)>),
}

fn step() -> impl Strategy<Value = Step> {
    use proptest::option::of;
    let label = || proptest::sample::select(&[None, Some("enabled"), Some("disabled")][..]);
    let kind = proptest::sample::select(&[RouteKind::Http, RouteKind::Grpc, RouteKind::Tcp][..]);
    prop_oneof![
        2 => (0_usize..2, of(label())).prop_map(|(name, label)| Step::Namespace(name, label)),
        4 => (0_usize..4, of((0_u8..6, 0_usize..2))).prop_map(|(name, pod)| Step::Pod(name, pod)),
        1 => (vec((0_usize..4, 0_u8..6, 0_usize..2), 0..4), of(0_usize..4))
            .prop_map(|(pods, undecodable)| Step::Pods(pods, undecodable)),
        4 => (0_usize..2, of(vec(0_u8..6, 0..6))).prop_map(|(node, pods)| Step::MeshNode(node, pods)),
        1 => (0_usize..2, any::<bool>()).prop_map(|(name, is_there)| Step::Service(name, is_there)),
        3 => (kind, of(0_usize..2), 0_usize..2)
            .prop_map(|(kind, parent, backend)| Step::Route(kind, parent, backend)),
        2 => (0_usize..2, of((0_usize..2, 0_u8..3))).prop_map(|(name, slice)| Step::Slice(name, slice)),
    ]
}

const NAMESPACES: [&str; 2] = ["shop", "web"];
const NODES: [&str; 2] = ["n1", "n2"];

fn update<T>(namespace: &str, name: &str, object: Option<T>) -> Update<T> {
    let key = (namespace.to_owned(), name.to_owned());
    match object {
        Some(object) => Update::Applied(key, object),
        None => Update::Deleted(key),
    }
}

/// Uid and address of a pod; no two pods of a cluster have the same uid at a time.
fn incarnation(name: usize, number: u8, node: usize) -> Pod {
    pod(&format!("u-{name}-{number}"), NODES[node], &format!("10.0.0.{number}"))
}

fn event(step: Step) -> Event {
    match step {
        Step::Namespace(index, Some(label)) => namespace(NAMESPACES[index], label),
        Step::Namespace(index, None) => Event::Namespaces(update("", NAMESPACES[index], None)),
        Step::Pod(name, found) => {
            let pod = found.map(|(number, node)| Some(incarnation(name, number, node)));
            Event::Pods(update(NAMESPACES[name % 2], &name.to_string(), pod))
        }
        Step::Pods(found, undecodable) => {
            let key = |name: usize| (NAMESPACES[name % 2].to_owned(), name.to_string());
            let objects: BTreeMap<_, _> = found
                .into_iter()
                .filter(|(name, ..)| Some(*name) != undecodable)
                .map(|(name, number, node)| (key(name), Some(incarnation(name, number, node))))
                .collect();
            let undecodable = undecodable.map(key).into_iter().collect();
            Event::Pods(Update::Replaced { objects: objects.into_iter().collect(), undecodable })
        }
        Step::MeshNode(index, listed) => {
            let all = |number: u8| {
                (0..4).map(move |name| (format!("u-{name}-{number}"), format!("10.0.0.{number}")))
            };
            let node = listed.map(|numbers| {
                let pods: Vec<(String, String)> = numbers.into_iter().flat_map(all).collect();
                mesh_node(
                    &pods.iter().map(|(uid, address)| (uid.as_str(), address.as_str())).collect::<Vec<_>>(),
                )
            });
            Event::MeshNodes(update("mesh", NODES[index], node))
        }
        Step::Service(index, is_there) => {
            let spec =
                json!({"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}]});
            let name = ["cart", "pay"][index];
            let service = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
            Event::Services(update("shop", name, is_there.then(|| convert::service(object(service)))))
        }
        Step::Route(kind, parent, backend) => {
            let services = ["cart", "pay"];
            let found = parent.map(|parent| {
                json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": kind.as_str(),
                    "metadata": {"namespace": "shop", "name": "r"}, "spec": {
                    "parentRefs": [{"group": "", "kind": "Service", "name": services[parent]}],
                    "rules": [{"backendRefs": [{"name": services[backend], "port": 80}]}]}})
            });
            match kind {
                RouteKind::Http => {
                    let found = found.map(|found| seen(convert::http_route(&object(found))));
                    Event::HttpRoutes(update("shop", "r", found))
                }
                RouteKind::Grpc => {
                    let found = found.map(|found| seen(convert::grpc_route(&object(found))));
                    Event::GrpcRoutes(update("shop", "r", found))
                }
                RouteKind::Tcp => {
                    let found = found.map(|found| seen(convert::tcp_route(&object(found))));
                    Event::TcpRoutes(update("shop", "r", found))
                }
            }
        }
        Step::Slice(index, found) => {
            let slice = found.map(|(service, number)| {
                let service = ObjectKey::new("shop", ["cart", "pay"][service]);
                Some(EndpointSlice { service, ..slice(&format!("10.0.0.{number}")) })
            });
            Event::EndpointSlices(update("shop", &format!("s-{index}"), slice))
        }
    }
}

#[test]
fn what_proxies_refuse_of_policies_touches_the_pods_that_it_is_about() {
    use meshwright_core::mesh::Touched;
    use meshwright_core::model::{ObjectId, ObjectKind};

    let mut store = Store::new(LiveObjects::default());
    for (uid, node) in [("u1", "n1"), ("u2", "n1"), ("u3", "n2")] {
        store.apply(Event::Pods(applied("shop", uid, Some(pod(uid, node, "10.0.0.1")))));
    }
    let mut refuse = |all: &[(ObjectKind, &str)]| {
        let object =
            |(kind, name): &(ObjectKind, &str)| ObjectId { kind: *kind, key: ObjectKey::new("", *name) };
        let all = all.iter().map(|one| (object(one), "no".to_owned())).collect();
        store.apply(Event::Rejections(all)).mesh
    };
    let touched = |all: &[(&str, &str)]| {
        let mut touched = Touched::default();
        for (uid, node) in all {
            touched.pod(ObjectKey::new("shop", *uid), [Some(&pod(uid, node, ""))]);
        }
        touched
    };
    let both = [("u1", "n1"), ("u2", "n1")];
    assert_eq!(refuse(&[(ObjectKind::Pod, "u3")]), touched(&[("u3", "n2")]));
    assert_eq!(refuse(&[(ObjectKind::Pod, "u3"), (ObjectKind::Node, "n1")]), touched(&both));
    assert_eq!(refuse(&[(ObjectKind::Pod, "u3")]), touched(&both), "not any more");
    assert_eq!(refuse(&[(ObjectKind::Pod, "u3"), (ObjectKind::Gateway, "u1")]), Touched::default());
}

proptest! {
    #[test]
    fn whatever_happens_is_told_to_the_mesh(steps in vec((step(), any::<bool>()), 1..40)) {
        let mut store = Store::new(LiveObjects::default());
        let mut resolver = MeshResolver::new(Rules::default(), "cluster.local");
        let mut gateways = Resolver::new(ControllerConfig::default());
        let mut change = Change::default();
        for (step, is_last_of_its_change) in steps {
            change.merge(store.apply(event(step)));
            if is_last_of_its_change {
                let routes = gateways.resolve(&store.world).services;
                let mesh: Arc<Mesh> = resolver.resolve(&store.world, &std::mem::take(&mut change).mesh, &routes);
                prop_assert_eq!(&mesh, &resolve(&store.world, &Rules::default(), "cluster.local", &routes));
            }
        }
    }
}
