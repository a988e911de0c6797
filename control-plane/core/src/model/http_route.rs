//! HTTPRoute, GRPCRoute as what it is on the wire, and TCPRoute, whose rules are those of the others without all that is about requests.

use std::time::Duration;

use super::{Meta, ObjectId, ObjectKind};

/// An HTTPRoute, a GRPCRoute or a TCPRoute: the second has the first's rules, apart from how a path is matched; the third's have backends
/// and nothing else, and there is one of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpRoute {
    /// Which of them.
    pub kind: RouteKind,
    /// Name, generation, age.
    pub meta: Meta,
    /// `spec.parentRefs`, in the order of the spec.
    pub parent_refs: Vec<ParentRef>,
    /// `spec.hostnames`; empty means every host of the listener.
    pub hostnames: Vec<String>,
    /// `spec.rules`, in the order of the spec.
    pub rules: Vec<HttpRouteRule>,
}

/// Kind of a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// HTTPRoute.
    #[default]
    Http,
    /// GRPCRoute.
    Grpc,
    /// TCPRoute.
    Tcp,
}

impl RouteKind {
    /// As the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tcp => "TCPRoute",
        }
    }

    /// As the kind of an object.
    pub fn object(self) -> ObjectKind {
        match self {
            Self::Http => ObjectKind::HttpRoute,
            Self::Grpc => ObjectKind::GrpcRoute,
            Self::Tcp => ObjectKind::TcpRoute,
        }
    }
}

impl HttpRoute {
    /// Which object this is.
    pub fn id(&self) -> ObjectId {
        ObjectId { kind: self.kind.object(), key: self.meta.key.clone() }
    }
}

/// A parent reference exactly as written, because the status repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParentRef {
    /// None means `gateway.networking.k8s.io`.
    pub group: Option<String>,
    /// None means Gateway.
    pub kind: Option<String>,
    /// None means the route's namespace.
    pub namespace: Option<String>,
    /// The parent's name.
    pub name: String,
    /// Only the listener of this name.
    pub section_name: Option<String>,
    /// Only listeners on this port.
    pub port: Option<u16>,
}

/// One of `spec.rules`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpRouteRule {
    /// `name`.
    pub name: Option<String>,
    /// `matches`; empty means everything.
    pub matches: Vec<HttpRouteMatch>,
    /// `filters`, in order.
    pub filters: Vec<HttpRouteFilter>,
    /// `backendRefs`, in order.
    pub backend_refs: Vec<HttpBackendRef>,
    /// `timeouts.request`; zero means none.
    pub request_timeout: Option<Duration>,
    /// `timeouts.backendRequest`; zero means none.
    pub backend_request_timeout: Option<Duration>,
    /// `retry`.
    pub retry: Option<HttpRetry>,
    /// Set fields of the rule that this control plane does not implement, e.g. `sessionPersistence`.
    pub unsupported_fields: Vec<String>,
}

/// `rules[].retry`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpRetry {
    /// Status codes that are worth another try.
    pub codes: Vec<u16>,
    /// Tries after the first; None means 1, zero switches retries off.
    pub attempts: Option<u32>,
    /// Least wait before another try.
    pub backoff: Option<Duration>,
}

/// One of `rules[].matches`; every part given has to match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpRouteMatch {
    /// `path`; the default is every path.
    pub path: PathMatch,
    /// `headers`; of several with one name (in any case) the first counts.
    pub headers: Vec<ValueMatch>,
    /// `queryParams`; of several with one name the first counts.
    pub query_params: Vec<ValueMatch>,
    /// `method`.
    pub method: Option<String>,
}

/// `path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole path elements from the start; `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    /// An RE2 expression for the whole path.
    RegularExpression(String),
    /// A GRPCRoute's `method`: the path is `/<service>/<method>`.
    Rpc {
        /// None is every service.
        service: Option<StringMatch>,
        /// None is every method.
        method: Option<StringMatch>,
    },
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

/// A header or query parameter to match.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ValueMatch {
    /// Header (case-insensitive) or parameter name.
    pub name: String,
    /// What the value has to be.
    pub value: StringMatch,
}

/// How a value is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// An RE2 expression for the whole value.
    RegularExpression(String),
}

/// A filter of a rule or of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HttpRouteFilter {
    /// `requestHeaderModifier`.
    RequestHeaderModifier(HeaderModifier),
    /// `responseHeaderModifier`.
    ResponseHeaderModifier(HeaderModifier),
    /// `requestRedirect`.
    RequestRedirect(RequestRedirect),
    /// `urlRewrite`.
    UrlRewrite(UrlRewrite),
    /// `requestMirror`.
    RequestMirror(RequestMirror),
    /// `cors`.
    Cors(CorsFilter),
    /// Anything else (`ExternalAuth`, `ExtensionRef`, types newer than this program), by its `type`.
    Unsupported(String),
}

/// Header changes: set replaces, add appends, remove deletes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HeaderModifier {
    /// Name and value.
    pub set: Vec<(String, String)>,
    /// Name and value.
    pub add: Vec<(String, String)>,
    /// Names.
    pub remove: Vec<String>,
}

/// `requestRedirect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct RequestRedirect {
    /// `http` or `https`; None keeps the request's.
    pub scheme: Option<String>,
    /// None keeps the request's.
    pub hostname: Option<String>,
    /// None keeps the request's.
    pub path: Option<PathModifier>,
    /// None: the scheme's well-known port if the scheme was given, else the listener's port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308; None means 302.
    pub status_code: Option<u16>,
}

/// `urlRewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct UrlRewrite {
    /// The Host for the backend.
    pub hostname: Option<String>,
    /// The path for the backend.
    pub path: Option<PathModifier>,
}

/// How a path is changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathModifier {
    /// `replaceFullPath`.
    ReplaceFullPath(String),
    /// `replacePrefixMatch`; only with a prefix match.
    ReplacePrefixMatch(String),
}

/// `requestMirror`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestMirror {
    /// Where the copies go.
    pub backend_ref: BackendRef,
    /// Part of the requests as numerator and denominator; None means all. `percent: 5` is `(5, 100)`.
    pub fraction: Option<(u32, u32)>,
}

/// `cors`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CorsFilter {
    /// Origins; `*` alone or as the leftmost label of a host.
    pub allow_origins: Vec<String>,
    /// Whether credentials may be sent.
    pub allow_credentials: bool,
    /// Methods, `*` for all.
    pub allow_methods: Vec<String>,
    /// Request headers, `*` for all.
    pub allow_headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose_headers: Vec<String>,
    /// Seconds a preflight answer may be cached; None leaves it to the browser.
    pub max_age: Option<u32>,
}

/// A reference to a backend, as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendRef {
    /// None means core.
    pub group: Option<String>,
    /// None means Service.
    pub kind: Option<String>,
    /// None means the route's namespace.
    pub namespace: Option<String>,
    /// The backend's name.
    pub name: String,
    /// Required for a Service.
    pub port: Option<u16>,
}

/// One of `rules[].backendRefs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpBackendRef {
    /// Where to.
    pub backend_ref: BackendRef,
    /// Share of the requests, relative to the others'; the API's default is 1.
    pub weight: u32,
    /// Filters for this backend's requests only.
    pub filters: Vec<HttpRouteFilter>,
}
