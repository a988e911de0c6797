use super::*;
use crate::stats::slot;

/// What Envoy 1.40 answered after requests of each kind, with all of what must not be counted.
const ANSWER: &str = include_str!("envoy-1.40.json");

#[test]
fn every_kind_of_request_is_counted_once() {
    let reading = Reading::parse(ANSWER.as_bytes()).unwrap();
    let slot = slot::between(&Reading::default(), &reading, 1000);
    let expected = Slot {
        start: 1000,
        informational: 0,
        success: 5,
        redirection: 1,
        client_error: 2,
        server_error: 5,
        upstream_connection_failure: 3,
        no_route: 1,
        no_healthy_upstream: 1,
        retry_limit_exceeded: 0,
        upstream_overflow: 0,
        tls_failures: 4,
        connections: 16,
        latency: [(0, 7), (5, 1), (10, 1), (11, 1), (15, 1), (26, 1), (35, 1)].into(),
    };
    assert_eq!(slot, expected);
    assert_eq!((reading.traffic.connections, reading.traffic.active_requests), (0, 0));
}

#[test]
fn envoys_own_traffic_and_parts_of_sums_are_nobodys() {
    let foreign = [
        "http.admin.downstream_rq_2xx",
        "http.async-client.no_route",
        "http.shop/front/80.passthrough_internal_redirect_no_route",
        "listener.admin.downstream_cx_total",
        "listener.admin.main_thread.downstream_cx_total",
        "listener.shop/front/80.worker_0.downstream_cx_total",
        "listener.shop/front/80.http.shop/front/80.downstream_rq_2xx",
        "cluster.xds.upstream_cx_connect_fail",
        "cluster.outbound|80|web.shop.upstream_cx_connect_timeout",
        "server.live",
        "",
    ];
    for name in foreign {
        assert!(field(name).is_none(), "{name} is counted");
    }
    assert!(field("cluster.xds.shop.upstream_cx_connect_fail").is_some(), "that is another one");
    assert!(field("listener.0.0.0.0_80.downstream_cx_total").is_some());
}

#[test]
fn the_filter_lets_through_what_is_counted_and_is_a_valid_query() {
    let path = path();
    assert!(SERIES.iter().all(|series| path.contains(&series.name.replace('.', "%5C."))));
    assert!(path.is_ascii() && !path.contains(['^', '|', '\\', '$', ' ', '(']), "{path}");
}

#[test]
fn what_is_unknown_is_left_out_and_what_is_broken_is_an_error() {
    let odd = r#"{"stats": [{"name": "cluster.a.note", "value": "text"}, {"new": []}, 7, {"histograms": {}},
                  {"name": "http.a.downstream_rq_2xx", "value": 2}]}"#;
    let reading = Reading::parse(odd.as_bytes()).unwrap();
    assert_eq!(reading.counters.len(), 1);
    // Half an answer would look as if counters were gone, and the next whole one as if they were new.
    assert!(Reading::parse(&ANSWER.as_bytes()[..ANSWER.len() / 2]).is_err());
    assert!(Reading::parse(b"").is_err());
}
