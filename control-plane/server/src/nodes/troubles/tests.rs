//! Against an API server that takes Events.

use std::convert::Infallible;

use http::{Request, Response};
use kube::client::Body;
use kube::runtime::events::Reporter;
use meshwright_core::ObjectKey;
use meshwright_core::mesh::{Mesh, Outside, Refused};
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::tests::{mesh, report};
use super::*;

#[tokio::test(start_paused = true)]
async fn an_event_on_the_pod_names_the_remedy_once() {
    let (sender, mut events) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let bytes = request.into_body().collect_bytes().await.unwrap();
            sender.send(serde_json::from_slice::<Value>(&bytes).unwrap()).unwrap();
            Ok::<_, Infallible>(Response::new(Body::from(bytes)))
        }
    });
    let reporter = Reporter { controller: "test".to_owned(), instance: Some("cp-0".to_owned()) };
    let recorder = Recorder::new(kube::Client::new(service, "mesh-ns"), reporter);
    let mut mesh: Mesh = mesh(&[("n1", "u1", "10.0.0.1"), ("n2", "u2", "10.0.0.2")], Some(("mesh-1", 3)));
    for name in ["n1", "n2"] {
        let node = Arc::make_mut(mesh.nodes.get_mut(name).unwrap());
        let refused = Refused { pod: ObjectKey::new("shop", name), why: Outside::HostNetwork };
        node.refused.insert(format!("of-{name}"), refused);
    }
    let output = Output { mesh: Arc::new(mesh), ..Output::default() };
    let outputs = watch::channel(Some(Arc::new(output))).1;
    let (followers, drain) = (Followers::default(), CancellationToken::new());
    let agent = followers.opened("n1");
    let awaiting = [("u1".to_owned(), "envoy does not listen in it yet".to_owned())].into();
    agent.reported(NodeReport { awaiting, ..report(3, &[]) });
    let running = tokio::spawn(Troubles::new(recorder, followers, outputs).run(drain.clone()));

    let said = |event: &Value| {
        let text = |path: &str| event.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        [text("/regarding/uid"), text("/reason"), text("/note")]
    };
    let first = events.recv().await.unwrap();
    let [uid, reason, note] = said(&first);
    assert_eq!((uid.as_str(), reason.as_str()), ("of-n1", "NotInMesh"), "and not the other node's");
    assert!(note.ends_with("take hostNetwork off its template"), "{note}");
    assert_eq!(first["metadata"]["namespace"], "shop");
    let start = Instant::now();
    let expected = ["u1", "AwaitingMesh", "not in the mesh yet: envoy does not listen in it yet"];
    assert_eq!(said(&events.recv().await.unwrap()), expected);
    assert!(start.elapsed() >= Duration::from_secs(25), "{:?}", start.elapsed());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(events.try_recv().is_err(), "nothing is repeated");
    drain.cancel();
    running.await.unwrap();
}
