//! Who is let in, at the proxy of the pod that is called.
//!
//! ```text
//! pod/<uid>/inbound ─ pod/<uid>/policy ─┬─ no policy ───────────────► inbound, the application
//!   who calls, which port    (ECDS)     ├─ by who calls ─► inbound/checked ─► inbound, or nowhere
//!                                       └─ by requests ──► inbound/http ─ inbound/rules (ECDS) ─► inbound/app
//! ```
//!
//! A pod's listener refers to one extension. It chooses the way by the port, and when the caller has shown its certificate it notes what is to
//! become of the connection: `inbound/checked` acts on that before the application hears anything, also where the server speaks first.
//! (Envoy's RBAC filter for connections waits for the caller's first bytes, and its TCP proxy has chosen its cluster before the handshake.)
//! Where nothing was noted there is no way. Requests are looked at by one connection manager for all pods of the node, so that a pod without
//! such rules has none of its memory; which pod and which port it is about, it is told with the connection.

mod checked;
mod connections;
mod counted;
mod http;
mod open;
mod requests;

use envoy_types::pb::envoy::config::core::v3::ExtensionConfigSource;
use envoy_types::pb::envoy::config::listener::v3::{Filter, Listener, filter};
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3::Config;
use meshwright_core::mesh::{Node, PodPolicy};
use prost::Name;

pub use self::open::{is_open_policy, open_policy, rules_with};
use super::parts::{extension, resource};
use super::tls::is_spiffe;
use crate::Resource;
use crate::envoy::common::ads;

/// The internal listeners, and the clusters that lead there.
pub(super) const CHECKED: &str = "inbound/checked";
pub(super) const HTTP: &str = "inbound/http";
/// The cluster from requests to the application of the pod that was called.
pub(super) const APPLICATION: &str = "inbound/app";
/// The extension with the rules about requests, of all pods of the node.
pub const RULES: &str = "inbound/rules";

/// Filter state for the connection manager and for what counts: the pod, the port that was called, SPIFFE ids of caller and called.
const POD: &str = "meshwright.io/pod";
const PORT: &str = "meshwright.io/port";
const CALLER: &str = "meshwright.io/caller";
const CALLED: &str = "meshwright.io/called";
/// All of these together.
const APART: &str = "meshwright.io/apart";
/// What is to become of a connection: one of the words below.
const VERDICT: &str = "meshwright.io/verdict";
const ADMITTED: &str = "admitted";
/// Admitted, and policies that are only tried would have refused it.
const TRIED: &str = "tried";
const REFUSED: &str = "refused";

/// The name of a pod's extension.
pub fn policy_name(uid: &str) -> String {
    format!("pod/{uid}/policy")
}

/// The uid of the pod whose extension this is.
pub fn pod_of_policy(name: &str) -> Option<&str> {
    name.strip_prefix("pod/")?.strip_suffix("/policy")
}

/// The filter that decides about connections to a pod. Without its extension there are none.
pub(super) fn filter(uid: &str) -> Filter {
    let source = ExtensionConfigSource {
        config_source: Some(ads()),
        type_urls: vec![Config::type_url()],
        ..ExtensionConfigSource::default()
    };
    Filter { name: policy_name(uid), config_type: Some(filter::ConfigType::ConfigDiscovery(source)) }
}

/// What that filter does.
pub(super) fn policy(uid: &str, identity: &str, policy: Option<&PodPolicy>) -> Resource {
    let authorization = policy.map(|policy| &policy.authorization);
    resource(
        &policy_name(uid),
        extension(&policy_name(uid), connections::config(uid, identity, authorization)),
    )
}

/// The rules about requests to pods of a node.
pub(super) fn rules(node: Option<&Node>) -> Resource {
    let pods = node.into_iter().flat_map(|node| &node.policies);
    let rules = requests::rules(pods.map(|(uid, policy)| (uid.as_str(), &policy.authorization)));
    resource(RULES, extension(RULES, rules))
}

/// The internal listeners.
pub(super) fn listeners() -> [Listener; 2] {
    [checked::listener(), http::listener()]
}

/// A SPIFFE id, or the beginning of one, in which nothing can be taken for anything else.
fn plain(text: &str) -> Option<&str> {
    is_spiffe(text).then_some(text)
}
