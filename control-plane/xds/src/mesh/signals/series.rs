//! Names of the statistics: how they are made, as formats for Envoy, and read again.

/// The scope that has all of them.
pub(super) const SCOPE: &str = "mesh";
/// The scope with what is counted whatever the labels.
pub(super) const WHOLE: &str = "mesh_all";
/// The tag.
pub(super) const TAG: &str = "by";
/// Between the parts of a workload; none of them can have it.
pub(in super::super) const SEPARATOR: &str = ",";
/// Between labels.
pub(super) const LABELS: char = ';';
/// What Envoy writes for what is not there.
const ABSENT: &str = "-";
/// gRPC status of a server that says one that there is not.
const UNKNOWN: u32 = 2;
/// gRPC statuses that mean that the server failed, as 5xx does.
const GRPC_FAILURES: [u32; 6] = [2, 4, 12, 13, 14, 15];

/// What a statistic counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// HTTP requests that ended.
    Requests,
    /// A histogram: milliseconds from the first byte of a request to the last of its response.
    Duration,
    /// Bytes that pods sent.
    Sent,
    /// Bytes that pods got as answers.
    Received,
    /// Connections of other protocols that reached somebody.
    Opened,
    /// Connections of other protocols that ended, also those that reached nobody.
    Closed,
    /// Connections to pods over mutual TLS that could not be made, whatever was to be spoken.
    Unreached,
    /// Of these the ones whose handshake failed.
    HandshakesFailed,
    /// Connections that pods accepted over mutual TLS, and that ended.
    Accepted,
    /// Bytes that came in by them.
    AcceptedReceived,
    /// Bytes that went out by them.
    AcceptedSent,
}

impl Kind {
    pub(super) const ALL: [Self; 11] = [
        Self::Requests,
        Self::Duration,
        Self::Sent,
        Self::Received,
        Self::Opened,
        Self::Closed,
        Self::Unreached,
        Self::HandshakesFailed,
        Self::Accepted,
        Self::AcceptedReceived,
        Self::AcceptedSent,
    ];

    /// Envoy's name for it, within the scope.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Duration => "duration",
            Self::Sent => "sent",
            Self::Received => "received",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Unreached => "unreached",
            Self::HandshakesFailed => "handshakes_failed",
            Self::Accepted => "accepted",
            Self::AcceptedReceived => "accepted_received",
            Self::AcceptedSent => "accepted_sent",
        }
    }
}

/// What pods are replicas of.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name; empty where only an identity is known.
    pub name: String,
    /// Its service account.
    pub account: String,
}

/// What was called.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// A Service, by the port of it.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// A pod of the mesh, by its own address.
    Pod,
    /// Something that is not in the mesh.
    Outside,
    /// Nothing: the request went nowhere.
    #[default]
    Nothing,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Without a response.
    #[default]
    None,
    /// First digit of the status code.
    Class(u32),
    /// gRPC status, from 0 to 16.
    Grpc(u32),
}

impl Outcome {
    /// Whether the server says that it failed.
    pub fn is_server_error(self) -> bool {
        match self {
            Self::None => false,
            Self::Class(class) => class == 5,
            Self::Grpc(status) => GRPC_FAILURES.contains(&status),
        }
    }
}

/// One of Envoy's statistics.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    /// What it counts.
    pub kind: Kind,
    /// Who called; who was called, where it is the receiver that tells.
    pub own: Workload,
    /// What was called; [`Destination::Nothing`] where it is the receiver that tells.
    pub destination: Destination,
    /// The other side, where it has an identity. Then mutual TLS was spoken with it, or tried.
    pub peer: Option<Workload>,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`, or `TCP`.
    pub protocol: String,
    /// How it ended, of requests.
    pub outcome: Outcome,
    /// Envoy's response flags, with commas between them; empty if there are none.
    pub flags: String,
    /// Whether mutual TLS was spoken, or tried.
    pub mtls: bool,
}

/// What names of all of these statistics begin with, to ask Envoy for no others.
pub fn prefixes() -> [&'static str; 2] {
    [SCOPE, WHOLE]
}

/// Reads the full name of a statistic of ours, as Envoy's administration interface says it; None for any other.
pub fn parse(name: &str) -> Option<Series> {
    let (kind, labels) = name.strip_prefix(SCOPE)?.strip_prefix('.')?.split_once('.')?;
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
    let labels = labels.strip_prefix(TAG)?.strip_prefix('.')?;
    let mut labels = labels.split(LABELS).map(|label| if label == ABSENT { "" } else { label });
    let own = workload_in(labels.next()?).unwrap_or_default();
    let cluster = labels.next()?;
    let peer = workload_in(labels.next()?);
    let mut next = || labels.next().unwrap_or_default().to_owned();
    let (protocol, code, status, flags) = (next(), next(), next(), next());
    let destination = destination(cluster);
    Some(Series {
        mtls: peer.is_some() || destination == Destination::Pod,
        kind,
        own,
        destination,
        peer,
        protocol,
        outcome: outcome(&code, &status),
        flags,
    })
}

/// Whether the statistic of this name counts requests, which have a limit of their own.
pub fn is_of_requests(name: &str) -> bool {
    let rest = name.strip_prefix(SCOPE).and_then(|rest| rest.strip_prefix('.'));
    rest.and_then(|rest| rest.strip_prefix(Kind::Requests.name())).is_some_and(|rest| rest.starts_with('.'))
}

/// What a statistic without labels counts, of all of this kind together; None for any other.
pub fn parse_whole(name: &str) -> Option<Kind> {
    let kind = name.strip_prefix(WHOLE)?.strip_prefix('.')?;
    Kind::ALL.into_iter().find(|known| known.name() == kind)
}

/// A workload as we wrote it, or a SPIFFE id.
fn workload_in(text: &str) -> Option<Workload> {
    if let Some((namespace, account)) = of_identity(text) {
        return Some(Workload {
            namespace: namespace.to_owned(),
            name: String::new(),
            account: account.to_owned(),
        });
    }
    let mut parts = text.split(SEPARATOR).map(str::to_owned);
    Some(Workload { namespace: parts.next()?, name: parts.next()?, account: parts.next()? })
}

/// Namespace and service account of a SPIFFE id.
pub(super) fn of_identity(identity: &str) -> Option<(&str, &str)> {
    let path = identity.strip_prefix("spiffe://")?.split_once("/ns/")?.1;
    let (namespace, account) = path.split_once("/sa/")?;
    // Of a node's agent there is more.
    Some((namespace, account.split('/').next().unwrap_or_default()))
}

fn destination(cluster: &str) -> Destination {
    let service = || {
        let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|');
        let port = parts.next()?.parse().ok()?;
        let (name, namespace) = (parts.next()?.to_owned(), parts.next()?.to_owned());
        Some(Destination::Service { namespace, name, port })
    };
    match cluster {
        "" => Destination::Nothing,
        super::super::fixed::MTLS => Destination::Pod,
        _ => service().unwrap_or(Destination::Outside),
    }
}

/// By status code and gRPC status, either of which a server makes up as it likes.
fn outcome(code: &str, status: &str) -> Outcome {
    match (status, code.parse::<u32>()) {
        ("", Ok(code)) if code > 0 => Outcome::Class(code / 100),
        ("", _) => Outcome::None,
        (status, _) => Outcome::Grpc(status.parse().ok().filter(|status| *status <= 16).unwrap_or(UNKNOWN)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(namespace: &str, name: &str, account: &str) -> Workload {
        Workload { namespace: namespace.to_owned(), name: name.to_owned(), account: account.to_owned() }
    }

    #[test]
    fn a_name_is_read_again() {
        let name =
            "mesh.requests.by.shop,front.v1,default;outbound|80|web|shop;shop,web,web;HTTP/2;200;14;UF,URX";
        let series = parse(name).unwrap();
        let expected = Series {
            kind: Kind::Requests,
            own: workload("shop", "front.v1", "default"),
            destination: Destination::Service {
                namespace: "shop".to_owned(),
                name: "web".to_owned(),
                port: 80,
            },
            peer: Some(workload("shop", "web", "web")),
            protocol: "HTTP/2".to_owned(),
            outcome: Outcome::Grpc(14),
            flags: "UF,URX".to_owned(),
            mtls: true,
        };
        assert_eq!(series, expected);
    }

    #[test]
    fn what_is_absent_is_empty() {
        let series = parse("mesh.requests.by.-;-;-;HTTP/1.1;0;-;-").unwrap();
        assert_eq!(series.own, Workload::default());
        assert_eq!((series.destination, series.peer), (Destination::Nothing, None));
        assert_eq!((series.outcome, series.flags.as_str(), series.mtls), (Outcome::None, "", false));
    }

    #[test]
    fn where_it_went_is_told_apart() {
        let of = |cluster: &str, peer: &str| {
            let series =
                parse(&format!("mesh.closed.by.shop,front,front;{cluster};{peer};TCP;-;-;-")).unwrap();
            (series.destination, series.peer.map(|peer| peer.account), series.mtls)
        };
        assert_eq!(of("passthrough", "-"), (Destination::Outside, None, false));
        let pod = of("mtls", "spiffe://cluster.local/ns/shop/sa/back");
        assert_eq!(pod, (Destination::Pod, Some("back".to_owned()), true));
        assert_eq!(of("mtls", "-"), (Destination::Pod, None, true), "the handshake failed");
    }

    #[test]
    fn the_receiver_tells_by_identities() {
        let name = "mesh.accepted.by.spiffe://td/ns/shop/sa/back;-;spiffe://td/ns/edge/sa/gateway;TCP;-;-;-";
        let series = parse(name).unwrap();
        assert_eq!(series.own, workload("shop", "", "back"));
        assert_eq!(series.peer, Some(workload("edge", "", "gateway")));
    }

    #[test]
    fn any_other_name_is_none_of_ours() {
        for name in [
            "mesh.requests",
            "mesh.other.by.a",
            "mesh_all.requests",
            "cluster.mesh.requests.by.a",
            "mesh.requests.by.a;b",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
        assert_eq!(parse_whole("mesh_all.requests"), Some(Kind::Requests));
        assert_eq!(parse_whole("mesh.requests"), None);
    }

    #[test]
    fn what_a_server_makes_up_is_one_of_a_few() {
        assert_eq!(outcome("404", ""), Outcome::Class(4));
        assert_eq!(outcome("999", ""), Outcome::Class(9));
        assert_eq!(outcome("200", "0"), Outcome::Grpc(0));
        for made_up in ["17", "-1", "123456789012", "x"] {
            assert_eq!(outcome("200", made_up), Outcome::Grpc(2), "{made_up}");
        }
    }

    #[test]
    fn what_servers_call_their_own_failure() {
        let failures = [Outcome::Class(5), Outcome::Grpc(14), Outcome::Grpc(2)];
        let others = [Outcome::None, Outcome::Class(4), Outcome::Grpc(0), Outcome::Grpc(5)];
        assert!(failures.iter().all(|outcome| outcome.is_server_error()));
        assert!(!others.iter().any(|outcome| outcome.is_server_error()));
    }
}
