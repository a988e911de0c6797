//! Filter state: what travels with a connection from hop to hop inside the proxy.
//!
//! What tells pods apart is the network namespace that a connection has to leave from. It alone is made by the factory
//! `envoy.hashable_string`, so it is part of what connections upstream are pooled by: with any other factory two pods would share connections,
//! and one would speak in the other's name and from its address. It is the right one, because who has none cannot connect at all. A second such
//! object would add nothing and cost much: Envoy hashes them in no particular order, so each pod would have two pools for everything.

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{CelExpressionConfig, DataSource, SubstitutionFormatString};
use envoy_types::pb::envoy::config::listener::v3::{Filter, ListenerFilter};
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::filter_state_value::{
    Key, SharedWithUpstream, Value,
};
use envoy_types::pb::envoy::extensions::filters::{listener, network};
use envoy_types::pb::envoy::extensions::formatter::cel::v3::Cel;

use super::parts::{self, extension};

/// Secret that Envoy shows as client certificate: that of the pod that called.
pub(super) const IDENTITY: &str = "envoy.tls.certificate_mappers.on_demand_secret";
/// Namespace that connections upstream leave from.
pub(super) const NAMESPACE: &str = "envoy.network.upstream_bind_override.network_namespace";
/// Where a connection through an internal listener wants to go; the filter `original_dst` makes it its local address.
pub(super) const DESTINATION: &str = "envoy.filters.listener.original_dst.local_ip";
/// Where ORIGINAL_DST clusters connect to, if not to the local address.
pub(super) const DIAL: &str = "envoy.network.transport_socket.original_dst_address";
/// Overrides the cluster of a TCP proxy.
pub(super) const CLUSTER: &str = "envoy.tcp_proxy.cluster";
/// SNI upstream: by the wire format the port that the caller wanted.
pub(super) const SERVER_NAME: &str = "envoy.network.upstream_server_name";
/// Names of which the server's certificate must have one, instead of what the cluster says.
pub(super) const SUBJECT: &str = "envoy.network.upstream_subject_alt_names";
/// ALPN upstream.
pub(super) const ALPN: &str = "envoy.network.application_protocols";

/// Which workload the connection came from, as [`super::signals::workload`] writes it.
pub(super) const SOURCE: &str = "meshwright.io/source";
/// Which workload it goes to, in the same way.
pub(super) const PEER: &str = "meshwright.io/peer";
/// The cluster that a request goes to, for the hop behind it.
pub(super) const SERVICE: &str = "meshwright.io/service";

const HASHABLE: &str = "envoy.hashable_string";
const STRING: &str = "envoy.string";

/// An object of a kind that Envoy knows by its name, made from a format string, for this connection only.
pub(super) fn value(object: &str, text: &str) -> FilterStateValue {
    FilterStateValue {
        key: Some(Key::ObjectKey(object.to_owned())),
        value: Some(Value::FormatString(format(text))),
        ..FilterStateValue::default()
    }
}

/// The same, made from a text whose expressions may take strings apart.
pub(super) fn with_parts(value: FilterStateValue) -> FilterStateValue {
    let cel_config =
        Some(CelExpressionConfig { enable_string_functions: true, ..CelExpressionConfig::default() });
    let mut value = value;
    if let Some(Value::FormatString(format)) = &mut value.value {
        format.formatters.push(extension("envoy.formatter.cel", Cel { cel_config }));
    }
    value
}

/// A string under a name of ours.
pub(super) fn string(object: &str, text: &str) -> FilterStateValue {
    FilterStateValue { factory_key: STRING.to_owned(), ..value(object, text) }
}

/// A string that keeps connections upstream apart, for every further hop.
pub(super) fn separating(object: &str, text: &str) -> FilterStateValue {
    FilterStateValue { factory_key: HASHABLE.to_owned(), ..handed_on_for_ever(value(object, text)) }
}

/// The same for every further hop.
pub(super) fn handed_on_for_ever(value: FilterStateValue) -> FilterStateValue {
    FilterStateValue { shared_with_upstream: SharedWithUpstream::Transitive as i32, ..value }
}

/// The same for the next hop as well, and no further.
pub(super) fn handed_on(value: FilterStateValue) -> FilterStateValue {
    FilterStateValue { shared_with_upstream: SharedWithUpstream::Once as i32, ..value }
}

/// The same, unless it is empty: then it stays what it was.
pub(super) fn unless_empty(value: FilterStateValue) -> FilterStateValue {
    FilterStateValue { skip_if_empty: true, ..value }
}

fn format(text: &str) -> SubstitutionFormatString {
    let specifier = Some(Specifier::InlineString(text.to_owned()));
    SubstitutionFormatString {
        // What is absent is empty, and not `-`.
        omit_empty_values: true,
        format: Some(Format::TextFormatSource(DataSource { specifier, ..DataSource::default() })),
        ..SubstitutionFormatString::default()
    }
}

/// Sets these when a connection comes.
pub(super) fn on_new_connection(values: Vec<FilterStateValue>) -> Filter {
    let config = network::set_filter_state::v3::Config { on_new_connection: values, ..Default::default() };
    parts::filter("envoy.filters.network.set_filter_state", config)
}

/// Sets these before a filter chain is chosen.
pub(super) fn on_accept(values: Vec<FilterStateValue>) -> ListenerFilter {
    let config = listener::set_filter_state::v3::Config { on_accept: values };
    parts::listener_filter("envoy.filters.listener.set_filter_state", config)
}
