use envoy_types::pb::envoy::service::discovery::v3::Resource as WireResource;
use meshwright_xds::Any;

use super::*;

fn response(
    kind: TypeUrl,
    nonce: &str,
    resources: &[(&str, &str)],
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    let wire = |(name, version): &(&str, &str)| WireResource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        resource: Some(Any { type_url: kind.as_str().to_owned(), value: version.as_bytes().to_vec() }),
        ..WireResource::default()
    };
    DeltaDiscoveryResponse {
        type_url: kind.as_str().to_owned(),
        nonce: nonce.to_owned(),
        resources: resources.iter().map(wire).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..DeltaDiscoveryResponse::default()
    }
}

fn settle(state: &mut State, kind: TypeUrl) -> Vec<DeltaDiscoveryRequest> {
    let generation = state.snapshot().generation();
    state.on_downstream(Event::Settled { kind, generation })
}

fn subscribe(state: &mut State, kind: TypeUrl, names: &[&str]) -> Vec<DeltaDiscoveryRequest> {
    let subscribed = names.iter().map(|name| Arc::from(*name)).collect();
    state.on_downstream(Event::Subscription { kind, wildcard: false, subscribed, unsubscribed: Vec::new() })
}

fn nack(state: &mut State, kind: TypeUrl, name: &str, version: &str) {
    let resources = vec![(name.into(), version.into())];
    let _ = state.on_downstream(Event::Nack { kind, resources, message: "bad".to_owned() });
}

fn version(state: &State, kind: TypeUrl, name: &str) -> Option<String> {
    state.snapshot().get(kind, name).map(|resource| resource.version().to_string())
}

use TypeUrl::{Cluster as Cds, Endpoint as Eds, Listener as Lds, Route as Rds, Secret as Sds};

#[test]
fn answers_wait_for_envoy_and_name_what_it_refused() {
    let mut state = State::default();
    assert!(state.on_upstream(response(Cds, "1", &[("a", "1"), ("b", "1")], &[])).is_empty());
    let ack = settle(&mut state, Cds);
    assert_eq!((ack[0].response_nonce.as_str(), &ack[0].error_detail), ("1", &None));

    assert!(state.on_upstream(response(Cds, "2", &[("a", "2"), ("b", "2")], &[])).is_empty());
    nack(&mut state, Cds, "b", "2");
    let answer = settle(&mut state, Cds);
    assert_eq!(answer[0].error_detail.as_ref().unwrap().message, "b: bad");
    // The good neighbour stays, the bad one goes back.
    assert_eq!(version(&state, Cds, "a").as_deref(), Some("2"));
    assert_eq!(version(&state, Cds, "b").as_deref(), Some("1"));

    // Offered again by another replica: refused without asking Envoy, accepted once it is different.
    let again = state.on_upstream(response(Cds, "3", &[("b", "2")], &[]));
    assert!(again[0].error_detail.is_some());
    let _ = state.on_upstream(response(Cds, "4", &[("b", "3")], &[]));
    assert!(settle(&mut state, Cds)[0].error_detail.is_none());
    assert_eq!(version(&state, Cds, "b").as_deref(), Some("3"));
}

#[test]
fn a_new_process_is_asked_again() {
    let mut state = State::default();
    let _ = state.on_upstream(response(Cds, "1", &[("b", "2")], &[]));
    nack(&mut state, Cds, "b", "2");
    let _ = settle(&mut state, Cds);
    state.envoy_restarted();
    assert!(state.on_upstream(response(Cds, "2", &[("b", "2")], &[])).is_empty());
    assert_eq!(version(&state, Cds, "b").as_deref(), Some("2"));
}

#[test]
fn what_was_refused_is_known_until_it_is_offered_again() {
    let mut state = State::default();
    let has = |state: &State, version: &str| {
        (state.has_taken(Cds, "a", version), state.has_refused(Cds, "a", version))
    };
    let _ = state.on_upstream(response(Cds, "1", &[("a", "1")], &[]));
    let _ = settle(&mut state, Cds);
    let _ = state.on_upstream(response(Cds, "2", &[("a", "2")], &[]));
    assert_eq!(["1", "2"].map(|version| has(&state, version)), [(true, false), (false, false)]);
    nack(&mut state, Cds, "a", "2");
    let _ = settle(&mut state, Cds);
    assert_eq!(["1", "2"].map(|version| has(&state, version)), [(true, false), (false, true)]);
    state.envoy_restarted();
    let _ = settle(&mut state, Cds);
    assert_eq!(has(&state, "2"), (false, true), "it has the one before");
    let _ = state.on_upstream(response(Cds, "3", &[("a", "2")], &[]));
    assert_eq!(has(&state, "2"), (false, false));
    let _ = settle(&mut state, Cds);
    assert_eq!(has(&state, "2"), (true, false));
    nack(&mut state, Cds, "b", "1");
    let _ = state.on_upstream(response(Cds, "4", &[], &["b"]));
    assert!(!state.has_refused(Cds, "b", "1"));
}

#[test]
fn what_envoy_does_not_want_is_acked_at_once() {
    let mut state = State::default();
    assert_eq!(state.on_upstream(response(Eds, "1", &[("a", "1")], &[])).len(), 1);
    let asked = subscribe(&mut state, Eds, &["a", "b"]);
    assert_eq!(asked[0].resource_names_subscribe, ["a", "b"]);
    assert!(state.on_upstream(response(Eds, "2", &[("b", "1")], &[])).is_empty());
    assert_eq!(settle(&mut state, Eds).len(), 1);
}

#[test]
fn reconnecting_names_what_is_wanted_and_held_but_not_our_secrets() {
    let mut state = State::default();
    state.set_local_secret(Resource::new("workload", Any::default()));
    let _ = subscribe(&mut state, Sds, &["workload", "kubernetes://shop/cert"]);
    let _ = state.on_upstream(response(Sds, "1", &[("kubernetes://shop/cert", "1")], &[]));
    let _ = state.on_upstream(response(Sds, "2", &[("workload", "stolen")], &[]));
    let _ = state.on_upstream(response(Cds, "3", &[("a", "1")], &[]));
    let requests = state.on_upstream_connected();
    let kinds: Vec<_> = requests.iter().map(|request| request.type_url.as_str()).collect();
    assert_eq!(kinds, [Cds.as_str(), Lds.as_str(), Sds.as_str()]);
    assert_eq!(requests[0].resource_names_subscribe, ["*"]);
    assert_eq!(requests[0].initial_resource_versions["a"], "1");
    assert_eq!(requests[2].resource_names_subscribe, ["kubernetes://shop/cert"]);
    assert_eq!(requests[2].initial_resource_versions.len(), 1);
    // The old stream's response cannot be answered on the new one.
    assert!(settle(&mut state, Cds).is_empty());
}

#[test]
fn nothing_is_absent_until_the_control_plane_says_so() {
    let mut state = State::default();
    let absent = |state: &State, kind, name| state.snapshot().resources(kind).unwrap().is_absent(name);
    assert!(!absent(&state, Rds, "r") && !absent(&state, Lds, "l"));
    let _ = state.on_upstream(response(Rds, "0", &[], &["r"]));
    assert!(!absent(&state, Rds, "r"), "who asks for it later asks anew");
    let _ = subscribe(&mut state, Rds, &["r"]);
    let _ = state.on_upstream(response(Rds, "1", &[], &["r"]));
    let _ = state.on_upstream(response(Lds, "2", &[], &[]));
    assert!(absent(&state, Rds, "r") && !absent(&state, Rds, "other") && absent(&state, Lds, "l"));
}

#[test]
fn replaced_endpoints_are_not_kept_for_an_envoy_that_is_away() {
    let mut state = State::default();
    let _ = subscribe(&mut state, Eds, &["a", "b", "c"]);
    assert!(state.on_upstream(response(Eds, "b", &[("a", "1"), ("b", "1")], &[])).is_empty());
    for round in 2..100 {
        let text = round.to_string();
        let _ = state.on_upstream(response(Eds, &text, &[("a", &text)], &[]));
        assert_eq!(state.pending.len(), 2, "the newest and what is still waiting for b");
    }
    let answers = state.on_upstream(response(Eds, "gone", &[("c", "1")], &["a", "b"]));
    let nonces: Vec<_> = answers.iter().map(|answer| answer.response_nonce.as_str()).collect();
    assert_eq!(nonces, ["b", "99"]);
    assert_eq!(settle(&mut state, Eds)[0].response_nonce, "gone");
}

#[test]
fn routes_and_secrets_without_any_accepted_version_are_lacking() {
    let mut state = State::default();
    let _ = state.on_upstream(response(Cds, "1", &[], &[]));
    let _ = state.on_upstream(response(Lds, "2", &[("l", "1")], &[]));
    let _ = settle(&mut state, Cds);
    let _ = settle(&mut state, Lds);
    assert_eq!(state.configured(), Configured::Fully, "no listener named anything");
    for (kind, name) in [(Rds, "r"), (Sds, "kubernetes://shop/cert")] {
        let _ = subscribe(&mut state, kind, &[name, "workload"]);
        let _ = state.on_upstream(response(kind, "3", &[], &["workload"]));
        assert_eq!(state.configured(), Configured::Partly, "nothing was sent yet");
        let _ = state.on_upstream(response(kind, "4", &[(name, "1")], &[]));
        assert_eq!(state.configured(), Configured::Partly, "not judged yet");
        nack(&mut state, kind, name, "1");
        let _ = settle(&mut state, kind);
        assert_eq!(state.configured(), Configured::Partly, "refused");
        let _ = state.on_upstream(response(kind, "5", &[(name, "2")], &[]));
        let _ = settle(&mut state, kind);
        assert_eq!(state.configured(), Configured::Fully, "mended");
        let _ = state.on_upstream(response(kind, "6", &[(name, "3")], &[]));
        nack(&mut state, kind, name, "3");
        let _ = settle(&mut state, kind);
        assert_eq!(state.configured(), Configured::Fully, "the older one is still there");
        let _ = state.on_upstream(response(kind, "7", &[], &[name]));
        assert_eq!(state.configured(), Configured::Fully, "does not exist");
    }
}

#[test]
fn a_listener_or_cluster_that_was_refused_and_has_no_older_version_is_lacking() {
    for (kind, other) in [(Lds, Cds), (Cds, Lds)] {
        let mut state = State::default();
        let _ = state.on_upstream(response(other, "1", &[], &[]));
        let _ = settle(&mut state, other);
        let _ = state.on_upstream(response(kind, "2", &[("good", "1"), ("bad", "1")], &[]));
        nack(&mut state, kind, "bad", "1");
        let _ = settle(&mut state, kind);
        assert_eq!(state.configured(), Configured::Partly, "refused");
        let _ = state.on_upstream(response(kind, "3", &[("bad", "2")], &[]));
        let _ = settle(&mut state, kind);
        assert_eq!(state.configured(), Configured::Fully, "mended");
        let _ = state.on_upstream(response(kind, "4", &[("bad", "3")], &[]));
        nack(&mut state, kind, "bad", "3");
        let _ = settle(&mut state, kind);
        assert_eq!(state.configured(), Configured::Fully, "the older one is still there");
        let _ = state.on_upstream(response(kind, "5", &[], &["bad"]));
        let _ = settle(&mut state, kind);
        assert_eq!(state.configured(), Configured::Fully, "does not exist");
    }
}

#[test]
fn configured_means_clusters_and_listeners_on_this_stream() {
    let mut state = State::default();
    let _ = state.on_upstream(response(Cds, "1", &[], &[]));
    let _ = settle(&mut state, Cds);
    let _ = settle(&mut state, Lds);
    assert_eq!(state.configured(), Configured::No, "no listeners were sent yet");
    let _ = state.on_upstream(response(Lds, "2", &[("l", "1")], &[]));
    assert_eq!(state.configured(), Configured::No);
    let _ = settle(&mut state, Lds);
    assert_eq!(state.configured(), Configured::Fully);
    state.envoy_disconnected();
    assert_eq!(state.configured(), Configured::No);
}
