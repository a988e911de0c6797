//! What proxies of nodes tell of single requests, where somebody wants to know: traces and lines of a log.

use std::collections::HashMap;
use std::time::Duration;

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use envoy_types::pb::envoy::config::core::v3::{
    BindConfig, GrpcService, Http2ProtocolOptions, TypedExtensionConfig,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use envoy_types::pb::envoy::config::trace::v3::OpenTelemetryConfig;
use envoy_types::pb::envoy::config::trace::v3::tracing::{Http, http};
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::StdoutAccessLog;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    RequestIdExtension, http_connection_manager::Tracing as ManagerTracing,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use envoy_types::pb::envoy::extensions::tracers::opentelemetry::samplers::v3::{
    ParentBasedSamplerConfig, TraceIdRatioBasedSamplerConfig,
};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::explicit_http_config::ProtocolConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions,
};
use envoy_types::pb::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use envoy_types::pb::google::protobuf::{Any, Struct, Value, value};
use envoy_types::util::pack_any;
use prost::Name;

use super::parts::{extension, resource};
use super::{ordered, signals, state};
use crate::Resource;
use crate::envoy::common::{boolean, duration, socket_address};

/// The cluster of the collector. The proxy speaks to it for itself, from the node's network, which is nowhere else so.
const COLLECTOR: &str = "otlp";
/// Who tells, in traces: the workload is an attribute of each span, because one proxy serves many.
const SERVICE: &str = "meshwright-node";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// What a collector does not take within this is lost.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Tags of a logger's format, and of JSON in it.
const LOG_FORMAT: u32 = 1;
const JSON_FORMAT: u32 = 2;

/// What is told beside statistics; by default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// Where traces go, if anywhere. Without it no request gets a header.
    pub tracing: Option<Tracing>,
    /// Whether each request and connection gives a line on Envoy's standard output.
    pub access_log: bool,
}

/// Traces of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracing {
    /// Host name or address of a collector that takes OTLP over gRPC, without TLS.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How many of a million requests begin a trace. One that a caller has begun goes on, or not, as the caller says.
    pub sampling: u32,
}

impl Telemetry {
    /// The collector, where there is one.
    pub(super) fn cluster(&self) -> Option<Resource> {
        let Tracing { host, port, .. } = self.tracing.as_ref()?;
        Some(resource(COLLECTOR, cluster(host, *port)))
    }

    /// Of requests.
    pub(super) fn tracing(&self) -> Option<ManagerTracing> {
        let tracing = self.tracing.as_ref()?;
        Some(ManagerTracing {
            provider: Some(Http {
                name: "envoy.tracers.opentelemetry".to_owned(),
                config_type: Some(http::ConfigType::TypedConfig(pack_any(tracer(tracing.sampling)))),
            }),
            custom_tags: vec![tag("meshwright.source", &source()), tag("meshwright.peer", signals::ENDPOINT)],
            ..ManagerTracing::default()
        })
    }

    /// Whether a request is traced has nothing to do with its x-request-id, which stays what it was, or away.
    pub(super) fn request_ids(&self) -> Option<RequestIdExtension> {
        self.tracing.as_ref()?;
        let config = UuidRequestIdConfig {
            pack_trace_reason: boolean(false),
            use_request_id_for_trace_sampling: boolean(false),
        };
        Some(RequestIdExtension { typed_config: Some(pack_any(config)) })
    }

    /// Lines for requests. Headers can be secrets, and so can what is behind the question mark: nothing of them is told.
    pub(super) fn requests(&self) -> Vec<AccessLog> {
        const REQUEST: [(&str, &str); 6] = [
            ("method", "%REQ(:METHOD)%"),
            ("authority", "%REQ(:AUTHORITY)%"),
            ("path", "%PATH(NQ)%"),
            ("response_code", "%RESPONSE_CODE%"),
            ("grpc_status", "%GRPC_STATUS_NUMBER%"),
            ("trace_id", "%TRACE_ID%"),
        ];
        self.lines(Some(signals::ENDPOINT), &REQUEST)
    }

    /// The same with lines for connections; `peer` tells the workload that they reach, where there is one.
    pub(super) fn of_connections(&self, proxy: TcpProxy, peer: Option<&str>) -> TcpProxy {
        let access_log = [proxy.access_log, self.lines(peer, &[])].concat();
        TcpProxy { access_log, ..proxy }
    }

    fn lines(&self, peer: Option<&str>, more: &[(&str, &str)]) -> Vec<AccessLog> {
        if !self.access_log {
            return Vec::new();
        }
        let own = [
            ("time", "%START_TIME%".to_owned()),
            ("event", "%ACCESS_LOG_TYPE%".to_owned()),
            ("source", source()),
            ("destination", "%DOWNSTREAM_LOCAL_ADDRESS%".to_owned()),
            ("cluster", "%UPSTREAM_CLUSTER%".to_owned()),
            ("endpoint", "%UPSTREAM_HOST%".to_owned()),
            ("protocol", "%PROTOCOL%".to_owned()),
            ("flags", "%RESPONSE_FLAGS%".to_owned()),
            ("details", "%RESPONSE_CODE_DETAILS%".to_owned()),
            ("failure", "%UPSTREAM_TRANSPORT_FAILURE_REASON%".to_owned()),
            ("duration_ms", "%DURATION%".to_owned()),
            ("bytes_sent", "%BYTES_RECEIVED%".to_owned()),
            ("bytes_received", "%BYTES_SENT%".to_owned()),
        ];
        let peer = peer.map(|peer| ("peer", peer.to_owned()));
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned())).chain(peer);
        let text = |text: String| Value { kind: Some(value::Kind::StringValue(text)) };
        let fields = own.into_iter().chain(more).map(|(name, value)| (name.to_owned(), text(value)));
        let format = ordered::field(JSON_FORMAT, &ordered::texts(&Struct { fields: fields.collect() }));
        let config =
            Any { type_url: StdoutAccessLog::type_url(), value: ordered::field(LOG_FORMAT, &format) };
        vec![AccessLog {
            name: "envoy.access_loggers.stdout".to_owned(),
            config_type: Some(access_log::ConfigType::TypedConfig(config)),
            ..AccessLog::default()
        }]
    }
}

fn source() -> String {
    format!("%FILTER_STATE({}:PLAIN)%", state::SOURCE)
}

fn tag(name: &str, value: &str) -> CustomTag {
    CustomTag { tag: name.to_owned(), r#type: Some(custom_tag::Type::Value(value.to_owned())) }
}

fn tracer(sampling: u32) -> OpenTelemetryConfig {
    let collector = EnvoyGrpc { cluster_name: COLLECTOR.to_owned(), ..EnvoyGrpc::default() };
    let ratio = TraceIdRatioBasedSamplerConfig {
        sampling_percentage: Some(FractionalPercent {
            numerator: sampling,
            denominator: DenominatorType::Million as i32,
        }),
    };
    let sampler = ParentBasedSamplerConfig { wrapped_sampler: Some(sampler("trace_id_ratio_based", ratio)) };
    OpenTelemetryConfig {
        grpc_service: Some(GrpcService {
            timeout: Some(duration(EXPORT_TIMEOUT)),
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(collector)),
            ..GrpcService::default()
        }),
        service_name: SERVICE.to_owned(),
        sampler: Some(self::sampler("parent_based", sampler)),
        ..OpenTelemetryConfig::default()
    }
}

fn sampler<M: prost::Message + prost::Name>(name: &str, config: M) -> TypedExtensionConfig {
    extension(&format!("envoy.tracers.opentelemetry.samplers.{name}"), config)
}

fn cluster(host: &str, port: u16) -> Cluster {
    let options = HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())),
        })),
        ..HttpProtocolOptions::default()
    };
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(socket_address(host, port)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    let locality = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    Cluster {
        name: COLLECTOR.to_owned(),
        connect_timeout: Some(duration(CONNECT_TIMEOUT)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns as i32)),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: COLLECTOR.to_owned(),
            endpoints: vec![locality],
            ..ClusterLoadAssignment::default()
        }),
        typed_extension_protocol_options: HashMap::from([(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions".to_owned(),
            pack_any(options),
        )]),
        // Nothing is said in it, so nothing of the bootstrap's.
        upstream_bind_config: Some(BindConfig::default()),
        ..Cluster::default()
    }
}
