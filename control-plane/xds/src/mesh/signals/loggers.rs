//! Envoy's loggers that count.

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ComparisonFilter, ExtensionFilter, LogTypeFilter, ResponseFlagFilter,
    StatusCodeFilter, access_log, comparison_filter, extension_filter,
};
use envoy_types::pb::envoy::config::core::v3::RuntimeUInt32;
use envoy_types::pb::envoy::data::accesslog::v3::AccessLogType;
use envoy_types::pb::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3::Config;
use envoy_types::pb::envoy::extensions::access_loggers::stats::v3::config::{
    Counter, Histogram, Stat, Tag, histogram::Unit,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TcpAccessLogOptions;
use envoy_types::pb::envoy::r#type::v3::Scope;
use envoy_types::pb::google::protobuf::UInt64Value;
use envoy_types::util::pack_any;

use super::super::state;
use super::series::{Kind, LABELS, SCOPE, TAG, WHOLE};
use crate::envoy::common::uint32;

/// The scope of requests; names begin as those of all others.
const REQUESTS: &str = "mesh_requests";

/// The endpoint's host name: its workload, where it takes mutual TLS. Only for clusters of Services, others give their endpoints names of their
/// own. What is HTTP and goes elsewhere all the same (a Service that was in the mesh when the connection began) is read as nobody's.
pub(in super::super) const ENDPOINT: &str = "%UPSTREAM_HOST_NAME%";

/// Counters that Envoy keeps at most of requests, and as many of all other kinds together; what is above it counts in the whole only. Each takes
/// about 0.6 kB.
pub const MAX_COUNTERS: u32 = 8000;
/// Histograms that Envoy keeps at most; each takes some kilobytes.
pub const MAX_HISTOGRAMS: u32 = 1000;

/// What names of Envoy's statistics may begin with in a node's proxy. Those of each Service's cluster (10 kB) and of each pod's listeners (7 kB)
/// are left out, but for handshakes with clients, which all pods' listeners count together. All end in a dot: what begins with none of these Envoy
/// then refuses without writing its name down (2 kB for each Service, and 8 for each pod).
pub const STATISTICS: [&str; 14] = [
    "mesh.",
    "mesh_all.",
    "mesh_authorization.",
    "server.",
    "cluster_manager.",
    "listener_manager.",
    "listener.inbound.ssl.",
    "http.node.",
    "tracing.",
    "cluster.xds.",
    "cluster.mtls.",
    "cluster.inbound.",
    "cluster.passthrough.",
    "cluster.otlp.",
];

/// Of an HTTP connection manager: requests.
pub(in super::super) fn of_requests() -> Vec<AccessLog> {
    // What a server makes up is put right by who reads it: an expression here would take as long as all of the rest.
    let request = join(&["%PROTOCOL%", "%RESPONSE_CODE%", "%GRPC_STATUS_NUMBER%", "%RESPONSE_FLAGS%"]);
    let requests =
        Config { counters: vec![one(Kind::Requests, &by_endpoint(&request))], ..of_scope(REQUESTS) };
    let counts = Config {
        counters: vec![
            bytes(Kind::Sent, "%BYTES_RECEIVED%", &by_endpoint("HTTP")),
            bytes(Kind::Received, "%BYTES_SENT%", &by_endpoint("HTTP")),
        ],
        ..limited()
    };
    let times = Config { histograms: vec![duration(&by_endpoint("HTTP"))], ..limited() };
    // A connection that became a WebSocket takes as long as somebody likes.
    vec![
        logger(requests, None),
        logger(counts, None),
        logger(times, Some(not_upgraded())),
        logger(whole(Kind::Requests), None),
    ]
}

/// Connections to clusters of Services.
pub(in super::super) fn of_connections(proxy: TcpProxy) -> TcpProxy {
    let labels = |more: &str| by_endpoint(&format!("TCP{more}"));
    of_tcp(proxy, &labels, vec![])
}

/// Connections to wherever.
pub(in super::super) fn of_others(proxy: TcpProxy) -> TcpProxy {
    let labels = |more: &str| join(&[&source(), "%UPSTREAM_CLUSTER%", "-", &format!("TCP{more}")]);
    of_tcp(proxy, &labels, vec![])
}

/// Connections to pods by their own addresses: who that is the certificate says.
pub(in super::super) fn of_peers(proxy: TcpProxy) -> TcpProxy {
    let labels = |more: &str| {
        join(&[&source(), "%UPSTREAM_CLUSTER%", "%UPSTREAM_PEER_URI_SAN%", &format!("TCP{more}")])
    };
    of_tcp(proxy, &labels, failures(&labels("")))
}

/// Connections to pods that fail, for clusters of Services. Of other protocols than HTTP nobody says here which Service it was.
pub(in super::super) fn of_failures(proxy: TcpProxy) -> TcpProxy {
    let of_state = |object| format!("%FILTER_STATE({object}:PLAIN)%");
    let labels = join(&[&source(), &of_state(state::SERVICE), &of_state(state::PEER), "TCP"]);
    TcpProxy { access_log: failures(&labels), ..proxy }
}

/// Connections that a pod accepts over mutual TLS.
pub(in super::super) fn of_received(proxy: TcpProxy) -> TcpProxy {
    let (own, peer) = ("%DOWNSTREAM_LOCAL_URI_SAN%", "%DOWNSTREAM_PEER_URI_SAN%");
    let labels = |more: &str| join(&[own, "-", peer, &format!("TCP{more}")]);
    let config = Config {
        counters: vec![
            one(Kind::Accepted, &labels(&format!("{LABELS}-{LABELS}-{LABELS}%RESPONSE_FLAGS%"))),
            bytes(Kind::AcceptedReceived, "%BYTES_RECEIVED%", &labels("")),
            bytes(Kind::AcceptedSent, "%BYTES_SENT%", &labels("")),
        ],
        ..limited()
    };
    TcpProxy { access_log: vec![logger(config, Some(at(AccessLogType::TcpConnectionEnd)))], ..proxy }
}

fn of_tcp(proxy: TcpProxy, labels: &dyn Fn(&str) -> String, more: Vec<AccessLog>) -> TcpProxy {
    let opened = Config { counters: vec![one(Kind::Opened, &labels(""))], ..limited() };
    let closed = Config {
        counters: vec![
            one(Kind::Closed, &labels(&format!("{LABELS}-{LABELS}-{LABELS}%RESPONSE_FLAGS%"))),
            bytes(Kind::Sent, "%BYTES_RECEIVED%", &labels("")),
            bytes(Kind::Received, "%BYTES_SENT%", &labels("")),
        ],
        ..limited()
    };
    let ends = || Some(at(AccessLogType::TcpConnectionEnd));
    let own = vec![
        logger(opened, Some(at(AccessLogType::TcpUpstreamConnected))),
        logger(closed, ends()),
        logger(whole(Kind::Closed), ends()),
    ];
    TcpProxy {
        access_log: [own, more].concat(),
        access_log_options: Some(TcpAccessLogOptions {
            flush_access_log_on_connected: true,
            ..TcpAccessLogOptions::default()
        }),
        ..proxy
    }
}

fn failures(labels: &str) -> Vec<AccessLog> {
    let count = |kind| Config { counters: vec![one(kind, labels)], ..limited() };
    let unreached = ResponseFlagFilter { flags: vec!["UF".to_owned()] };
    let handshake = "upstream.transport_failure_reason.startsWith('TLS_error')";
    vec![
        logger(count(Kind::Unreached), Some(FilterSpecifier::ResponseFlagFilter(unreached))),
        logger(count(Kind::HandshakesFailed), Some(expression(handshake))),
    ]
}

fn source() -> String {
    format!("%FILTER_STATE({}:PLAIN)%", state::SOURCE)
}

/// Who calls, which cluster, and whom of it where that is known.
fn by_endpoint(more: &str) -> String {
    join(&[&source(), "%UPSTREAM_CLUSTER%", ENDPOINT, more])
}

fn join(labels: &[&str]) -> String {
    labels.join(&LABELS.to_string())
}

fn stat(kind: Kind, labels: &str) -> Option<Stat> {
    let tag = Tag { name: TAG.to_owned(), value_format: labels.to_owned(), rules: None };
    Some(Stat { name: kind.name().to_owned(), tags: vec![tag] })
}

fn one(kind: Kind, labels: &str) -> Counter {
    Counter { stat: stat(kind, labels), value_fixed: Some(UInt64Value { value: 1 }), ..Counter::default() }
}

fn bytes(kind: Kind, value: &str, labels: &str) -> Counter {
    Counter { stat: stat(kind, labels), value_format: value.to_owned(), ..Counter::default() }
}

fn duration(labels: &str) -> Histogram {
    Histogram {
        stat: stat(Kind::Duration, labels),
        unit: Unit::Milliseconds as i32,
        value_format: "%DURATION%".to_owned(),
    }
}

/// All loggers count in one scope,
fn limited() -> Config {
    of_scope(SCOPE)
}

/// but of requests, because a server that made up ever more status codes would fill it.
fn of_scope(name: &str) -> Config {
    let scope = Scope {
        prefix: SCOPE.to_owned(),
        sharing_name: name.to_owned(),
        max_counters: uint32(MAX_COUNTERS),
        max_histograms: uint32(MAX_HISTOGRAMS),
        enable_eviction: true,
        ..Scope::default()
    };
    Config { stats_scope: Some(scope), ..Config::default() }
}

/// Without labels.
fn whole(kind: Kind) -> Config {
    let scope = Scope { prefix: WHOLE.to_owned(), sharing_name: WHOLE.to_owned(), ..Scope::default() };
    let counter = Counter {
        stat: Some(Stat { name: kind.name().to_owned(), tags: Vec::new() }),
        value_fixed: Some(UInt64Value { value: 1 }),
        ..Counter::default()
    };
    Config { stats_scope: Some(scope), counters: vec![counter], ..Config::default() }
}

fn logger(config: Config, only: Option<FilterSpecifier>) -> AccessLog {
    AccessLog {
        name: "envoy.access_loggers.stats".to_owned(),
        filter: only.map(|only| AccessLogFilter { filter_specifier: Some(only) }),
        config_type: Some(access_log::ConfigType::TypedConfig(pack_any(config))),
    }
}

fn at(kind: AccessLogType) -> FilterSpecifier {
    FilterSpecifier::LogTypeFilter(LogTypeFilter { types: vec![kind as i32], exclude: false })
}

fn not_upgraded() -> FilterSpecifier {
    // Of a key that nobody sets the default is what counts.
    let code = RuntimeUInt32 { default_value: 101, runtime_key: "meshwright.upgraded".to_owned() };
    FilterSpecifier::StatusCodeFilter(StatusCodeFilter {
        comparison: Some(ComparisonFilter { op: comparison_filter::Op::Ne as i32, value: Some(code) }),
    })
}

fn expression(text: &str) -> FilterSpecifier {
    let filter = ExpressionFilter { expression: text.to_owned(), ..ExpressionFilter::default() };
    FilterSpecifier::ExtensionFilter(ExtensionFilter {
        name: "envoy.access_loggers.extension_filters.cel".to_owned(),
        config_type: Some(extension_filter::ConfigType::TypedConfig(pack_any(filter))),
    })
}
