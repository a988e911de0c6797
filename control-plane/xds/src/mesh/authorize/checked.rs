//! Connections of which it is known what is to become of them.

use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;

use super::super::fixed::INBOUND;
use super::super::parts::{chain, internal_listener, tcp_filter, tcp_proxy};
use super::super::state;
use super::{ADMITTED, CHECKED, TRIED, VERDICT, counted};

/// There is no such cluster: the connection ends.
const NOWHERE: &str = "nowhere";

pub(super) fn listener() -> Listener {
    let text = format!("%CEL(filter_state['{VERDICT}'] in [b'{ADMITTED}',b'{TRIED}'] ? '{INBOUND}' : '')%");
    let cluster = state::unless_empty(state::value(state::CLUSTER, &text));
    let proxy = TcpProxy { access_log: counted::connections(), ..tcp_proxy("checked", NOWHERE) };
    let filters = vec![state::on_new_connection(vec![cluster]), tcp_filter(proxy)];
    Listener { filter_chains: vec![chain("checked", filters)], ..internal_listener(CHECKED) }
}
