//! What the operator is told, and that nobody else is.

use meshwright_proto::inspection::inspection_service_client::InspectionServiceClient;
use meshwright_proto::inspection::{
    ObservePairsRequest, ObserveRequest, ObserveResponse, ObservedNode, RenderRequest, RenderedGateway, part,
};

use super::reports::{PROXY, report, send};
use super::*;
use crate::snapshots::Translator;
use crate::snapshots::tests::output;

async fn client(running: &Running) -> InspectionServiceClient<Channel> {
    InspectionServiceClient::new(running.connect(Some(OPERATOR)).await)
}

pub(super) async fn observe(running: &Running, since: i64) -> ObserveResponse {
    client(running).await.observe(ObserveRequest { since }).await.unwrap().into_inner()
}

pub(super) async fn observe_pairs(running: &Running, node: &str) -> Vec<ObservedNode> {
    let request = ObservePairsRequest { since: 0, nodes: vec![node.to_owned()] };
    client(running).await.observe_pairs(request).await.unwrap().into_inner().nodes
}

async fn render(running: &Running) -> Result<Vec<RenderedGateway>, Status> {
    Ok(client(running).await.render(RenderRequest {}).await?.into_inner().gateways)
}

/// What makes the snapshots, as in the process.
fn translator(running: &Running) -> Translator {
    let nacks = Nacks::new(running.registry.clone());
    Translator::new(running.registry.clone(), nacks, running.metrics.clone())
}

/// Time goes on, for everybody but the network.
async fn wait(seconds: u64) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(seconds)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn only_the_operator_is_answered() {
    let known = start().await;
    let unknown = start_with(&[]).await;
    for (running, account, code) in [
        (&known, None, Code::Unauthenticated),
        (&known, Some(PROXY), Code::PermissionDenied),
        (&known, Some(("mesh-ns", "meshwright-operator")), Code::PermissionDenied),
        (&known, Some(("meshwright-system", "default")), Code::PermissionDenied),
        (&unknown, Some(OPERATOR), Code::PermissionDenied),
        (&unknown, None, Code::Unauthenticated),
    ] {
        let mut client = InspectionServiceClient::new(running.connect(account).await);
        assert_eq!(client.observe(ObserveRequest::default()).await.unwrap_err().code(), code, "{account:?}");
        let pairs = client.observe_pairs(ObservePairsRequest::default()).await;
        assert_eq!(pairs.unwrap_err().code(), code, "{account:?}");
        assert_eq!(client.render(RenderRequest {}).await.unwrap_err().code(), code, "{account:?}");
    }
    assert!(client(&known).await.observe(ObserveRequest::default()).await.is_ok());
}

#[tokio::test]
async fn the_operator_sees_what_proxies_reported_and_who_listens() {
    let running = start().await;
    let begun = Timestamp::now().as_second();
    let sent = report();
    send(&running, Some(PROXY), sent.clone()).await.unwrap();
    let start = sent.slots[0].start;
    let seen = observe(&running, start).await;
    assert_eq!((&seen.proxies[0].proxy, &seen.proxies[0].slots), (&sent.proxy, &sent.slots));
    assert!(seen.proxies[0].last_report >= begun);
    assert!(observe(&running, start + 5).await.proxies[0].slots.is_empty());
    let health = seen.health.unwrap();
    assert!((begun - 60..=begun + 60).contains(&health.started) && health.resident_bytes > 0);
    assert_eq!((health.streams.len(), health.streams_opened), (0, 0));

    let first = running.stream(Some(PROXY), "edge").await.unwrap();
    let second = running.stream(Some(PROXY), "edge").await.unwrap();
    let health = observe(&running, 0).await.health.unwrap();
    assert_eq!(health.streams, ["shop/edge-1"], "one pod, however many streams");
    assert_eq!(health.streams_opened, 2);
    drop((first, second));
    let mut left = 100;
    while !observe(&running, 0).await.health.unwrap().streams.is_empty() {
        left -= 1;
        assert!(left > 0, "the streams are closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn every_gateway_is_rendered_though_no_proxy_is_there_and_not_before_all_are_known() {
    let running = start().await;
    assert_eq!(render(&running).await.unwrap_err().code(), Code::Unavailable, "nothing was listed yet");
    let mut translator = translator(&running);
    translator.publish(Arc::new(output(&["a", "b"], &[], "10.0.0.1")));
    assert_eq!(render(&running).await.unwrap_err().code(), Code::Unavailable, "Secrets may be on their way");
    wait(13).await;
    let gateways = render(&running).await.unwrap();
    assert_eq!(gateways.len(), 1);
    assert_eq!((gateways[0].namespace.as_str(), gateways[0].name.as_str()), ("shop", "edge"));
    let parts = gateways[0].parts.iter().map(|part| (part.kind(), part.name.as_str()));
    let expected = [
        (part::Kind::Listener, "shop/edge/80"),
        (part::Kind::Route, "shop/edge/80 *"),
        (part::Kind::Route, "shop/edge/80 * PathPrefix /"),
        (part::Kind::Route, "shop/edge/80 * PathPrefix / #2"),
        (part::Kind::Cluster, "outbound|80|a.shop"),
        (part::Kind::Cluster, "outbound|80|b.shop"),
    ];
    assert_eq!(parts.collect::<Vec<_>>(), expected);

    // A stream keeps what its proxy has; the Gateway is gone all the same.
    let _stream = running.stream(Some(PROXY), "edge").await.unwrap();
    translator.publish(Arc::default());
    assert_eq!(render(&running).await.unwrap(), []);
}
