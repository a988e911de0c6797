//! Envoy itself looks at a configuration with everything in it: `--mode validate` on a bootstrap made of the
//! translated resources, what would come over ADS put in place. Runs where `ENVOY_BIN` names an Envoy.

use std::path::Path;
use std::process::Command;

use envoy_types::pb::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use envoy_types::pb::envoy::config::bootstrap::v3::{
    Bootstrap, LayeredRuntime, RuntimeLayer, bootstrap::StaticResources,
};
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::{Node, transport_socket};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, filter};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{DownstreamTlsContext, Secret};
use envoy_types::pb::google::protobuf;
use envoy_types::util::pack_any;

use super::*;

pub(super) fn certificate(_: &ObjectKey) -> Option<TlsCertificate> {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    Some(TlsCertificate {
        certificate_chain: certificate.pem().into_bytes().into(),
        private_key: PrivateKey(key.serialize_pem().into_bytes().into()),
    })
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A rule with everything that a rule can have.
fn full() -> CompiledRule {
    let modifier = HeaderModifier {
        set: vec![header("x-set", "50%"), header("x-empty", "")],
        add: vec![header("x-add", "a"), header("!#$%&'*+-.^_`|~", "\tä\u{80}")],
        remove: vec!["x-remove".to_owned(), "!#$%&'*+-.^_`|~".to_owned()],
    };
    CompiledRule {
        request_headers: modifier.clone(),
        response_headers: modifier.clone(),
        mirrors: vec![
            Mirror { cluster: service("web"), fraction: Some((1, 3)) },
            Mirror { cluster: service("web"), fraction: None },
        ],
        request_timeout: Some(Duration::from_secs(1)),
        backend_request_timeout: Some(Duration::from_millis(10)),
        retry: Some(RetryConfig {
            codes: vec![500, 503],
            attempts: 2,
            backoff: Some(Duration::from_millis(1)),
        }),
        ..forward(vec![
            WeightedBackend {
                request_headers: modifier.clone(),
                response_headers: modifier,
                ..backend(Some("cart"), 9)
            },
            backend(None, 1),
        ])
    }
}

/// One rule of every sort.
fn rules() -> Vec<RouteEntry> {
    let rewrite = |to: PathModifier| {
        let rewrite = UrlRewrite { hostname: Some("backend.example".to_owned()), path: Some(to) };
        let backends = vec![backend(Some("cart"), 1)];
        CompiledRule {
            action: RuleAction::Forward(Forward { backends, rewrite: Some(rewrite) }),
            ..CompiledRule::default()
        }
    };
    let redirect = |to: PathModifier| CompiledRule {
        action: RuleAction::Redirect(RequestRedirect {
            path: Some(to),
            scheme: Some("https".to_owned()),
            ..RequestRedirect::default()
        }),
        ..CompiledRule::default()
    };
    let value = |name: &str, value| ValueMatch { name: name.to_owned(), value };
    let mut picky = entry("/picky", full());
    picky.matches.headers = vec![
        value("host", StringMatch::Exact("x".to_owned())),
        value("x-user", StringMatch::RegularExpression("[a-z]+".to_owned())),
    ];
    picky.matches.query_params = vec![value("q", StringMatch::RegularExpression(r"\d{1,3}".to_owned()))];
    picky.matches.method = Some("GET".to_owned());
    let mut by_regex = entry("/", forward(vec![backend(Some("cart"), 1)]));
    by_regex.matches.path = PathMatch::RegularExpression("/v[0-9]+/.*".to_owned());
    let mut exact = entry("/", CompiledRule::default());
    exact.matches.path = PathMatch::Exact("/exact".to_owned());
    let replace = |to: &str| PathModifier::ReplacePrefixMatch(to.to_owned());
    let whole = || PathModifier::ReplaceFullPath(r"/full\1".to_owned());
    // The longest prefix to take away that `core` lets pass.
    let long = format!("/{}", ".".repeat(511));
    let mut rules = vec![
        entry(&long, rewrite(replace("/"))),
        entry(&long, redirect(replace("/"))),
        exact,
        by_regex,
        picky,
        entry("/strip.me", rewrite(replace("/"))),
        entry("/prefix", rewrite(replace("/other"))),
        entry("/full", rewrite(whole())),
        entry("/redirect-strip", redirect(replace("/"))),
        entry("/redirect-prefix", redirect(replace("/other"))),
        entry("/redirect-full", redirect(whole())),
        entry("/", rewrite(replace("/root"))),
    ];
    rules.extend(large_expressions());
    rules
}

fn large_expressions() -> impl Iterator<Item = RouteEntry> {
    let longest = "a".repeat(500);
    let all = LARGE.iter().map(|expression| (*expression).to_owned()).chain([longest]);
    all.map(|expression| {
        let mut entry = entry("/", CompiledRule::default());
        entry.matches.path = PathMatch::RegularExpression(expression);
        entry
    })
}

/// Near the limit of `core::resolve::expression`, each in another way.
const LARGE: &[&str] = &[
    "[a-z0-9]{1,63}",
    "[^/]{25}",
    ".{25}",
    "[^/]{0,25}?",
    r"\W{25}",
    "(?:a|b|.){17}",
    "(?:[ä-ö]|.*){9}",
    "(?:(?:(?:a?b*|c+)*|d)*|e){15}",
    "(a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p)*(a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p)*(a|b|c|d|e|f|g|h|i|j|k|l|m|n|o|p)*",
    "a?b?c?d?e?f?g?h?i?j?k?l?m?n?o?p?q?r?s?t?u?v?w?x?y?z?a*b*c*d*e*f*g*h*i*j*k*l*m*n*o*p*q*r*s*t*u*v*w*x*y*z*a?b?c?d?e?f?g?h?i?j?k?l?m?n?o?p?q?r?s?t?u?v?w?x?y?z?a*b*c*d*e*f*g*h*i*j*k*l*m*n*o*p*q*r*s*t*u*v*w*x*y*z*",
    "(a{1,40})*[a-z0-9_-]|(?:x|y|[^a-z])+$",
];

pub(super) fn everything() -> GatewayConfig {
    let plain = listener(
        "http",
        "*",
        &[],
        vec![("*", rules()), ("*.example.com", rules()), ("a.example.com", vec![])],
    );
    let secure = vec![
        listener("any", "*", &["a"], vec![("*", rules())]),
        listener("wild", "*.example.com", &["a", "b"], vec![("*.example.com", rules())]),
        listener("broken", "broken.example.com", &[], vec![("broken.example.com", vec![])]),
    ];
    let ports = vec![port(8080, PortProtocol::Http, vec![plain]), port(8443, PortProtocol::Https, secure)];
    GatewayConfig { gateway: ObjectKey::new("infra", "gw.example"), ports }
}

/// A bootstrap that asks nobody for anything.
pub(super) fn bootstrap(translation: &Translation) -> Bootstrap {
    let names =
        |kind: TypeUrl| translation.resources.get(&kind).into_iter().flat_map(|found| found.keys().cloned());
    let clusters = names(TypeUrl::Cluster).map(|name| {
        let mut cluster: Cluster = decode(translation, TypeUrl::Cluster, &name);
        cluster.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
        cluster.eds_cluster_config = None;
        cluster.load_assignment = Some(decode(translation, TypeUrl::Endpoint, &name));
        cluster
    });
    let listeners = names(TypeUrl::Listener).map(|name| {
        let mut listener: Listener = decode(translation, TypeUrl::Listener, &name);
        listener.filter_chains.iter_mut().for_each(|chain| inline(chain, translation));
        listener
    });
    let secrets = names(TypeUrl::Secret).map(|name| decode::<Secret>(translation, TypeUrl::Secret, &name));
    Bootstrap {
        node: Some(Node { id: "test".to_owned(), cluster: "test".to_owned(), ..Node::default() }),
        static_resources: Some(StaticResources {
            listeners: listeners.collect(),
            clusters: clusters.collect(),
            secrets: secrets.collect(),
        }),
        layered_runtime: Some(LayeredRuntime { layers: vec![large_programs()] }),
        ..Bootstrap::default()
    }
}

/// As the agent's bootstrap: Envoy's own limit of 100 instructions is less than a long prefix needs.
fn large_programs() -> RuntimeLayer {
    let limit = protobuf::Value { kind: Some(protobuf::value::Kind::NumberValue(1000.0)) };
    let layer = protobuf::Struct { fields: [("re2.max_program_size.error_level".to_owned(), limit)].into() };
    RuntimeLayer { name: "static".to_owned(), layer_specifier: Some(LayerSpecifier::StaticLayer(layer)) }
}

/// Puts routes and secrets where the chain refers to ADS.
fn inline(chain: &mut FilterChain, translation: &Translation) {
    let Some(filter::ConfigType::TypedConfig(any)) = &mut chain.filters[0].config_type else {
        panic!("no config")
    };
    let mut manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
    let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier else { panic!("no RDS") };
    let mut routes: RouteConfiguration = decode(translation, TypeUrl::Route, &rds.route_config_name);
    // What is the default for RDS is not for routes in place.
    routes.validate_clusters = common::boolean(false);
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
    *any = pack_any(manager);
    let Some(socket) = &mut chain.transport_socket else { return };
    let Some(transport_socket::ConfigType::TypedConfig(any)) = &mut socket.config_type else {
        panic!("no config")
    };
    let mut context = DownstreamTlsContext::decode(any.value.as_slice()).unwrap();
    let common = context.common_tls_context.as_mut().unwrap();
    common.tls_certificate_sds_secret_configs.iter_mut().for_each(|secret| secret.sds_config = None);
    *any = pack_any(context);
}

#[test]
fn envoy_accepts_everything_we_can_say() {
    let Some(envoy) = std::env::var_os("ENVOY_BIN") else {
        eprintln!("ENVOY_BIN is not set: Envoy is not asked");
        return;
    };
    let translation = translated_with(&everything(), &Options::default(), &mut ready, &mut certificate);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bootstrap.pb");
    std::fs::write(&file, bootstrap(&translation).encode_to_vec()).unwrap();
    let run = Command::new(Path::new(&envoy))
        .args(["--mode", "validate", "--log-level", "warning", "-c"])
        .arg(&file)
        .output();
    let run = run.unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}
