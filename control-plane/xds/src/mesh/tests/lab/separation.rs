//! Two pods of one node never share a connection: neither an identity nor a network.

use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3::Config;
use envoy_types::util::pack_any;

use super::*;

/// Changes what pods' outbound listeners write into the filter state.
fn edit_state(snapshot: &mut Snapshot, edit: fn(&mut Config)) {
    ads::change(snapshot, TypeUrl::Listener, |listener: &mut Listener| {
        if !listener.name.ends_with("/outbound") {
            return;
        }
        let filter = &mut listener.filter_chains[0].filters[0];
        let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else { panic!("no config") };
        let mut config = Config::decode(any.value.as_slice()).unwrap();
        edit(&mut config);
        *any = pack_any(config);
    });
}

/// Both pods ask in turns, again on connections that the proxy keeps: whom the application outside saw, and whom the proxy of the one inside.
async fn seen(lab: &Lab) -> (Vec<String>, Vec<String>) {
    let mut sources = Vec::new();
    for round in 0..3 {
        for account in ["front", "cart"] {
            let pod = lab.pod(account);
            assert_eq!(pod.source("10.88.0.1:80").await, "from 10.77.0.21", "{round} {account}");
            sources.push(pod.source("10.88.0.7:80").await);
        }
    }
    // Written down after all of these.
    lab.pod("front").talk("10.88.0.2:3306").await.unwrap();
    let callers = lab.callers("back", |callers| callers.iter().any(|caller| caller.contains("|3306|"))).await;
    let http = callers.iter().filter(|caller| caller.contains("|8080|"));
    let identities = http.filter_map(|caller| caller.split('|').next()?.rsplit('/').next());
    (sources, identities.map(str::to_owned).collect())
}

/// A Service with an endpoint outside is there because of another one that takes mutual TLS, and drains.
fn with_a_service_outside() -> Cluster {
    let mut cluster = mesh().service(
        "plain",
        &["10.88.0.7"],
        80,
        Protocol::Http,
        &[("10.77.0.21", 1), ("10.77.0.99", 8080)],
    );
    let services = Arc::make_mut(&mut cluster.mesh.services);
    let plain = Arc::make_mut(services.get_mut(&ObjectKey::new("shop", "plain")).unwrap());
    let endpoints = Arc::make_mut(&mut plain.ports.get_mut(&80).unwrap().endpoints);
    endpoints.zones.get_mut("").unwrap()[0].health = EndpointHealth::Draining;
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_share_neither_identity_nor_network() {
    let Some(lab) = lab(with_a_service_outside(), |_| {}).await else { return };
    let (sources, identities) = seen(&lab).await;
    assert_eq!(sources, ["from 10.77.0.11", "from 10.77.0.12"].repeat(3));
    assert_eq!(identities, ["front", "cart"], "one connection for each");
}

/// What keeps them apart: without it the test before would fail.
#[tokio::test(flavor = "multi_thread")]
async fn with_a_state_that_is_not_hashable_they_would() {
    fn edit(snapshot: &mut Snapshot) {
        edit_state(snapshot, |config| {
            let all = config.on_new_connection.iter_mut();
            all.filter(|value| value.factory_key == "envoy.hashable_string")
                .for_each(|value| value.factory_key = "envoy.string".to_owned());
        });
    }
    let Some(lab) = lab(with_a_service_outside(), edit).await else { return };
    let (sources, identities) = seen(&lab).await;
    assert_eq!(sources, ["from 10.77.0.11"].repeat(6), "cart left through the network of front");
    assert_eq!(identities, ["front"], "cart spoke in the name of front");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_its_network_reaches_nobody() {
    fn edit(snapshot: &mut Snapshot) {
        edit_state(snapshot, |config| {
            config.on_new_connection.retain(|value| value.factory_key != "envoy.hashable_string");
        });
    }
    let Some(lab) = lab(mesh(), edit).await else { return };
    let front = lab.pod("front");
    for address in ["10.88.0.1:80", "10.77.0.99:8080", "10.77.0.21:8080"] {
        let answer = front.source(address).await;
        assert!(!answer.starts_with("from"), "{address}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_its_identity_is_nobody() {
    fn edit(snapshot: &mut Snapshot) {
        edit_state(snapshot, |config| {
            config.on_new_connection.retain(|value| !format!("{value:?}").contains("spiffe"));
        });
    }
    let Some(lab) = lab(mesh(), edit).await else { return };
    let front = lab.pod("front");
    assert_eq!(front.source("10.77.0.99:8080").await, "from 10.77.0.11", "plaintext needs none");
    for address in ["10.88.0.1:80", "10.77.0.21:8080"] {
        let answer = front.source(address).await;
        assert!(!answer.starts_with("from"), "{address}: {answer}");
    }
}
