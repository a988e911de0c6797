//! Where placeholders can be in Envoy's messages, and what of them a kernel without IPv6 cannot do: there Envoy refuses a whole resource for one
//! address of that family.

use std::net::Ipv6Addr;

use envoy_types::pb::envoy::config::{
    core::v3::{Address, SocketAddress, address::Address as Kind},
    endpoint::v3::{ClusterLoadAssignment, LbEndpoint, lb_endpoint::HostIdentifier},
    listener::v3::Listener,
};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;
use prost::Message;

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

    fn in_address(&self, address: &mut Address) -> bool {
        match &mut address.address {
            Some(Kind::SocketAddress(address)) => self.in_namespace(address) | self.in_family(address),
            _ => false,
        }
    }

    fn in_namespace(&self, address: &mut SocketAddress) -> bool {
        let place = &mut address.network_namespace_filepath;
        let path = self.path.filter(|_| self.pod.as_ref() == Some(place));
        path.inspect(|path| (*path).clone_into(place)).is_some()
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
