//! From requests through the real Envoy to what the control plane learns of them.

use std::{collections::BTreeMap, time::Duration};

use axum::{Router, http::StatusCode, routing::get};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
    route_action::ClusterSpecifier, route_match::PathSpecifier,
};
use envoy_types::util::pack_any;
use meshwright_proto::reports::{Proxy, Slot};
use meshwright_runtime::Shutdown;
use meshwright_xds::{Resource, Snapshot, TypeUrl};

use super::{
    envoy::{
        eds_cluster, endpoints, envoy_binary, envoy_pid, free_address, get as request, listener, says,
        settings,
    },
    fake::{ControlPlane, DEADLINE, eventually},
};
use crate::{run::serve_until, stats::slot};

const SLOW: Duration = Duration::from_millis(400);

async fn backend() -> u16 {
    let slow = || async {
        tokio::time::sleep(SLOW).await;
        "late"
    };
    let router = Router::new()
        .route("/good", get(|| async { "good" }))
        .route("/slow", get(slow))
        .route("/bad", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

/// Each path to the cluster of its name; the others nowhere.
fn routes(clusters: &[(&str, &str)]) -> RouteConfiguration {
    let route = |(path, cluster): &(&str, &str)| {
        let cluster = Some(ClusterSpecifier::Cluster((*cluster).to_owned()));
        let path = Some(PathSpecifier::Prefix((*path).to_owned()));
        Route {
            r#match: Some(RouteMatch { path_specifier: path, ..RouteMatch::default() }),
            action: Some(Action::Route(RouteAction { cluster_specifier: cluster, ..RouteAction::default() })),
            ..Route::default()
        }
    };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: clusters.iter().map(route).collect(),
        ..VirtualHost::default()
    };
    RouteConfiguration {
        name: "front".to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    }
}

fn resource(routes: RouteConfiguration) -> Resource {
    Resource::new("front", pack_any(routes))
}

fn no_endpoints(cluster: &str) -> Resource {
    let assignment =
        ClusterLoadAssignment { cluster_name: cluster.to_owned(), ..ClusterLoadAssignment::default() };
    Resource::new(cluster, pack_any(assignment))
}

/// All slots added up, as a control plane knows them: one that comes again replaces what was known of it.
fn sum(control_plane: &ControlPlane) -> Slot {
    let reports = control_plane.reports();
    let slots: BTreeMap<_, _> =
        reports.into_iter().flat_map(|report| report.slots).map(|slot| (slot.start, slot)).collect();
    let mut sum = Slot::default();
    slots.into_values().for_each(|slot| slot::add(&mut sum, slot));
    sum
}

fn proxy(control_plane: &ControlPlane) -> Proxy {
    control_plane.reports().pop().and_then(|report| report.proxy).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_reaches_the_control_plane_in_its_class_and_bucket() {
    let Some(envoy) = envoy_binary() else {
        eprintln!("ENVOY_BIN is not set: nothing was tested with the real Envoy");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    let front = free_address().await;
    let (backend, closed) = (backend().await, free_address().await.port());
    let paths = [("/good", "web"), ("/slow", "web"), ("/bad", "web"), ("/gone", "gone"), ("/none", "none")];
    let snapshot = Snapshot::default()
        .with(TypeUrl::Cluster, ["web", "gone", "none"].map(|name| eds_cluster(name, "")))
        .with(TypeUrl::Endpoint, [endpoints("web", backend), endpoints("gone", closed), no_endpoints("none")])
        .with(TypeUrl::Listener, [listener("front", front.port(), None)])
        .with(TypeUrl::Route, [resource(routes(&paths))]);
    control_plane.publish(snapshot.clone());
    let mut args = settings(&control_plane, dir.path(), envoy).await;
    args.drain_delay = DEADLINE;
    let health = args.health_addr;
    let shutdown = Shutdown::default();
    let agent = tokio::spawn(serve_until(args, shutdown.clone()));
    eventually("ready", async || says(health, "/readyz", "200", "ok").await).await;

    let expected = [("/good", 10, "200"), ("/slow", 3, "200"), ("/bad", 4, "500"), ("/gone", 2, "503")];
    for (path, times, status) in expected.into_iter().chain([("/none", 1, "503"), ("/nowhere", 5, "404")]) {
        for _ in 0..times {
            let answer = request(front, path).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        }
    }
    let requests = 25;
    // Envoy merges its histograms some seconds later.
    eventually("all counted", async || sum(&control_plane).latency.values().sum::<u64>() >= requests).await;
    let counted = sum(&control_plane);
    assert_eq!((counted.success, counted.client_error, counted.server_error), (13, 5, 7));
    assert_eq!((counted.informational, counted.redirection, counted.tls_failures), (0, 0, 0));
    assert_eq!(
        (counted.upstream_connection_failure, counted.no_healthy_upstream, counted.no_route),
        (2, 1, 5)
    );
    assert_eq!(counted.connections, requests, "and none of the agent's own");
    assert_eq!(counted.latency.values().sum::<u64>(), requests);
    let slow = slot::bucket(SLOW.as_secs_f64() * 1000.0);
    let late: u64 =
        counted.latency.iter().filter(|(bucket, _)| **bucket >= slow).map(|(_, count)| count).sum();
    assert!((3..requests).contains(&late), "{:?}", counted.latency);
    let now = proxy(&control_plane);
    assert!(now.ready_since > 1_700_000_000);
    assert_eq!((now.restarts, now.refused_configuration, now.draining), (0, 0, false));

    let old = envoy_pid(dir.path()).unwrap();
    let pid = rustix::process::Pid::from_raw(old).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("back", async || {
        envoy_pid(dir.path()).is_some_and(|pid| pid != old) && says(front, "/good", "200", "good").await
    })
    .await;
    let mut twice = routes(&paths);
    twice.virtual_hosts.extend(twice.virtual_hosts.clone());
    control_plane.publish(snapshot.with(TypeUrl::Route, [resource(twice)]));
    eventually("refused", async || proxy(&control_plane).refused_configuration >= 1).await;
    eventually("counted on", async || sum(&control_plane).success == 14).await;
    assert_eq!(proxy(&control_plane).restarts, 1);
    assert_eq!(sum(&control_plane).server_error, 7, "nothing twice");

    shutdown.drain().cancel();
    eventually("draining", async || proxy(&control_plane).draining).await;
    shutdown.force().cancel();
    tokio::time::timeout(DEADLINE, agent).await.unwrap().unwrap().unwrap();
}
