//! Endpoints of one Service port. Apart from `resolve`, because they change far more often and change nothing
//! else.

use std::collections::BTreeMap;

use crate::model::{EndpointSlice, Near, ObjectKey, SliceEndpoint, World};

/// Where a Service port's requests can go, by zone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// Endpoints by zone, `""` for unknown; each zone sorted, without repetition.
    pub zones: BTreeMap<String, Vec<Endpoint>>,
}

/// One pod's port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// IP address.
    pub address: String,
    /// The pod's port.
    pub port: u16,
    /// Whether new requests may go there.
    pub health: EndpointHealth,
    /// The node it is on.
    pub node: Option<String>,
}

/// Whether new requests may go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointHealth {
    /// Ready.
    Ready,
    /// Terminating, but still serving: finishes what it has, and takes new requests only when nobody is
    /// ready.
    Draining,
}

impl Endpoints {
    /// Whether some endpoint is ready.
    pub fn has_ready(&self) -> bool {
        self.zones.values().flatten().any(|endpoint| endpoint.health == EndpointHealth::Ready)
    }

    /// Those that a client on this node gets, in its zone if that is known; None if that is all.
    pub fn near(&self, near: Near, node: &str, zone: Option<&str>) -> Option<Self> {
        let on_node = || self.only(|_, endpoint| endpoint.node.as_deref() == Some(node));
        let in_zone = || zone.map(|zone| self.only(|of, _| of == zone));
        let found = match near {
            Near::Anywhere => None,
            Near::Zone => in_zone().filter(Self::has_ready),
            Near::Node => {
                Some(on_node()).filter(Self::has_ready).or_else(|| in_zone().filter(Self::has_ready))
            }
            Near::NodeOnly => Some(on_node()),
        };
        found.filter(|found| found != self)
    }

    fn only(&self, is_meant: impl Fn(&str, &Endpoint) -> bool) -> Self {
        let zones = self.zones.iter().map(|(zone, all)| {
            (zone.clone(), all.iter().filter(|endpoint| is_meant(zone, endpoint)).cloned().collect())
        });
        Self { zones: zones.filter(|(_, all): &(_, Vec<_>)| !all.is_empty()).collect() }
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.zones.values().all(Vec::is_empty)
    }
}

/// The endpoints of a Service's port. Empty for a Service or port that does not exist. EndpointSlices are
/// matched to the port by its name, as kube-proxy does, so named target ports, headless and selectorless
/// Services all work alike.
pub fn endpoints(world: &World, service: &ObjectKey, port: u16) -> Endpoints {
    let mut result = Endpoints::default();
    let Some(service_port) = world.services.get(service).and_then(|found| {
        found.ports.iter().find(|candidate| candidate.port == port && candidate.protocol == "TCP")
    }) else {
        return result;
    };
    let slices = world.endpoint_slices.get(service).into_iter().flat_map(BTreeMap::values);
    for slice in slices.filter(|slice| !slice.fqdn) {
        for target in slice_ports(slice, &service_port.name) {
            for endpoint in &slice.endpoints {
                add(&mut result, endpoint, target);
            }
        }
    }
    for zone in result.zones.values_mut() {
        // One address may be in two slices while the controller moves it, with differing conditions: Ready
        // sorts first and stays.
        zone.sort();
        zone.dedup_by(|a, b| a.address == b.address && a.port == b.port);
    }
    result
}

fn slice_ports<'a>(slice: &'a EndpointSlice, name: &'a str) -> impl Iterator<Item = u16> + 'a {
    slice
        .ports
        .iter()
        .filter(move |port| port.name == name && port.protocol == "TCP")
        .filter_map(|port| port.port)
}

fn add(result: &mut Endpoints, endpoint: &SliceEndpoint, port: u16) {
    let health = if endpoint.ready && !endpoint.terminating {
        EndpointHealth::Ready
    } else if endpoint.serving && endpoint.terminating {
        EndpointHealth::Draining
    } else if endpoint.ready {
        // publishNotReadyAddresses: ready although terminating.
        EndpointHealth::Ready
    } else {
        return;
    };
    let Some(address) = endpoint.addresses.first() else { return };
    result.zones.entry(endpoint.zone.clone().unwrap_or_default()).or_default().push(Endpoint {
        address: address.clone(),
        port,
        health,
        node: endpoint.node.clone(),
    });
}

#[cfg(test)]
mod tests;
