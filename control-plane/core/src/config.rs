//! The outcome of resolution for one Gateway: what its proxies have to do, with every reference followed and
//! every right checked. `meshwright-xds` turns it into Envoy resources and decides nothing any more. No
//! endpoints here: they change often and alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::model::{
    CorsFilter, HeaderModifier, HttpRouteMatch, ObjectId, ObjectKey, RequestRedirect, RouteKind, UrlRewrite,
};

/// What the proxies of one Gateway do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GatewayConfig {
    /// The Gateway.
    pub gateway: ObjectKey,
    /// One entry per port, ascending.
    pub ports: Vec<PortConfig>,
}

/// The listeners of one port. They all have the same protocol.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PortConfig {
    /// TCP port.
    pub port: u16,
    /// Plain or TLS.
    pub protocol: PortProtocol,
    /// The port's accepted listeners in the order of the spec.
    pub listeners: Vec<ListenerConfig>,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PortProtocol {
    /// HTTP/1.1 and h2c with prior knowledge.
    Http,
    /// HTTP/1.1 and h2 over TLS.
    Https,
}

/// One listener of the Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ListenerConfig {
    /// Name in the spec.
    pub name: String,
    /// Exact, `*.suffix`, or `*`.
    pub hostname: String,
    /// Secrets with the certificates, in the order of the spec; empty for HTTP. An HTTPS listener without any
    /// cannot be served, but is listed, because its hosts are still its own and no wider listener may answer
    /// for them.
    pub certificates: Vec<ObjectKey>,
    /// Hosts this listener answers for, sorted by hostname, each once. The listener's own hostname is always
    /// there, if need be without routes, so that a wider listener cannot take over. A host that a more
    /// specific listener of the port owns is not.
    pub virtual_hosts: Vec<Arc<VirtualHostConfig>>,
}

/// Hostname of the requests by which the operator sees whether a proxy answers. The proxy itself answers them, with 404, also where a
/// route takes every host: they are nobody's traffic.
pub const PROBE_HOST: &str = "probe.meshwright.invalid";

/// Routes for one hostname. A request that none matches gets 404.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VirtualHostConfig {
    /// Exact, `*.suffix`, or `*`.
    pub hostname: String,
    /// In order of precedence, first match wins.
    pub routes: Vec<Arc<RouteEntry>>,
}

/// One match of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteEntry {
    /// HTTPRoute, GRPCRoute or TCPRoute.
    pub kind: RouteKind,
    /// The route it comes from.
    pub route: ObjectKey,
    /// Index of the rule in the route.
    pub rule_index: usize,
    /// Index of the match in the rule.
    pub match_index: usize,
    /// When.
    pub matches: HttpRouteMatch,
    /// What then; shared by all matches of the rule.
    pub rule: Arc<CompiledRule>,
}

/// A rule with its references followed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CompiledRule {
    /// `name` of the rule.
    pub name: Option<String>,
    /// Where requests go.
    pub action: RuleAction,
    /// Changes to requests.
    pub request_headers: HeaderModifier,
    /// Changes to responses.
    pub response_headers: HeaderModifier,
    /// Copies of requests.
    pub mirrors: Vec<Mirror>,
    /// Answers to preflight requests.
    pub cors: Option<CorsFilter>,
    /// Time for the whole request, retries included; None is no limit.
    pub request_timeout: Option<Duration>,
    /// Time for one try; None is no limit.
    pub backend_request_timeout: Option<Duration>,
    /// Retries that the user asked for; None leaves only those that hide a vanishing endpoint.
    pub retry: Option<RetryConfig>,
}

/// What is done with a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum RuleAction {
    /// Answer 500 (a GRPCRoute: UNAVAILABLE; a TCPRoute: no connection): the rule is invalid, has no backend, or all weights are zero.
    #[default]
    Fail,
    /// Answer with a redirect.
    Redirect(RequestRedirect),
    /// Send it on.
    Forward(Forward),
}

/// Backends of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Forward {
    /// At least one with a positive weight; those with weight zero are left out.
    pub backends: Vec<WeightedBackend>,
    /// Changes to host and path.
    pub rewrite: Option<UrlRewrite>,
}

/// One backend and its share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WeightedBackend {
    /// None answers 500 for this share, or refuses connections: the reference is not resolved.
    pub cluster: Option<ClusterRef>,
    /// Positive; relative to the others; of requests, or connections.
    pub weight: u32,
    /// Changes to this backend's requests, after the rule's.
    pub request_headers: HeaderModifier,
    /// Changes to this backend's responses.
    pub response_headers: HeaderModifier,
}

/// A Service's port as a destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterRef {
    /// The Service.
    pub service: ObjectKey,
    /// The Service's port (not the pods').
    pub port: u16,
    /// How to speak to it.
    pub protocol: BackendProtocol,
}

/// From the Service port's `appProtocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendProtocol {
    /// HTTP/1.1, also for `kubernetes.io/ws`.
    Http1,
    /// HTTP/2 with prior knowledge: `kubernetes.io/h2c`.
    H2c,
}

/// Where copies of requests go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mirror {
    /// Whereto.
    pub cluster: ClusterRef,
    /// Part of the requests, as numerator and denominator; None is all.
    pub fraction: Option<(u32, u32)>,
}

/// Retries that the user asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RetryConfig {
    /// Status codes to try again on.
    pub codes: Vec<u16>,
    /// Tries after the first; zero switches all retries off.
    pub attempts: u32,
    /// Least wait before another try.
    pub backoff: Option<Duration>,
}

/// What routes make of the requests and connections to Services in the mesh, by Service and port. A port that is not here has no routes: what
/// is for it goes on as if there were none.
pub type ServiceRoutes = BTreeMap<ObjectKey, BTreeMap<u16, Arc<PortRoutes>>>;

/// The routes of one port of a Service. A request that has routes and that none of them matches gets 404.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PortRoutes {
    /// Of the Service's own namespace, in order of precedence: for callers everywhere. None if there is no such route.
    pub producer: Option<Vec<Arc<RouteEntry>>>,
    /// Whether one of those routes names the port, by its number or name, and is not simply for the whole Service: what else was not
    /// declared is HTTP there.
    pub is_named: bool,
    /// Of other namespaces: for callers in the same, to whom the producer's do not matter then, whatever they are about.
    pub consumers: BTreeMap<String, Vec<Arc<RouteEntry>>>,
    /// About whole connections. Who has such a route has none about requests.
    pub connections: ConnectionRoutes,
}

/// The TCPRoutes of one port of a Service: each decides about every connection, so of several the oldest is here. A connection to one that
/// does not forward is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ConnectionRoutes {
    /// Of the Service's own namespace: for callers everywhere.
    pub producer: Option<Arc<RouteEntry>>,
    /// Of other namespaces: for callers in the same.
    pub consumers: BTreeMap<String, Arc<RouteEntry>>,
}

impl ConnectionRoutes {
    /// Every route.
    pub fn entries(&self) -> impl Iterator<Item = &RouteEntry> {
        self.producer.iter().chain(self.consumers.values()).map(AsRef::as_ref)
    }
}

impl PortRoutes {
    /// Whether there are routes about requests.
    pub fn has_requests(&self) -> bool {
        self.producer.is_some() || !self.consumers.is_empty()
    }

    /// Every match of every route about requests.
    pub fn entries(&self) -> impl Iterator<Item = &RouteEntry> {
        self.producer.iter().chain(self.consumers.values()).flatten().map(AsRef::as_ref)
    }
}

impl RouteEntry {
    /// The route it comes from.
    pub fn id(&self) -> ObjectId {
        ObjectId { kind: self.kind.object(), key: self.route.clone() }
    }
}

impl GatewayConfig {
    /// Every cluster that some rule names, sorted, each once.
    pub fn clusters(&self) -> BTreeSet<&ClusterRef> {
        self.entries().flat_map(|entry| entry.rule.clusters()).collect()
    }

    /// Every match of every host.
    pub fn entries(&self) -> impl Iterator<Item = &RouteEntry> {
        let listeners = self.ports.iter().flat_map(|port| &port.listeners);
        let hosts = listeners.flat_map(|listener| &listener.virtual_hosts);
        hosts.flat_map(|host| &host.routes).map(AsRef::as_ref)
    }
}

impl CompiledRule {
    /// Clusters that this rule names.
    pub fn clusters(&self) -> impl Iterator<Item = &ClusterRef> {
        let backends = match &self.action {
            RuleAction::Forward(forward) => forward.backends.as_slice(),
            RuleAction::Fail | RuleAction::Redirect(_) => &[],
        };
        backends
            .iter()
            .filter_map(|backend| backend.cluster.as_ref())
            .chain(self.mirrors.iter().map(|mirror| &mirror.cluster))
    }
}
