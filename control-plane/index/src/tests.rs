//! From updates to publications, without a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use meshwright_core::config::ClusterRef;
use meshwright_core::mesh::{MeshResolver, Rules};
use meshwright_core::model::{EndpointSlice, PrivateKey, SecretState, TlsCertificate};
use meshwright_core::status::Statuses;
use meshwright_core::{ControllerConfig, ObjectKey, Resolver};
use meshwright_k8s::Update;
use meshwright_runtime::CancellationToken;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

mod mesh;

use crate::event::{Event, Seen};
use crate::live::{Live, LiveObjects};
use crate::output::Output;
use crate::store::Store;
use crate::{MeshSetup, Setup, convert, metrics, patience, secrets, sources, task};

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn seen<M, S>(model: M) -> Seen<M, S> {
    Seen { model, live: Live { uid: "u".into(), resource_version: "1".into(), status: None } }
}

fn all<T>(objects: Vec<(&str, &str, T)>) -> Update<T> {
    let objects = objects.into_iter().map(|(ns, name, object)| ((ns.to_owned(), name.to_owned()), object));
    Update::Replaced { objects: objects.collect(), undecodable: Vec::new() }
}

fn route(path: &str) -> Event {
    let route = convert::http_route(&object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "shop", "name": "cart", "generation": 1},
        "spec": {"parentRefs": [{"name": "edge"}], "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": "cart", "port": 80}]}]},
    })));
    Event::HttpRoutes(Update::Applied(("shop".into(), "cart".into()), seen(route)))
}

fn slice(address: &str) -> EndpointSlice {
    convert::endpoint_slice(object(json!({
        "metadata": {"namespace": "shop", "name": "cart-1", "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address]}],
    })))
    .unwrap()
}

fn world() -> Vec<Event> {
    let service = convert::service(object(json!({
        "metadata": {"namespace": "shop", "name": "cart"}, "spec": {"ports": [{"port": 80}]},
    })));
    let class = convert::gateway_class(&object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "meshwright"},
        "spec": {"controllerName": "meshwright.io/gateway-controller"},
    })));
    let gateway = convert::gateway(&object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "shop", "name": "edge"},
        "spec": {"gatewayClassName": "meshwright", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    })));
    vec![
        Event::Services(all(vec![("shop", "cart", service)])),
        Event::EndpointSlices(all(vec![("shop", "cart-1", Some(slice("10.0.0.1")))])),
        Event::GatewayClasses(all(vec![("", "meshwright", seen(class))])),
        Event::Gateways(all(vec![("shop", "edge", seen(gateway))])),
        Event::BundleVersion(Some("v1.7.0".to_owned())),
    ]
}

struct Running {
    events: mpsc::Sender<Event>,
    output: watch::Receiver<Option<Arc<Output>>>,
    statuses: watch::Receiver<Option<Arc<Statuses>>>,
    metrics: metrics::Metrics,
    _drain: meshwright_runtime::CancellationToken,
}

/// An API server that never answers.
fn silent() -> kube::Client {
    let pending = |_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>()
    };
    kube::Client::new(tower::service_fn(pending), "ns")
}

fn start(awaited: &[&'static str]) -> Running {
    let (events, receiver) = mpsc::channel(64);
    let (output, output_receiver) = watch::channel(None);
    let (statuses, statuses_receiver) = watch::channel(None);
    let drain = CancellationToken::new();
    let client = silent();
    let readiness = meshwright_runtime::Readiness::default();
    let metrics = metrics::Metrics::register(&mut prometheus_client::registry::Registry::default());
    let task = task::Task {
        store: Store::new(LiveObjects::default()),
        resolver: Resolver::new(ControllerConfig::default()),
        mesh: MeshResolver::new(Rules::default(), "cluster.local"),
        routes: Arc::default(),
        metrics: metrics.clone(),
        awaited: awaited.iter().map(|what| (*what, readiness.guard(*what))).collect::<BTreeMap<_, _>>(),
        secrets: secrets::SecretWatches::new(client, events.clone(), drain.clone()),
        patience: patience::Patience::default(),
        output,
        statuses,
    };
    tokio::spawn(task.run(receiver, drain.clone()));
    Running { events, output: output_receiver, statuses: statuses_receiver, metrics, _drain: drain }
}

impl Running {
    async fn next(&mut self) -> Arc<Output> {
        let wait = tokio::time::timeout(std::time::Duration::from_secs(5), self.output.changed());
        wait.await.unwrap().unwrap();
        self.output.borrow_and_update().clone().unwrap()
    }
}

/// Of a control plane with a mesh or without.
fn setup(has_mesh: bool) -> Setup {
    let client = silent();
    let reporter = kube::runtime::events::Reporter { controller: "test".to_owned(), instance: None };
    let mesh = || MeshSetup {
        namespace: "mesh".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        rules: Rules::default(),
    };
    Setup {
        recorder: kube::runtime::events::Recorder::new(client.clone(), reporter),
        client,
        controller: ControllerConfig::default(),
        mesh: has_mesh.then(mesh),
        readiness: meshwright_runtime::Readiness::default(),
        metrics: metrics::Metrics::register(&mut prometheus_client::registry::Registry::default()),
    }
}

#[tokio::test]
async fn what_only_a_mesh_needs_is_not_waited_for_without_one() {
    let awaited = |setup: &Setup| {
        let (events, _receiver) = mpsc::channel(1);
        let drain = CancellationToken::new();
        let all = sources::spawn(setup, &events, &mut tokio::task::JoinSet::new(), &drain);
        all.into_keys().collect::<std::collections::BTreeSet<_>>()
    };
    let (with, without) = (awaited(&setup(true)), awaited(&setup(false)));
    let mesh_only: Vec<_> = with.difference(&without).copied().collect();
    assert_eq!(
        mesh_only,
        ["authorizationpolicies", "grpcroutes", "meshnodes", "meshtlspolicies", "pods", "tcproutes"]
    );
    assert!(without.contains("httproutes") && without.is_subset(&with));
    assert_eq!([true, false].map(|has_mesh| setup(has_mesh).controller().has_mesh), [true, false]);
}

#[tokio::test]
async fn nothing_is_published_before_every_kind_was_listed() {
    let mut running = start(&["services", "httproutes"]);
    for event in world() {
        running.events.send(event).await.unwrap();
    }
    running.events.send(route("/a")).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    assert!(running.output.borrow().is_none());
    running.events.send(Event::HttpRoutes(all(Vec::new()))).await.unwrap();
    running.next().await;
}

#[tokio::test]
async fn a_slice_changes_endpoints_and_nothing_else() {
    let mut running = start(&[]);
    for event in world() {
        running.events.send(event).await.unwrap();
    }
    running.events.send(route("/a")).await.unwrap();
    let edge = ObjectKey::new("shop", "edge");
    let mut before = running.next().await;
    while before.endpoints.is_empty() {
        before = running.next().await;
    }
    let update = Update::Applied(("shop".into(), "cart-1".into()), Some(slice("10.0.0.2")));
    running.events.send(Event::EndpointSlices(update)).await.unwrap();
    let after = running.next().await;
    assert!(Arc::ptr_eq(&before.gateways[&edge], &after.gateways[&edge]));
    let endpoint = |output: &Output| output.endpoints.values().next().unwrap().zones[""][0].address.clone();
    assert_eq!((endpoint(&before).as_str(), endpoint(&after).as_str()), ("10.0.0.1", "10.0.0.2"));

    running.events.send(route("/b")).await.unwrap();
    let routed = running.next().await;
    assert!(!Arc::ptr_eq(&after.gateways[&edge], &routed.gateways[&edge]));
    assert!(Arc::ptr_eq(after.endpoints.values().next().unwrap(), routed.endpoints.values().next().unwrap()));
}

#[tokio::test(start_paused = true)]
async fn endpoints_and_routes_of_a_gateway_that_is_not_accepted_go_on() {
    let gateway = convert::gateway(&object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "shop", "name": "edge"},
        "spec": {"gatewayClassName": "meshwright", "allowedListeners": {"namespaces": {"from": "All"}},
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    })));
    // From the start, as after a restart, and from one moment to the next.
    for is_late in [false, true] {
        let mut running = start(&[]);
        let rejected = Event::Gateways(all(vec![("shop", "edge", seen(gateway.clone()))]));
        let (early, late) = if is_late { (None, Some(rejected)) } else { (Some(rejected), None) };
        let moved = Update::Applied(("shop".into(), "cart-1".into()), Some(slice("10.0.0.2")));
        let events = world().into_iter().chain(early).chain([route("/a")]).chain(late);
        for event in events.chain([Event::EndpointSlices(moved), route("/b")]) {
            running.events.send(event).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let output = running.next().await;
        let entry = output.gateways[&ObjectKey::new("shop", "edge")].config.entries().next().unwrap();
        assert_eq!(entry.matches.path, meshwright_core::model::PathMatch::Prefix("/b".to_owned()));
        assert_eq!(output.endpoints.values().next().unwrap().zones[""][0].address, "10.0.0.2");
    }
}

#[test]
fn a_slice_that_moves_to_another_service_leaves_the_first() {
    let mut store = Store::new(LiveObjects::default());
    let key = ("shop".to_owned(), "cart-1".to_owned());
    store.apply(Event::EndpointSlices(Update::Applied(key.clone(), Some(slice("10.0.0.1")))));
    let mut moved = slice("10.0.0.1");
    moved.service = ObjectKey::new("shop", "other");
    let change = store.apply(Event::EndpointSlices(Update::Applied(key.clone(), Some(moved))));
    assert!(!change.structural);
    assert_eq!(change.endpoints.len(), 2);
    assert_eq!(store.world.endpoint_slices.keys().collect::<Vec<_>>(), [&ObjectKey::new("shop", "other")]);
    store.apply(Event::EndpointSlices(Update::Deleted(key)));
    assert!(store.world.endpoint_slices.is_empty());
}

#[test]
fn an_update_of_the_status_alone_changes_nothing() {
    let mut store = Store::new(LiveObjects::default());
    assert!(store.apply(route("/a")).structural);
    assert!(store.apply(route("/a")).is_empty());
    // An object that no longer decodes keeps what was known of it; one that is gone does not.
    let key = ("shop".to_owned(), "cart".to_owned());
    let kept = Update::Replaced { objects: Vec::new(), undecodable: vec![key] };
    assert!(store.apply(Event::HttpRoutes(kept)).is_empty());
    assert!(store.apply(Event::HttpRoutes(all(Vec::new()))).structural);
}

fn https_gateway(secret: &str) -> Event {
    let gateway = convert::gateway(&object(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"namespace": "shop", "name": "edge"},
        "spec": {"gatewayClassName": "meshwright", "listeners": [{"name": "https", "port": 443,
            "protocol": "HTTPS", "tls": {"certificateRefs": [{"name": secret}]}}]},
    })));
    Event::Gateways(all(vec![("shop", "edge", seen(gateway))]))
}

fn secret(name: &str, state: SecretState) -> Event {
    Event::Secret(ObjectKey::new("shop", name), state)
}

fn good() -> SecretState {
    SecretState::Ok(TlsCertificate {
        certificate_chain: b"crt"[..].into(),
        private_key: PrivateKey(b"key"[..].into()),
    })
}

#[tokio::test(start_paused = true)]
async fn a_gateway_keeps_what_it_had_until_its_secrets_were_read() {
    let pause = || tokio::time::sleep(std::time::Duration::from_secs(1));
    let edge = ObjectKey::new("shop", "edge");
    let mut running = start(&[]);
    let certificates = |running: &Running| {
        let output = running.output.borrow().clone().unwrap();
        output.gateways.get(&edge).map(|gateway| gateway.certificates.keys().cloned().collect::<Vec<_>>())
    };
    let has_status = |running: &Running| {
        running.statuses.borrow().as_ref().is_some_and(|all| all.gateways.contains_key(&edge))
    };
    let events = world().into_iter().filter(|event| !matches!(event, Event::Gateways(_)));
    for event in events.chain([https_gateway("a")]) {
        running.events.send(event).await.unwrap();
    }
    running.next().await;
    pause().await;
    assert_eq!((certificates(&running), has_status(&running)), (None, false), "nothing is said of it yet");

    running.events.send(secret("a", good())).await.unwrap();
    pause().await;
    assert_eq!(certificates(&running), Some(vec![ObjectKey::new("shop", "a")]));
    assert!(has_status(&running));
    running.events.send(secret("a", SecretState::Unreadable("no".to_owned()))).await.unwrap();
    running.events.send(https_gateway("b")).await.unwrap();
    pause().await;
    assert_eq!(certificates(&running), Some(vec![ObjectKey::new("shop", "a")]), "b was not read yet");
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!(certificates(&running), Some(Vec::new()), "patience has an end");
    running.events.send(secret("b", good())).await.unwrap();
    pause().await;
    assert_eq!(certificates(&running), Some(vec![ObjectKey::new("shop", "b")]));
    running.events.send(secret("b", SecretState::Missing)).await.unwrap();
    pause().await;
    assert_eq!(certificates(&running), Some(Vec::new()), "what is known is said at once");
}

#[tokio::test]
async fn clusters_that_are_kept_have_endpoints_without_any_route() {
    let mut running = start(&[]);
    for event in world() {
        running.events.send(event).await.unwrap();
    }
    running.next().await;
    let cluster = ClusterRef {
        service: ObjectKey::new("shop", "cart"),
        port: 80,
        protocol: meshwright_core::config::BackendProtocol::Http1,
    };
    running.events.send(Event::Kept([cluster.clone()].into())).await.unwrap();
    let mut output = running.next().await;
    while !output.endpoints.contains_key(&cluster) {
        output = running.next().await;
    }
    let update = Update::Applied(("shop".into(), "cart-1".into()), Some(slice("10.0.0.2")));
    running.events.send(Event::EndpointSlices(update)).await.unwrap();
    assert_eq!(running.next().await.endpoints[&cluster].zones[""][0].address, "10.0.0.2");
    running.events.send(Event::Kept(BTreeSet::new())).await.unwrap();
    running.events.send(route("/a")).await.unwrap();
    running.next().await;
}
