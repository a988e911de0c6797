//! Where placeholders can be in Envoy's messages, and what of them a kernel without IPv6 cannot do: there Envoy refuses a whole resource for one
//! address of that family.

use std::net::Ipv6Addr;

use envoy_types::pb::envoy::config::{
    cluster::v3::Cluster,
    core::v3::{Address, BindConfig, SocketAddress, address::Address as Kind},
    endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
    listener::v3::Listener,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use prost::Message;

/// The placeholder of the namespace that leads nowhere.
pub const BLACK_HOLE: &str = "blackhole";

/// The message with the change, or none if it changed nothing or is another message.
pub fn edited<M: Message + Default + prost::Name>(
    body: &Any,
    edit: impl FnOnce(&mut M) -> bool,
) -> Option<Any> {
    let mut message = M::decode(body.value.as_slice()).ok()?;
    edit(&mut message).then(|| pack_any(message))
}

/// What is to be put where.
pub struct Places<'a> {
    /// Path of the namespace that leads nowhere.
    pub black_hole: &'a str,
    /// The placeholder of the pod whose listener it is.
    pub pod: Option<String>,
    /// Path of its namespace.
    pub path: Option<&'a str>,
    /// The kernel has no IPv6.
    pub ipv4_only: bool,
}

impl Places<'_> {
    /// Returns whether anything changed.
    pub fn in_listener(&self, listener: &mut Listener) -> bool {
        let first = listener.address.iter_mut();
        let more = listener.additional_addresses.iter_mut().filter_map(|more| more.address.as_mut());
        first.chain(more).fold(false, |changed, address| self.in_address(address) | changed)
    }

    /// Returns whether anything changed.
    pub fn in_cluster(&self, cluster: &mut Cluster) -> bool {
        cluster.upstream_bind_config.as_mut().is_some_and(|bind| self.in_bind_config(bind))
    }

    /// Returns whether anything changed.
    pub fn in_assignment(&self, assignment: &mut ClusterLoadAssignment) -> bool {
        let mut changed = false;
        let localities = assignment.endpoints.iter_mut().filter(|_| self.ipv4_only);
        for locality in localities {
            let before = locality.lb_endpoints.len();
            locality.lb_endpoints.retain(|endpoint| !of_endpoint(endpoint).is_some_and(is_ipv6));
            changed |= locality.lb_endpoints.len() != before;
        }
        changed
    }

    fn in_bind_config(&self, bind: &mut BindConfig) -> bool {
        let before = bind.extra_source_addresses.len();
        let is_known = |source: &SocketAddress| !(self.ipv4_only && is_ipv6(source));
        bind.extra_source_addresses.retain(|extra| extra.address.as_ref().is_none_or(is_known));
        let is_less = bind.extra_source_addresses.len() != before;
        let first = bind.source_address.iter_mut();
        let more = bind.extra_source_addresses.iter_mut().filter_map(|more| more.address.as_mut());
        first.chain(more).fold(is_less, |changed, address| self.in_socket_address(address) | changed)
    }

    fn in_address(&self, address: &mut Address) -> bool {
        match &mut address.address {
            Some(Kind::SocketAddress(address)) => self.in_socket_address(address) | self.in_family(address),
            _ => false,
        }
    }

    fn in_socket_address(&self, address: &mut SocketAddress) -> bool {
        let place = &mut address.network_namespace_filepath;
        let found = match self.path {
            _ if *place == BLACK_HOLE => self.black_hole,
            Some(path) if self.pod.as_ref() == Some(place) => path,
            _ => return false,
        };
        found.clone_into(place);
        true
    }

    /// What takes both families takes IPv4.
    fn in_family(&self, address: &mut SocketAddress) -> bool {
        let both =
            self.ipv4_only && address.ipv4_compat && address.address == Ipv6Addr::UNSPECIFIED.to_string();
        if both {
            "0.0.0.0".clone_into(&mut address.address);
            address.ipv4_compat = false;
        }
        both
    }
}

fn is_ipv6(address: &SocketAddress) -> bool {
    address.address.parse::<Ipv6Addr>().is_ok()
}

fn of_endpoint(endpoint: &LbEndpoint) -> Option<&SocketAddress> {
    match &endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => match &endpoint.address.as_ref()?.address {
            Some(Kind::SocketAddress(address)) => Some(address),
            _ => None,
        },
        _ => None,
    }
}
