//! With the real Envoy, whose binary `ENVOY_BIN` names.

use std::{net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use envoy_types::pb::envoy::config::{
    cluster::v3::{
        Cluster,
        cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
    },
    core::v3::{
        Address, AggregatedConfigSource, ApiVersion, ConfigSource, DataSource, SocketAddress,
        TransportSocket, address::Address as Kind, config_source::ConfigSourceSpecifier,
        data_source::Specifier, socket_address::PortSpecifier, transport_socket,
    },
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
    },
    listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
    route::v3::{
        DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route::Action,
        route_action::ClusterSpecifier, route_match::PathSpecifier,
    },
};
use envoy_types::pb::envoy::extensions::filters::{
    http::router::v3::Router,
    network::http_connection_manager::v3::{
        HttpConnectionManager, HttpFilter, Rds,
        http_connection_manager::{RouteSpecifier, UpgradeConfig},
        http_filter,
    },
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, common_tls_context::ValidationContextType,
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatcher;
use envoy_types::pb::google::protobuf::BoolValue;
use envoy_types::util::pack_any;
use meshwright_pki::{
    Identity, SpiffeId,
    tls::{DynamicIdentity, DynamicRoots, client_config},
};
use meshwright_runtime::Shutdown;
use meshwright_xds::{Event, Resource, Snapshot, TypeUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::fake::{ControlPlane, DEADLINE, args, eventually};
use crate::{Args, run::serve_until};

/// None if there is nothing to test with; a wrong path must not look like that.
pub(crate) fn envoy_binary() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("ENVOY_BIN")?);
    assert!(path.is_file(), "ENVOY_BIN names {}, which does not exist", path.display());
    Some(path)
}

pub(crate) async fn free_address() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3 as i32,
        ..ConfigSource::default()
    }
}

/// mTLS with the agent's own two secrets.
fn mutual_tls() -> TransportSocket {
    mutual_tls_as("workload")
}

/// mTLS with this certificate of the agent's.
pub(crate) fn mutual_tls_as(certificate: &str) -> TransportSocket {
    let secret = |name: &str| SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_sds_secret_configs: vec![secret(certificate)],
            validation_context_type: Some(ValidationContextType::ValidationContextSdsSecretConfig(secret(
                "roots",
            ))),
            ..CommonTlsContext::default()
        }),
        require_client_certificate: Some(BoolValue { value: true }),
        ..DownstreamTlsContext::default()
    };
    TransportSocket {
        name: "tls".to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack_any(context))),
    }
}

pub(crate) fn listener(name: &str, port: u16, transport_socket: Option<TransportSocket>) -> Resource {
    let manager = HttpConnectionManager {
        stat_prefix: "http".to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: "front".to_owned(),
        })),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        http_filters: vec![HttpFilter {
            name: "router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(Router::default()))),
            ..HttpFilter::default()
        }],
        ..HttpConnectionManager::default()
    };
    let address = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
        ..SocketAddress::default()
    };
    let filter =
        Filter { name: "http".to_owned(), config_type: Some(ConfigType::TypedConfig(pack_any(manager))) };
    let listener = Listener {
        name: name.to_owned(),
        address: Some(Address { address: Some(Kind::SocketAddress(address)) }),
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            transport_socket,
            ..FilterChain::default()
        }],
        ..Listener::default()
    };
    Resource::new(name, pack_any(listener))
}

pub(super) fn eds_cluster(name: &str, stat_name: &str) -> Resource {
    let cluster = Cluster {
        name: name.to_owned(),
        alt_stat_name: stat_name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
        eds_cluster_config: Some(EdsClusterConfig { eds_config: Some(ads()), ..EdsClusterConfig::default() }),
        ..Cluster::default()
    };
    Resource::new(name, pack_any(cluster))
}

pub(super) fn endpoints(name: &str, port: u16) -> Resource {
    let address = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
        ..SocketAddress::default()
    };
    let endpoint = Endpoint {
        address: Some(Address { address: Some(Kind::SocketAddress(address)) }),
        ..Endpoint::default()
    };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![locality],
        ..ClusterLoadAssignment::default()
    };
    Resource::new(name, pack_any(assignment))
}

fn route(text: &str) -> Resource {
    let body =
        DataSource { specifier: Some(Specifier::InlineString(text.to_owned())), ..DataSource::default() };
    let answer = DirectResponseAction { status: 200, body: Some(body), ..DirectResponseAction::default() };
    route_to(Action::DirectResponse(answer))
}

pub(crate) fn route_to(action: Action) -> Resource {
    let path_specifier = Some(PathSpecifier::Prefix("/".to_owned()));
    let route = Route {
        r#match: Some(RouteMatch { path_specifier, ..RouteMatch::default() }),
        action: Some(action),
        ..Route::default()
    };
    // Twenty times the program that Envoy allows by default; must not cost us the other route.
    let regex = RegexMatcher { regex: ".{1000}".to_owned(), ..RegexMatcher::default() };
    let large = RouteMatch { path_specifier: Some(PathSpecifier::SafeRegex(regex)), ..RouteMatch::default() };
    let large = Route { r#match: Some(large), ..route.clone() };
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![large, route],
        ..VirtualHost::default()
    };
    let config = RouteConfiguration {
        name: "front".to_owned(),
        virtual_hosts: vec![host],
        ..RouteConfiguration::default()
    };
    Resource::new("front", pack_any(config))
}

pub(super) fn snapshot(port: u16, text: &str) -> Snapshot {
    Snapshot::default()
        .with(TypeUrl::Cluster, [])
        .with(TypeUrl::Listener, [listener("front", port, None)])
        .with(TypeUrl::Route, [route(text)])
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    tokio::time::timeout(DEADLINE, exchange).await.ok()?.ok()
}

pub(super) async fn says(address: SocketAddr, path: &str, status: &str, text: &str) -> bool {
    get(address, path).await.is_some_and(|a| a.starts_with(&format!("HTTP/1.1 {status}")) && a.contains(text))
}

/// The Envoy that was started with this directory's bootstrap.
pub(crate) fn envoy_pid(dir: &Path) -> Option<i32> {
    let needle = dir.join("bootstrap.json").display().to_string();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let command = std::fs::read(entry.path().join("cmdline")).ok()?;
        String::from_utf8_lossy(&command).contains(&needle).then_some(pid)
    })
}

pub(super) async fn settings(control_plane: &ControlPlane, dir: &Path, envoy: PathBuf) -> Args {
    let mut args = args("gateway-0", control_plane.address.clone(), dir);
    args.proxy.envoy = envoy;
    args.health_addr = free_address().await;
    args.metrics_addr = free_address().await;
    args
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_survives_a_crash_without_control_plane_and_drains_without_refusing() {
    let Some(envoy) = envoy_binary() else {
        eprintln!("ENVOY_BIN is not set: nothing was tested with the real Envoy");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    let front = free_address().await;
    control_plane.publish(snapshot(front.port(), "hello"));
    let args = settings(&control_plane, dir.path(), envoy).await;
    let shutdown = Shutdown::default();
    let (health, metrics) = (args.health_addr, args.metrics_addr);
    let agent = tokio::spawn(serve_until(args.clone(), shutdown.clone()));

    eventually("first answer", async || says(front, "/", "200", "hello").await).await;
    eventually("ready", async || says(health, "/readyz", "200", "ok").await).await;
    assert!(says(metrics, "/metrics", "200", "envoy_server_live").await);
    assert!(says(metrics, "/metrics", "200", "meshwright_agent_envoy_restarts_total 0").await);

    control_plane.publish(snapshot(front.port(), "changed"));
    eventually("changed route", async || says(front, "/", "200", "changed").await).await;
    let acked = |event: &Event| matches!(event, Event::Ack { kind: TypeUrl::Route, .. });
    eventually("route acked", async || control_plane.saw(acked)).await;

    control_plane.stop();
    let old = envoy_pid(dir.path()).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(old).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    eventually("back from cache", async || {
        envoy_pid(dir.path()).is_some_and(|pid| pid != old) && says(front, "/", "200", "changed").await
    })
    .await;
    eventually("ready again", async || says(health, "/readyz", "200", "ok").await).await;

    // A client on a kept connection, and new clients all the time until Envoy is gone.
    let mut kept = tokio::net::TcpStream::connect(front).await.unwrap();
    shutdown.drain().cancel();
    eventually("load balancers told", async || says(health, "/healthz/lb", "503", "draining").await).await;
    assert!(says(health, "/readyz", "200", "ok").await);
    let mut closed = false;
    while !closed {
        assert!(says(front, "/", "200", "changed").await, "a new client was refused during the drain");
        kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut buffer = vec![0; 4096];
        let count = tokio::time::timeout(DEADLINE, kept.read(&mut buffer)).await.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&buffer[..count]).to_lowercase();
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        closed = answer.contains("connection: close");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(says(front, "/", "200", "changed").await, "a new client was refused after the listeners drained");
    drop(kept);
    tokio::time::timeout(DEADLINE, agent).await.unwrap().unwrap().unwrap();
    assert!(envoy_pid(dir.path()).is_none(), "envoy outlived the agent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_speaks_mutual_tls_with_the_agents_certificate() {
    let Some(envoy) = envoy_binary() else {
        eprintln!("ENVOY_BIN is not set: nothing was tested with the real Envoy");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    let front = free_address().await;
    let tls = Some(mutual_tls());
    control_plane.publish(snapshot(1, "hello").with(TypeUrl::Listener, [listener("tls", front.port(), tls)]));
    let args = settings(&control_plane, dir.path(), envoy).await;
    let health = args.health_addr;
    let shutdown = Shutdown::default();
    let agent = tokio::spawn(serve_until(args, shutdown.clone()));
    eventually("ready", async || says(health, "/readyz", "200", "ok").await).await;

    let expect = |account: &str| SpiffeId::workload("cluster.local", "shop", account).unwrap();
    let roots = DynamicRoots::new(&[control_plane.root()]).unwrap();
    let client = DynamicIdentity::default();
    let hello = async |client: &DynamicIdentity, server: &str| -> std::io::Result<String> {
        let config = client_config(client.clone(), roots.clone(), expect(server)).unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = tokio::net::TcpStream::connect(front).await?;
        let mut stream = connector.connect("x".try_into().unwrap(), stream).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    assert!(hello(&client, "front-meshwright").await.is_err(), "no client certificate");
    let identity: Identity = control_plane.identity("shop", "cart");
    client.set(&identity).unwrap();
    assert!(hello(&client, "front-meshwright").await.unwrap().contains("hello"));
    assert!(hello(&client, "somebody-else").await.is_err());

    shutdown.drain().cancel();
    shutdown.force().cancel();
    tokio::time::timeout(DEADLINE, agent).await.unwrap().unwrap().unwrap();
}

/// Answers everything with 200 and its name.
pub(crate) async fn backend(text: &'static str) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = axum::Router::new().fallback(move || async move { text });
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clusters_and_routes_change_through_the_relay_without_a_stall_or_a_failed_request() {
    let Some(envoy) = envoy_binary() else {
        eprintln!("ENVOY_BIN is not set: nothing was tested with the real Envoy");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    let front = free_address().await;
    let (blue, green) = (backend("blue").await, backend("green").await);
    let to = |cluster: &str| {
        let cluster = Some(ClusterSpecifier::Cluster(cluster.to_owned()));
        route_to(Action::Route(RouteAction { cluster_specifier: cluster, ..RouteAction::default() }))
    };
    let with = |clusters: Vec<Resource>, target: &str| {
        Snapshot::default()
            .with(TypeUrl::Cluster, clusters)
            .with(TypeUrl::Endpoint, [endpoints("blue", blue), endpoints("green", green)])
            .with(TypeUrl::Listener, [listener("front", front.port(), None)])
            .with(TypeUrl::Route, [to(target)])
    };
    control_plane.publish(with(vec![eds_cluster("blue", "")], "blue"));
    let args = settings(&control_plane, dir.path(), envoy).await;
    let shutdown = Shutdown::default();
    let agent = tokio::spawn(serve_until(args, shutdown.clone()));
    eventually("first answer", async || says(front, "/", "200", "blue").await).await;

    // Envoy does not ask for the endpoints of a changed cluster; without them it would wait for 15 s.
    let changed = eds_cluster("blue", "changed");
    let version = changed.version().clone();
    let begin = std::time::Instant::now();
    control_plane.publish(with(vec![changed.clone()], "blue"));
    let acked = |event: &Event| match event {
        Event::Ack { kind: TypeUrl::Cluster, resources, .. } => resources.iter().any(|(_, v)| *v == version),
        _ => false,
    };
    eventually("changed cluster acked", async || control_plane.saw(acked)).await;
    assert!(begin.elapsed() < Duration::from_secs(10), "stalled for {:?}", begin.elapsed());

    // A new cluster and the route to it in one go, the old cluster removed.
    control_plane.publish(with(vec![eds_cluster("green", "")], "green"));
    let mut answers = Vec::new();
    while answers.last().is_none_or(|last: &String| !last.ends_with("green")) {
        let answer = get(front, "/").await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "after {} answers: {answer}", answers.len());
        answers.push(answer);
        assert!(begin.elapsed() < DEADLINE, "never green");
    }
    assert!(!control_plane.saw(|event| matches!(event, Event::Nack { .. })));

    shutdown.drain().cancel();
    shutdown.force().cancel();
    tokio::time::timeout(DEADLINE, agent).await.unwrap().unwrap().unwrap();
}
