//! Who may report, and what of it is kept.

use meshwright_proto::reports::report_service_client::ReportServiceClient;
use meshwright_proto::reports::{NodeProxy, NodeReportRequest, Pair, PairSlot, Proxy, ReportRequest, Slot};

use super::*;
use crate::metrics::counted;

pub(super) const PROXY: (&str, &str) = ("shop", "edge-meshwright");

pub(super) fn report() -> ReportRequest {
    let start = Timestamp::now().as_second() / 5 * 5;
    let proxy = Proxy {
        pod_name: "edge-1".to_owned(),
        pod_namespace: "shop".to_owned(),
        gateway_name: "edge".to_owned(),
        gateway_namespace: "shop".to_owned(),
        revision: "mesh-1".to_owned(),
        instance: "i1".to_owned(),
        ..Proxy::default()
    };
    ReportRequest { proxy: Some(proxy), slots: vec![Slot { start, success: 7, ..Slot::default() }] }
}

pub(super) async fn send(
    running: &Running,
    account: Option<(&str, &str)>,
    report: ReportRequest,
) -> Result<(), Status> {
    let mut client = ReportServiceClient::new(running.connect(account).await);
    client.report(report).await.map(drop)
}

#[tokio::test]
async fn a_proxy_reports_for_itself_and_for_nobody_else() {
    let running = start().await;
    send(&running, Some(PROXY), report()).await.unwrap();
    let changed = |change: fn(&mut Proxy)| {
        let mut report = report();
        report.proxy.as_mut().into_iter().for_each(change);
        report
    };
    let other_gateway = changed(|proxy| proxy.gateway_name = "other".to_owned());
    let other_namespace = changed(|proxy| proxy.gateway_namespace = "elsewhere".to_owned());
    let other_pod = changed(|proxy| proxy.pod_namespace = "elsewhere".to_owned());
    let no_name = changed(|proxy| proxy.pod_name = "a b".to_owned());
    let mut large = report();
    let full = Slot { latency: (0..90).map(|bucket| (bucket, u64::MAX)).collect(), ..Slot::default() };
    large.slots = vec![full; 1000];
    let mut long = report();
    long.slots = vec![long.slots[0].clone(); 721];
    let cases = [
        (None, report(), Code::Unauthenticated),
        (Some(("shop", "default")), report(), Code::PermissionDenied),
        (Some(("elsewhere", "edge-meshwright")), report(), Code::PermissionDenied),
        (Some(OPERATOR), report(), Code::PermissionDenied),
        (Some(PROXY), other_gateway, Code::PermissionDenied),
        (Some(PROXY), other_namespace, Code::PermissionDenied),
        (Some(PROXY), other_pod, Code::PermissionDenied),
        (Some(PROXY), no_name, Code::InvalidArgument),
        (Some(PROXY), ReportRequest::default(), Code::InvalidArgument),
        (Some(PROXY), long, Code::InvalidArgument),
    ];
    let refused = cases.len();
    for (account, report, code) in cases {
        let error = send(&running, account, report).await.unwrap_err();
        assert_eq!(error.code(), code, "{account:?}: {error}");
    }
    assert_eq!(send(&running, Some(PROXY), large).await.unwrap_err().code(), Code::OutOfRange);
    let reports = |outcome| usize::try_from(counted(&running.metrics.reports, outcome)).unwrap();
    assert_eq!((reports("taken"), reports("refused")), (1, refused));
    assert_eq!(running.metrics.reporting_proxies.get(), 1);
}

#[tokio::test]
async fn an_agent_reports_for_its_own_node_and_the_operator_is_told() {
    let running = start().await;
    let start = Timestamp::now().as_second() / 30 * 30;
    let report = |node: &str, revision: &str| {
        let pair = Pair {
            source_workload: "front".to_owned(),
            slots: vec![PairSlot { start, requests: 7, ..PairSlot::default() }],
            ..Pair::default()
        };
        let proxy = NodeProxy {
            node: node.to_owned(),
            revision: revision.to_owned(),
            pod_name: "mesh-1-node-x".to_owned(),
            instance: "i1".to_owned(),
            ..NodeProxy::default()
        };
        NodeReportRequest { proxy: Some(proxy), pairs: vec![pair] }
    };
    let agent = |revision: &str, node: &str| {
        Some(format!("spiffe://cluster.local/ns/mesh-ns/sa/{revision}-node/node/{node}").parse().unwrap())
    };
    let gateway = SpiffeId::workload("cluster.local", PROXY.0, PROXY.1).unwrap();
    let ours = || report("n1", "mesh-1");
    let cases = [
        (agent("mesh-1", "n1"), ours(), None),
        (None, ours(), Some(Code::Unauthenticated)),
        (Some(gateway), ours(), Some(Code::PermissionDenied)),
        (agent("mesh-1", "n2"), ours(), Some(Code::PermissionDenied)),
        (agent("mesh-0", "n1"), ours(), Some(Code::PermissionDenied)),
        (agent("mesh-1", "n1"), report("n1", "mesh-0"), Some(Code::PermissionDenied)),
        (agent("mesh-1", "n1"), NodeReportRequest::default(), Some(Code::InvalidArgument)),
    ];
    for (who, report, expected) in cases {
        let mut client = ReportServiceClient::new(running.connect_as(who.clone()).await);
        let answer = client.report_node(report).await;
        assert_eq!(answer.err().map(|status| status.code()), expected, "{who:?}");
    }
    assert_eq!(running.metrics.nodes.reporting.get(), 1);
    let observed = inspection::observe(&running, 0).await;
    assert!(observed.proxies.is_empty());
    let nodes = inspection::observe_pairs(&running, "n1").await;
    assert_eq!(nodes[0].proxy.as_ref().unwrap().node, "n1");
    assert_eq!(nodes[0].pairs[0].slots[0].requests, 7);
    assert_eq!(inspection::observe_pairs(&running, "n2").await, []);
}
