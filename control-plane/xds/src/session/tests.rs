//! One test for each rule of the protocol.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use envoy_types::util::pack_any;

use super::*;

pub(super) fn body(kind: TypeUrl, text: &str) -> Any {
    Any { type_url: kind.as_str().to_owned(), value: text.as_bytes().to_vec() }
}

pub(super) fn resource(kind: TypeUrl, name: &str, text: &str) -> Resource {
    Resource::new(name, body(kind, text))
}

pub(super) fn eds_cluster(name: &str, alt: &str) -> Resource {
    let eds = cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds as i32);
    let cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: alt.to_owned(),
        cluster_discovery_type: Some(eds),
        ..Cluster::default()
    };
    Resource::new(name, pack_any(cluster))
}

pub(super) fn subscribe(kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.as_str().to_owned(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn unsubscribe(kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    let mut request = subscribe(kind, &[]);
    request.resource_names_unsubscribe = names.iter().map(ToString::to_string).collect();
    request
}

pub(super) fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..DeltaDiscoveryRequest::default()
    }
}

pub(super) fn nack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    let status = Status { code: 13, message: "no good".to_owned(), ..Status::default() };
    DeltaDiscoveryRequest { error_detail: Some(status), ..ack(response) }
}

#[test]
fn the_first_request_says_what_the_client_has_from_before() {
    let mut session = DeltaSession::new(MaybeSent::default());
    let mut held = |request| match session.on_request(request).events.as_slice() {
        [Event::Subscription { held, .. }, ..] => held.iter().map(ToString::to_string).collect::<Vec<_>>(),
        events => panic!("{events:?}"),
    };
    let request = subscribe(Cds, &["*", "b"]);
    assert_eq!(held(with_versions(request.clone(), &[&resource(Cds, "a", "1")])), ["a"]);
    assert_eq!(held(with_versions(request, &[&resource(Cds, "c", "1")])), [""; 0], "it is said once");
}

fn with_versions(mut request: DeltaDiscoveryRequest, held: &[&Resource]) -> DeltaDiscoveryRequest {
    let versions = held.iter().map(|r| (r.name().to_string(), r.version().to_string()));
    request.initial_resource_versions = versions.collect();
    request
}

/// `CDS +a +b`, `EDS -c` and so on: a response in one line.
fn brief(responses: &[DeltaDiscoveryResponse]) -> Vec<String> {
    let line = |response: &DeltaDiscoveryResponse| {
        let kind = match TypeUrl::parse(&response.type_url).unwrap() {
            TypeUrl::Cluster => "CDS",
            TypeUrl::Endpoint => "EDS",
            TypeUrl::Listener => "LDS",
            TypeUrl::Route => "RDS",
            TypeUrl::Secret => "SDS",
            _ => "other",
        };
        let added = response.resources.iter().map(|r| format!(" +{}", r.name));
        let removed = response.removed_resources.iter().map(|name| format!(" -{name}"));
        added.chain(removed).fold(kind.to_owned(), |line, part| line + &part)
    };
    responses.iter().map(line).collect()
}

fn session(snapshot: &Snapshot) -> DeltaSession {
    let mut session = DeltaSession::default();
    assert!(session.on_snapshot(snapshot).responses.is_empty());
    session
}

fn clusters(names: &[&str]) -> Snapshot {
    Snapshot::default().with(TypeUrl::Cluster, names.iter().map(|name| eds_cluster(name, "")))
}

use TypeUrl::{Cluster as Cds, Endpoint as Eds, Listener as Lds, Route as Rds, Secret as Sds};

#[test]
fn an_empty_first_request_and_a_star_are_wildcards_and_named_requests_are_not() {
    for (request, expected) in [
        (subscribe(Cds, &[]), vec!["CDS +a +b"]),
        (subscribe(Cds, &["*"]), vec!["CDS +a +b"]),
        (subscribe(Cds, &["a"]), vec!["CDS +a"]),
        (subscribe(Cds, &["*", "a"]), vec!["CDS +a +b"]),
        (subscribe(Sds, &[]), vec![]),
    ] {
        let mut session = session(&clusters(&["a", "b"]));
        assert_eq!(brief(&session.on_request(request).responses), expected);
    }
}

#[test]
fn an_empty_wildcard_is_answered_once_and_an_unknown_one_not_at_all() {
    let mut empty = session(&Snapshot::default());
    assert_eq!(brief(&empty.on_request(subscribe(Lds, &[])).responses), ["LDS"]);
    assert!(empty.on_snapshot(&Snapshot::default().with(Lds, [])).responses.is_empty());

    let mut unknown = session(&Snapshot::unknown());
    assert!(unknown.on_request(subscribe(Lds, &[])).responses.is_empty());
    assert!(unknown.on_request(subscribe(Rds, &["r"])).responses.is_empty());
    let mut known = Snapshot::unknown();
    known.edit(Rds).remove("r");
    known.edit(Lds).set_partial(false);
    assert_eq!(brief(&unknown.on_snapshot(&known).responses), ["LDS", "RDS -r"]);
}

#[test]
fn an_unknown_name_is_answered_and_sent_when_it_appears() {
    let mut session = session(&Snapshot::default());
    assert_eq!(brief(&session.on_request(subscribe(Sds, &["s"])).responses), ["SDS -s"]);
    let later = Snapshot::default().with(Sds, [resource(Sds, "s", "1"), resource(Sds, "other", "1")]);
    assert_eq!(brief(&session.on_snapshot(&later).responses), ["SDS +s"]);
    // Removal is not an unsubscription.
    assert_eq!(brief(&session.on_snapshot(&Snapshot::default()).responses), ["SDS -s"]);
    assert_eq!(brief(&session.on_snapshot(&later).responses), ["SDS +s"]);
}

#[test]
fn only_what_changed_is_sent() {
    let mut session = session(&clusters(&["a", "b"]));
    let _ = session.on_request(subscribe(Cds, &[]));
    assert!(session.on_snapshot(&clusters(&["a", "b"])).responses.is_empty());
    let changed = Snapshot::default().with(Cds, [eds_cluster("a", ""), eds_cluster("b", "new")]);
    assert_eq!(brief(&session.on_snapshot(&changed).responses), ["CDS +b"]);
}

#[test]
fn a_name_asked_for_again_is_answered_again() {
    let snapshot = Snapshot::default().with(Rds, [resource(Rds, "r", "1")]);
    let mut session = session(&snapshot);
    for _ in 0..2 {
        assert_eq!(brief(&session.on_request(subscribe(Rds, &["r"])).responses), ["RDS +r"]);
    }
}

#[test]
fn reconnecting_sends_the_difference_and_removes_what_vanished() {
    let (a, b, gone) = (eds_cluster("a", ""), eds_cluster("b", ""), eds_cluster("gone", ""));
    let mut session = session(&Snapshot::default().with(Cds, [a.clone(), eds_cluster("b", "new")]));
    let request = with_versions(subscribe(Cds, &[]), &[&a, &b, &gone]);
    assert_eq!(brief(&session.on_request(request).responses), ["CDS +b", "CDS -gone"]);

    let held = resource(Rds, "r", "1");
    let mut named = super::tests::session(&Snapshot::default().with(Rds, [held.clone()]));
    let request = with_versions(subscribe(Rds, &["r"]), &[&held]);
    assert!(named.on_request(request.clone()).responses.is_empty());
    let mut removed = super::tests::session(&Snapshot::default());
    assert_eq!(brief(&removed.on_request(request).responses), ["RDS -r"]);
}

#[test]
fn names_that_were_maybe_sent_are_removed_on_the_next_stream() {
    let mut first = session(&clusters(&["a", "bad"]));
    let sent = first.on_request(subscribe(Cds, &[])).responses;
    let _ = first.on_request(nack(&sent[0]));
    let mut second = DeltaSession::new(first.maybe_sent());
    let _ = second.on_snapshot(&clusters(&["c"]));
    assert_eq!(brief(&second.on_request(subscribe(Cds, &[])).responses), ["CDS +c", "CDS -a -bad"]);
}

#[test]
fn phantom_unsubscriptions_change_nothing_and_real_ones_end_updates() {
    let version = |text| Snapshot::default().with(Rds, [resource(Rds, "r", text)]);
    let mut session = session(&version("1"));
    let _ = session.on_request(subscribe(Rds, &["r"]));
    assert!(session.on_request(unsubscribe(Rds, &["x"])).events.is_empty());
    assert_eq!(brief(&session.on_snapshot(&version("2")).responses), ["RDS +r"]);
    let _ = session.on_request(unsubscribe(Rds, &["r"]));
    assert!(session.on_snapshot(&version("3")).responses.is_empty());
}

#[test]
fn unsubscribing_a_name_that_the_wildcard_covers_is_answered() {
    let mut session = session(&clusters(&["a"]));
    let _ = session.on_request(subscribe(Cds, &["*", "a", "none"]));
    let request = unsubscribe(Cds, &["a", "none"]);
    assert_eq!(brief(&session.on_request(request).responses), ["CDS +a", "CDS -none"]);
}

#[test]
fn a_stale_nonce_does_not_hide_a_subscription() {
    let mut session = session(&Snapshot::default().with(Rds, [resource(Rds, "r", "1")]));
    let mut request = subscribe(Rds, &["r"]);
    request.response_nonce = "long gone".to_owned();
    let outcome = session.on_request(request);
    assert_eq!(brief(&outcome.responses), ["RDS +r"]);
    assert!(!outcome.events.iter().any(|event| matches!(event, Event::Ack { .. })));
}

#[test]
fn endpoints_follow_every_cluster_that_is_sent_without_waiting_for_an_ack() {
    let endpoints = [resource(Eds, "a", "1"), resource(Eds, "new", "1")];
    let with = |all: &[(&str, &str)]| {
        let all = all.iter().map(|(name, alt)| eds_cluster(name, alt)).collect::<Vec<_>>();
        Snapshot::default().with(Cds, all).with(Eds, endpoints.clone())
    };
    let mut session = session(&with(&[("a", "")]));
    assert_eq!(brief(&session.on_request(subscribe(Cds, &[])).responses), ["CDS +a"]);
    assert_eq!(brief(&session.on_request(subscribe(Eds, &["a"])).responses), ["EDS +a"]);
    // Changed: pushed although the endpoints did not change.
    assert_eq!(brief(&session.on_snapshot(&with(&[("a", "2")])).responses), ["CDS +a", "EDS +a"]);
    // New: pushed unasked, and again when asked.
    let grown = with(&[("a", "2"), ("new", "")]);
    assert_eq!(brief(&session.on_snapshot(&grown).responses), ["CDS +new", "EDS +new"]);
    assert_eq!(brief(&session.on_request(subscribe(Eds, &["new"])).responses), ["EDS +new"]);
}

#[test]
fn endpoints_that_come_after_their_cluster_are_pushed_before_the_route() {
    let publish = |clusters: &[&str], endpoints: &[&str], routes: &[&str]| {
        let mut snapshot = Snapshot::unknown();
        clusters.iter().for_each(|name| snapshot.edit(Cds).insert(eds_cluster(name, "")));
        endpoints.iter().for_each(|name| snapshot.edit(Eds).insert(resource(Eds, name, "1")));
        routes.iter().for_each(|text| snapshot.edit(Rds).insert(resource(Rds, "r", text)));
        snapshot
    };
    let mut session = session(&publish(&["a"], &["a"], &["1"]));
    let _ = session.on_request(subscribe(Cds, &[]));
    let _ = session.on_request(subscribe(Eds, &["a"]));
    let _ = session.on_request(subscribe(Rds, &["r"]));
    let mut say = |clusters: &[&str], endpoints: &[&str], routes: &[&str]| {
        brief(&session.on_snapshot(&publish(clusters, endpoints, routes)).responses)
    };
    assert_eq!(say(&["a", "b", "c"], &["a"], &["1"]), ["CDS +b +c"]);
    assert_eq!(say(&["a", "b", "c"], &["a", "b"], &["1"]), ["EDS +b"]);
    assert_eq!(say(&["a", "b", "c"], &["a", "b"], &["2"]), ["RDS +r"]);
    // Together with the route: still before it. Paid once only.
    assert_eq!(say(&["a", "b", "c"], &["a", "b", "c"], &["3"]), ["EDS +c", "RDS +r"]);
    assert!(say(&["a", "b", "c"], &["a", "b", "c"], &["3"]).is_empty());
    // Nobody waits for the endpoints of a cluster that went again.
    assert_eq!(say(&["a", "d"], &["a"], &["3"]), ["CDS +d"]);
    assert!(say(&["a"], &["a", "d"], &["3"]).is_empty());
}

#[test]
fn updates_go_out_make_before_break_and_routes_alone() {
    let old = Snapshot::default()
        .with(Cds, [eds_cluster("old", "")])
        .with(Eds, [resource(Eds, "old", "1")])
        .with(Lds, [resource(Lds, "l-old", "1")])
        .with(Rds, [resource(Rds, "r1", "1"), resource(Rds, "r2", "1"), resource(Rds, "r3", "1")])
        .with(Sds, [resource(Sds, "s", "1")]);
    let mut session = session(&old);
    for (kind, names) in
        [(Cds, vec![]), (Eds, vec!["old"]), (Lds, vec![]), (Rds, vec!["r1", "r2", "r3"]), (Sds, vec!["s"])]
    {
        let _ = session.on_request(subscribe(kind, &names));
    }
    let new = Snapshot::default()
        .with(Cds, [eds_cluster("new", "")])
        .with(Eds, [resource(Eds, "new", "1")])
        .with(Lds, [resource(Lds, "l-new", "1")])
        .with(Rds, [resource(Rds, "r1", "2"), resource(Rds, "r2", "2")])
        .with(Sds, [resource(Sds, "s", "2")]);
    let expected = [
        "CDS +new",
        "EDS +new",
        "LDS +l-new -l-old",
        "RDS +r1",
        "RDS +r2",
        "SDS +s", // make
        "RDS -r3",
        "CDS -old",
        "EDS -old", // break
    ];
    assert_eq!(brief(&session.on_snapshot(&new).responses), expected);
}

#[test]
fn a_rejected_response_is_halved_until_the_culprit_stands_alone() {
    let mut session = session(&clusters(&["a", "b", "bad", "d"]));
    let mut queue = session.on_request(subscribe(Cds, &[])).responses;
    let mut nacks = Vec::new();
    let mut rounds = 0;
    while let Some(response) = queue.pop() {
        rounds += 1;
        let bad = response.resources.iter().any(|r| r.name == "bad");
        let outcome = session.on_request(if bad { nack(&response) } else { ack(&response) });
        nacks.extend(outcome.events.into_iter().filter(|event| matches!(event, Event::Nack { .. })));
        queue.extend(outcome.responses);
    }
    assert_eq!(rounds, 5);
    let [Event::Nack { kind: Cds, resources, message }] = nacks.as_slice() else { panic!("{nacks:?}") };
    assert_eq!((&*resources[0].0, message.as_str()), ("bad", "no good"));
}

#[test]
fn rejected_content_stays_away_until_it_changes_and_holds_nothing_up() {
    let version = |route: &str, secret: &str| {
        Snapshot::default().with(Rds, [resource(Rds, "r", route)]).with(Sds, [resource(Sds, "s", secret)])
    };
    let mut session = session(&version("1", "1"));
    let _ = session.on_request(subscribe(Sds, &["s"]));
    let sent = session.on_request(subscribe(Rds, &["r"])).responses;
    assert!(session.on_request(nack(&sent[0])).responses.is_empty());
    assert_eq!(brief(&session.on_snapshot(&version("1", "2")).responses), ["SDS +s"]);
    assert_eq!(brief(&session.on_snapshot(&version("2", "2")).responses), ["RDS +r"]);
}

#[test]
fn settled_speaks_of_the_newest_snapshot_that_was_answered_in_full() {
    let generation = |number: u64, text: &str| {
        let mut snapshot = Snapshot::default().with(Rds, [resource(Rds, "r", text)]);
        snapshot.set_generation(number);
        snapshot
    };
    let settled = |outcome: &Outcome| {
        outcome.events.iter().find_map(|event| match event {
            Event::Settled { generation, .. } => Some(*generation),
            _ => None,
        })
    };
    let mut session = session(&generation(1, "1"));
    let first = session.on_request(subscribe(Rds, &["r"]));
    assert_eq!(settled(&first), None);
    // 2 to 4 were merged into 5: nothing of them has been judged before 5 is.
    let second = session.on_snapshot(&generation(5, "2"));
    assert_eq!(settled(&second), None);
    assert_eq!(settled(&session.on_request(ack(&first.responses[0]))), Some(1));
    assert_eq!(settled(&session.on_request(nack(&second.responses[0]))), Some(5));
    assert_eq!(settled(&session.on_snapshot(&generation(6, "2"))), Some(6));
}

#[test]
fn halves_of_a_rejected_response_settle_only_when_judged_themselves() {
    let mut session = session(&clusters(&["a", "bad"]));
    let sent = session.on_request(subscribe(Cds, &[])).responses;
    let is_settled = |outcome: &Outcome| outcome.events.iter().any(|e| matches!(e, Event::Settled { .. }));
    let halves = session.on_request(nack(&sent[0]));
    assert_eq!(
        (brief(&halves.responses), is_settled(&halves)),
        (vec!["CDS +a".into(), "CDS +bad".into()], false)
    );
    assert!(!is_settled(&session.on_request(ack(&halves.responses[0]))));
    assert!(is_settled(&session.on_request(nack(&halves.responses[1]))));
}

#[test]
fn an_unknown_type_is_reported_and_not_answered() {
    let mut request = subscribe(Rds, &["x"]);
    request.type_url = "type.googleapis.com/x.Y".to_owned();
    let outcome = DeltaSession::default().on_request(request);
    assert!(outcome.responses.is_empty());
    assert_eq!(outcome.events, [Event::UnknownType("type.googleapis.com/x.Y".to_owned())]);
}
