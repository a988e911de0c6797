//! Labels, as Prometheus gets them.

use std::fmt::Write;

use meshwright_xds::mesh::signals::{Destination, Kind, Outcome, Series, Workload};

/// What all labels are where there are too many to tell.
const OTHER: &str = "other";

/// The labels of a kind of metrics, in their order. They come from the control plane's objects, from certificates and from Envoy, never from
/// what a client or a server says.
const CALLER: [&str; 3] = ["source_namespace", "source_workload", "source_service_account"];
const CALLED: [&str; 3] =
    ["destination_workload_namespace", "destination_workload", "destination_service_account"];
const SERVICE: [&str; 3] = ["destination_namespace", "destination_service", "destination_port"];

/// Names of the labels of a kind.
pub fn names(kind: Kind) -> Vec<&'static str> {
    let ended: &[&str] = match kind {
        Kind::Requests => &["protocol", "response_class", "grpc_status", "flags"],
        Kind::Closed | Kind::Accepted => &["flags"],
        Kind::Sent | Kind::Received => &["protocol"],
        _ => &[],
    };
    let service: &[&str] = if is_of_receiver(kind) { &[] } else { &SERVICE };
    [&CALLER, service, &CALLED, ended, &["mtls"]].concat()
}

/// Values of these labels.
pub fn values(series: &Series) -> Vec<String> {
    let Series { kind, own, destination, peer, protocol, outcome, flags, mtls } = series;
    let of = |Workload { namespace, name, account }: Workload| [namespace, name, account].to_vec();
    let peer = of(peer.clone().unwrap_or_default());
    let ended = match kind {
        Kind::Requests => {
            let (class, status) = match outcome {
                Outcome::None => (String::new(), String::new()),
                Outcome::Class(class) => (format!("{class}xx"), String::new()),
                Outcome::Grpc(status) => (String::new(), status.to_string()),
            };
            vec![protocol.clone(), class, status, flags.clone()]
        }
        Kind::Closed | Kind::Accepted => vec![flags.clone()],
        Kind::Sent | Kind::Received => vec![protocol.clone()],
        _ => Vec::new(),
    };
    let sides = if is_of_receiver(*kind) {
        [peer, Vec::new(), of(own.clone())].concat()
    } else {
        let service = match destination {
            Destination::Service { namespace, name, port } => {
                vec![namespace.clone(), name.clone(), port.to_string()]
            }
            Destination::Pod | Destination::Outside | Destination::Nothing => vec![String::new(); 3],
        };
        [of(own.clone()), service, peer].concat()
    };
    [sides, ended, vec![mtls.to_string()]].concat()
}

/// Values for what cannot be told.
pub fn other(kind: Kind) -> Vec<String> {
    vec![OTHER.to_owned(); names(kind).len()]
}

/// `{name="value",…}`, with `more` at the end.
pub fn written(kind: Kind, values: &[String], more: Option<(&str, &str)>) -> String {
    let mut text = String::from("{");
    let own = names(kind).into_iter().zip(values.iter().map(String::as_str));
    for (name, value) in own.chain(more) {
        let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        // Writing to a String cannot fail.
        let _ = write!(text, "{}{name}=\"{escaped}\"", if text.len() > 1 { "," } else { "" });
    }
    text.push('}');
    text
}

/// Whether the receiver's side tells it: it does not know which Service was called.
fn is_of_receiver(kind: Kind) -> bool {
    matches!(kind, Kind::Accepted | Kind::AcceptedReceived | Kind::AcceptedSent)
}
