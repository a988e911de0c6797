//! Envoy in the network of a node, with what an agent would give it.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::{
    DynamicResources, StaticResources, StatsEviction,
};
use envoy_types::pb::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use envoy_types::pb::envoy::config::bootstrap::v3::{
    Admin, Bootstrap, LayeredRuntime, MemoryAllocatorManager, RuntimeLayer,
};
use envoy_types::pb::envoy::config::cluster::v3 as cds;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::{
    self as core, Address, ApiConfigSource, BindConfig, ExtraSourceAddress, Pipe, SocketAddress,
    SocketOption, address, api_config_source::ApiType, grpc_service, socket_address::PortSpecifier,
    socket_option,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::metrics::v3::{StatsConfig, StatsMatcher, stats_matcher};
use envoy_types::pb::envoy::extensions::bootstrap::internal_listener::v3::InternalListener;
use envoy_types::pb::envoy::extensions::local_address_selectors::filter_state_override;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{
    ListStringMatcher, StringMatcher, string_matcher::MatchPattern,
};
use envoy_types::pb::google::protobuf;
use envoy_types::util::pack_any;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::ads::Node;
use super::network::within;
use super::until;
use crate::envoy::common::{ads, duration};
use crate::mesh::parts::extension;
use crate::mesh::signals;

/// Ends with this.
pub struct Envoy {
    process: Child,
    admin: std::path::PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.end();
    }
}

impl Envoy {
    /// One worker: two pods that share a connection do so on one worker only.
    pub fn start(network: &Path, directory: &Path, node: &Node) -> Self {
        Self::start_with(network, directory, node, None)
    }

    /// The same, and it forgets statistics that nothing was counted in for so long.
    pub fn start_with(network: &Path, directory: &Path, node: &Node, forget: Option<Duration>) -> Self {
        let admin = directory.join(format!("{}.admin", node.name));
        let file = directory.join(format!("{}.pb", node.name));
        std::fs::write(&file, bootstrap(&admin, node, forget).encode_to_vec()).unwrap();
        let mut command = Command::new(std::env::var_os("ENVOY_BIN").unwrap());
        command.args([
            "--disable-hot-restart",
            "--concurrency",
            if std::env::var_os("MEASURE").is_some() { "2" } else { "1" },
            "--log-level",
            &std::env::var("LAB_LOG").unwrap_or_else(|_| "error".to_owned()),
        ]);
        command.args(["--file-flush-interval-msec", "50", "-c"]).arg(&file);
        let out = std::fs::File::create(directory.join(format!("{}.out", node.name))).unwrap();
        command.stdout(out);
        let process = within(network, || command.spawn().unwrap());
        Self { process, admin }
    }

    /// Waits until it has everything that it was sent at its start.
    pub async fn is_ready(&self) {
        until("Envoy is ready", async || {
            self.ask("/ready").await.filter(|answer| answer.contains("LIVE")).map(drop)
        })
        .await;
    }

    /// Ends now.
    pub fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
    /// What its admin says; None as long as it does not listen.
    pub async fn ask(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(&self.admin).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }
}

fn bootstrap(admin: &Path, node: &Node, forget: Option<Duration>) -> Bootstrap {
    let grpc = core::GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: "xds".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let source = ApiConfigSource {
        api_type: ApiType::DeltaGrpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![grpc],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    };
    Bootstrap {
        node: Some(core::Node { id: node.name.clone(), cluster: "lab".to_owned(), ..core::Node::default() }),
        admin: Some(Admin { address: Some(pipe(admin)), ..Admin::default() }),
        dynamic_resources: Some(DynamicResources {
            ads_config: Some(source),
            cds_config: Some(ads()),
            lds_config: Some(ads()),
            ..DynamicResources::default()
        }),
        static_resources: Some(StaticResources { clusters: vec![xds(&node.socket)], ..Default::default() }),
        bootstrap_extensions: vec![extension(
            "envoy.bootstrap.internal_listener",
            InternalListener::default(),
        )],
        layered_runtime: Some(LayeredRuntime { layers: vec![runtime()] }),
        stats_config: Some(statistics()),
        memory_allocator_manager: Some(memory()),
        stats_eviction: forget.map(|after| StatsEviction::StatsEvictionInterval(duration(after))),
        deferred_stat_options: Some(
            envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::DeferredStatOptions {
                enable_deferred_creation_stats: true,
            },
        ),
        cluster_manager: Some(envoy_types::pb::envoy::config::bootstrap::v3::ClusterManager {
            enable_deferred_cluster_creation: true,
            upstream_bind_config: node.black_hole().map(sources),
            ..Default::default()
        }),
        ..Bootstrap::default()
    }
}

/// As the agent's bootstrap has it: from the network of whoever called, or nowhere; with a mark, and signs of life.
fn sources(black_hole: &str) -> BindConfig {
    let nowhere = |address: &str| SocketAddress {
        address: address.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        network_namespace_filepath: black_hole.to_owned(),
        ..SocketAddress::default()
    };
    let option = |(level, name, value): (i64, i64, i64)| SocketOption {
        level,
        name,
        state: socket_option::SocketState::StatePrebind as i32,
        value: Some(socket_option::Value::IntValue(value)),
        ..SocketOption::default()
    };
    let other = ExtraSourceAddress { address: Some(nowhere("::")), ..ExtraSourceAddress::default() };
    BindConfig {
        source_address: Some(nowhere("0.0.0.0")),
        extra_source_addresses: vec![other],
        socket_options: [(1, 36, 0x539), (1, 9, 1), (6, 4, 30), (6, 5, 10), (6, 6, 3)].map(option).to_vec(),
        local_address_selector: Some(extension(
            "envoy.upstream.local_address_selector.filter_state_override",
            filter_state_override::v3::Config {},
        )),
        ..BindConfig::default()
    }
}

/// As the agent's bootstrap has it.
fn memory() -> MemoryAllocatorManager {
    MemoryAllocatorManager {
        soft_memory_limit_bytes: crate::envoy::common::uint64(64 << 20),
        bytes_to_release: 5_000_000,
        ..MemoryAllocatorManager::default()
    }
}

/// As the agent's bootstrap has it.
fn statistics() -> StatsConfig {
    let patterns = signals::STATISTICS.map(|prefix| StringMatcher {
        match_pattern: Some(MatchPattern::Prefix(prefix.to_owned())),
        ignore_case: false,
    });
    let list = ListStringMatcher { patterns: patterns.to_vec() };
    let matcher = StatsMatcher { stats_matcher: Some(stats_matcher::StatsMatcher::InclusionList(list)) };
    StatsConfig { stats_matcher: Some(matcher), ..StatsConfig::default() }
}

/// With this feature of Envoy 1.40 an internal connection that ends right after an answer was written loses the answer.
fn runtime() -> RuntimeLayer {
    let off = protobuf::Value { kind: Some(protobuf::value::Kind::BoolValue(false)) };
    let feature = "envoy.reloadable_features.enable_send_rst_on_user_space_socket".to_owned();
    // As the agent's bootstrap has it; Envoy's own limit is 100.
    let programs = protobuf::Value { kind: Some(protobuf::value::Kind::NumberValue(10_000.0)) };
    let programs = ("re2.max_program_size.error_level".to_owned(), programs);
    let layer = protobuf::Struct { fields: [(feature, off), programs].into() };
    RuntimeLayer { name: "static".to_owned(), layer_specifier: Some(LayerSpecifier::StaticLayer(layer)) }
}

fn xds(socket: &Path) -> cds::Cluster {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(pipe(socket)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(
                ProtocolConfig::Http2ProtocolOptions(core::Http2ProtocolOptions::default()),
            ),
        })),
        ..HttpProtocolOptions::default()
    };
    cds::Cluster {
        name: "xds".to_owned(),
        upstream_bind_config: Some(BindConfig::default()),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: "xds".to_owned(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        }),
        typed_extension_protocol_options: [(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            pack_any(options),
        )]
        .into(),
        ..cds::Cluster::default()
    }
}

fn pipe(path: &Path) -> Address {
    let pipe = Pipe { path: path.display().to_string(), ..Pipe::default() };
    Address { address: Some(address::Address::Pipe(pipe)) }
}
