//! From Envoy's answers to what Prometheus and the control plane get.

use meshwright_proto::reports::Pair;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

fn reading(counts: &[(&str, u64)], times: &[(&str, &[(f64, u64)])]) -> Reading {
    let numbers = counts.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let details = times.iter().map(|(name, bins)| {
        let bins =
            bins.iter().map(|(bound, count)| json!({"lower_bound": bound, "width": 1.0, "count": count}));
        json!({"name": name, "totals": bins.collect::<Vec<_>>(), "intervals": []})
    });
    let histograms =
        json!({"histograms": {"supported_percentiles": [], "details": details.collect::<Vec<_>>()}});
    let all: Vec<Value> = numbers.chain([histograms]).collect();
    Reading::parse(json!({ "stats": all }).to_string().as_bytes()).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(NOW + second).unwrap()
}

fn requests(source: &str, service: &str, rest: &str) -> String {
    format!("mesh.requests.by.shop,{source},sa;outbound|80|{service}|shop;shop,{service},sa;HTTP/1.1;{rest}")
}

/// Service, start of the slot, and requests.
fn brief(pairs: &[Pair]) -> Vec<(&str, i64, u64)> {
    let slots = pairs.iter().flat_map(|pair| {
        pair.slots.iter().map(|slot| (pair.destination_service.as_str(), slot.start - NOW, slot.requests))
    });
    slots.collect()
}

#[test]
fn what_grows_is_told_and_what_began_anew_counts_in_full() {
    let mut traffic = Traffic::default();
    let web = requests("front", "web", "200;-;-");
    let take = |traffic: &mut Traffic, count, restarts, second| {
        traffic.take(reading(&[(&web, count)], &[]), restarts, at(second));
    };
    take(&mut traffic, 10, 0, 5);
    assert_eq!(brief(&traffic.pairs.since(None)), [], "who knows when that was");
    take(&mut traffic, 12, 0, 10);
    take(&mut traffic, 12, 0, 35);
    take(&mut traffic, 4, 0, 40);
    assert_eq!(brief(&traffic.pairs.since(None)), [("web", 0, 2), ("web", 30, 4)]);
    take(&mut traffic, 5, 1, 45);
    assert_eq!(brief(&traffic.pairs.since(Some(NOW + 30))), [("web", 30, 9)], "another Envoy");
    assert!(traffic.table.text().contains("} 21\n"), "{}", traffic.table.text());
}

#[test]
fn a_request_counts_once_by_its_flags_and_an_application_may_fail() {
    let mut traffic = Traffic::default();
    traffic.take(Reading::default(), 0, at(0));
    let all = [
        (requests("front", "web", "200;-;-"), 5),
        (requests("front", "web", "500;-;-"), 1),
        (requests("front", "web", "200;14;-"), 1),
        (requests("front", "web", "503;-;UF,URX"), 2),
        (requests("front", "web", "0;-;DC"), 3),
        (requests("front", "web", "200;14;UC"), 4),
        ("mesh.unreached.by.shop,front,sa;outbound|80|web|shop;shop,web,sa;TCP".to_owned(), 2),
        ("mesh.handshakes_failed.by.shop,front,sa;outbound|80|web|shop;shop,web,sa;TCP".to_owned(), 1),
        ("mesh.closed.by.shop,front,sa;outbound|80|web|shop;-;TCP;-;-;UH".to_owned(), 1),
        ("mesh.closed.by.shop,front,sa;outbound|80|web|shop;-;TCP;-;-;-".to_owned(), 6),
        ("mesh.accepted.by.spiffe://td/ns/shop/sa/front;-;spiffe://td/ns/shop/sa/x;TCP;-;-;-".to_owned(), 6),
    ];
    let all: Vec<_> = all.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let times = "mesh.duration.by.shop,front,sa;outbound|80|web|shop;shop,web,sa;HTTP";
    traffic.take(reading(&all, &[(times, &[(0.0, 9), (20.0, 7)])]), 0, at(5));
    let pairs = traffic.pairs.since(None);
    assert_eq!(pairs.len(), 1);
    let slot = &pairs[0].slots[0];
    assert_eq!((slot.requests, slot.failed, slot.server_error), (16, 6, 2));
    assert_eq!(
        (slot.upstream_connection_failure, slot.retry_limit_exceeded, slot.upstream_termination),
        (2, 2, 4)
    );
    assert_eq!((slot.connections, slot.connections_failed, slot.tls_failures), (7, 3, 1));
    assert_eq!(slot.latency, [(0, 9), (slot::bucket(20.5), 7)].into());
}

#[test]
fn more_pairs_than_may_be_told_are_one_until_they_become_busy() {
    let mut traffic = Traffic::default();
    traffic.take(Reading::default(), 0, at(0));
    let names: Vec<_> =
        (0..60).map(|number| requests("front", &format!("s{number:02}"), "200;-;-")).collect();
    let mut counts: Vec<u64> = vec![0; 60];
    let take = |traffic: &mut Traffic, counts: &[u64], second| {
        let all: Vec<_> = names.iter().map(String::as_str).zip(counts.iter().copied()).collect();
        traffic.take(reading(&all, &[]), 0, at(second));
    };
    counts.fill(10);
    take(&mut traffic, &counts, 5);
    let pairs = traffic.pairs.since(None);
    assert_eq!(pairs.len(), 51);
    assert_eq!((pairs[0].source_workload.as_str(), pairs[0].slots[0].requests), ("", 100), "all others");
    let told = |traffic: &Traffic| -> Vec<String> {
        traffic.pairs.since(None).into_iter().map(|pair| pair.destination_service).collect()
    };
    let before = told(&traffic);
    let newcomer = (0..60).find(|number| !before.contains(&format!("s{number:02}"))).unwrap();
    counts[newcomer] = 1000;
    take(&mut traffic, &counts, 10);
    take(&mut traffic, &counts, 35);
    counts[newcomer] = 1001;
    take(&mut traffic, &counts, 40);
    let after = told(&traffic);
    assert!(after.contains(&format!("s{newcomer:02}")) && after.len() <= 51, "{after:?}");
    assert_eq!(brief(&traffic.pairs.since(Some(NOW + 30))), [(format!("s{newcomer:02}").as_str(), 30, 1)]);
}

#[test]
fn an_hour_of_pairs_is_kept_and_the_largest_report_is_less_than_a_mebibyte() {
    use prost::Message;
    let mut traffic = Traffic::default();
    traffic.take(Reading::default(), 0, at(0));
    let name = "n".repeat(40);
    for slot in 1..=130 {
        let all: Vec<_> =
            (0..60).map(|number| requests(&name, &format!("{name}{number}"), "503;-;UF,UC")).collect();
        let counts: Vec<_> =
            all.iter().map(|name| (name.as_str(), u64::try_from(slot).unwrap() * 1000)).collect();
        let times: Vec<_> = all.iter().map(|name| name.replace("requests", "duration")).collect();
        let count = u64::try_from(slot).unwrap() * 1000;
        let bins = [
            (1.0, count),
            (3.0, count),
            (5.0, count),
            (7.0, count),
            (10.0, count),
            (13.0, count),
            (20.0, count),
            (40.0, count),
        ];
        let times: Vec<_> = times.iter().map(|name| (name.as_str(), &bins[..])).collect();
        traffic.take(reading(&counts, &times), 0, at(slot * 30));
    }
    let pairs = traffic.pairs.since(None);
    assert_eq!((pairs.len(), pairs[1].slots.len()), (51, 119));
    let size: usize = pairs.iter().map(Message::encoded_len).sum();
    assert!(size < 1 << 20, "{size}");
    traffic.pairs.forget(NOW + 130 * 30 + 3600);
    assert!(traffic.pairs.since(None).is_empty());
}

#[test]
fn prometheus_gets_labels_and_too_many_are_other() {
    let mut traffic = Traffic::default();
    let web = requests("front", "web", "200;5;-");
    let times = "mesh.duration.by.shop,front,sa;outbound|80|web|shop;shop,web,sa;HTTP";
    traffic.take(reading(&[(&web, 3)], &[(times, &[(2.0, 2), (70_000.0, 1)])]), 0, at(0));
    let text = traffic.table.text();
    let labels = r#"source_namespace="shop",source_workload="front",source_service_account="sa",destination_namespace="shop",destination_service="web",destination_port="80",destination_workload_namespace="shop",destination_workload="web",destination_service_account="sa""#;
    let line = format!(
        r#"meshwright_requests_total{{{labels},protocol="HTTP/1.1",response_class="",grpc_status="5",flags="",mtls="true"}} 3"#
    );
    assert!(text.contains(&line), "{text}");
    for (bound, count) in [("0.0025", 2), ("60", 2), ("+Inf", 3)] {
        let line = format!(
            r#"meshwright_request_duration_seconds_bucket{{{labels},mtls="true",le="{bound}"}} {count}"#
        );
        assert!(text.contains(&line), "{line} is not in {text}");
    }

    let names: Vec<_> = (0..2100).map(|number| requests(&format!("w{number}"), "web", "200;-;-")).collect();
    let counts: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    traffic.take(reading(&counts, &[]), 0, at(5));
    let text = traffic.table.text();
    let rows = text.lines().filter(|line| line.starts_with("meshwright_requests_total{"));
    assert_eq!(rows.clone().count(), 2001);
    let other = rows.clone().find(|line| line.contains(r#"source_workload="other""#)).unwrap();
    assert!(other.ends_with("} 101"), "{other}");
    traffic.take(reading(&[], &[]), 0, at(3700));
    assert_eq!(traffic.table.text(), "", "what is gone for an hour is forgotten");
    let newcomer = requests("newcomer", "web", "200;-;-");
    traffic.take(reading(&[(&newcomer, 1)], &[]), 0, at(3705));
    let text = traffic.table.text();
    assert!(text.contains(r#"source_workload="newcomer""#) && !text.contains("other"), "{text}");
}

#[test]
fn what_envoy_had_no_room_for_is_other_too() {
    let mut traffic = Traffic::default();
    let names: Vec<_> = (0..8000).map(|number| requests(&format!("w{number}"), "web", "200;-;-")).collect();
    let mut counts: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    counts.push(("mesh_all.requests", 8050));
    traffic.take(reading(&counts, &[]), 0, at(5));
    let text = traffic.table.text();
    let other = text.lines().find(|line| line.contains(r#"source_workload="other""#)).unwrap();
    assert!(other.ends_with("} 6050"), "{other}");
}

#[test]
fn envoy_is_asked_for_the_rest_without_what_is_told_already() {
    let path = scrape_path();
    assert!(path.starts_with("/stats/prometheus?filter="), "{path}");
    assert!(path.contains("server") && path.contains("mesh_authorization"), "{path}");
    assert!(!path.replace("mesh_authorization", "").contains("mesh"), "{path}");
}
