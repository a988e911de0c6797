//! Clusters of Services, of which a node's Envoy has only those that its pods call: each takes tens of kilobytes, and a mesh has thousands of
//! Services. A request or connection to any other waits until Envoy has asked for its cluster, which the node's agent has; a cluster that there
//! is not is told at once, so that it fails.
//!
//! Envoy asks for a name once and for all. So what has been asked for is sent unasked from then on: when it appears, changes, goes and comes
//! back, and to another process of Envoy at its start. That one does not ask for what it has got, so what it has counts as asked for, too.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::extensions::filters::http::on_demand::v3::{
    OnDemand, OnDemandCds, PerRouteConfig,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};

use envoy_types::pb::google::protobuf::Any;
use envoy_types::util::pack_any;

use super::http::http_filter;
use crate::envoy::common::{ads, duration};
use crate::{Event, Resources, TypeUrl};

const FILTER: &str = "envoy.filters.http.on_demand";
/// The agent may be away for a moment, also for what its container waits before it is started again. Envoy 1.40 does not wait for longer than
/// this, whatever it is told. What there never was is told at once; of what is gone again Envoy does not ask, and waits for as long.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What Envoy is offered of all clusters: those that every node has, and of Services the ones that it has asked for. Of the others nothing is
/// said, so who has one keeps it.
pub fn offered(all: &Resources, asked: &BTreeSet<Arc<str>>) -> Resources {
    let mut offered = Resources { partial: all.partial, absent: all.absent.clone(), ..Resources::default() };
    for cluster in all.iter() {
        if cluster.endpoints().is_none() || asked.contains(cluster.name()) {
            offered.insert(cluster.clone());
        } else {
            offered.leave_open(cluster.name().clone());
        }
    }
    offered
}

/// Clusters that Envoy asks for with this, and those that it has from before.
pub fn named(event: &Event) -> impl Iterator<Item = &Arc<str>> {
    let (subscribed, held) = match event {
        Event::Subscription { kind: TypeUrl::Cluster, subscribed, held, .. } => {
            (subscribed.as_slice(), held.as_slice())
        }
        _ => Default::default(),
    };
    subscribed.iter().chain(held)
}

/// Before anything that looks at the cluster of a request.
pub(super) fn of_requests() -> HttpFilter {
    let odcds =
        OnDemandCds { source: Some(ads()), timeout: Some(duration(TIMEOUT)), ..OnDemandCds::default() };
    http_filter(FILTER, OnDemand { odcds: Some(odcds) })
}

/// For requests to what is never a cluster: the router refuses them. Asked for, it would be waited for from the second time on.
pub(super) fn asks_for_nothing() -> HashMap<String, Any> {
    HashMap::from([(FILTER.to_owned(), pack_any(PerRouteConfig::default()))])
}

/// The same for connections.
pub(super) fn of_connections(proxy: TcpProxy) -> TcpProxy {
    let on_demand = tcp_proxy::OnDemand {
        odcds_config: Some(ads()),
        timeout: Some(duration(TIMEOUT)),
        ..tcp_proxy::OnDemand::default()
    };
    TcpProxy { on_demand: Some(on_demand), ..proxy }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};

    use super::super::parts::resource;
    use super::*;

    #[test]
    fn of_services_there_is_what_was_asked_for_and_nothing_is_said_of_others() {
        let cluster = |name: &str, kind: DiscoveryType| {
            let kind = Some(ClusterDiscoveryType::Type(kind as i32));
            resource(
                name,
                Cluster { name: name.to_owned(), cluster_discovery_type: kind, ..Cluster::default() },
            )
        };
        let mut all = Resources::default();
        all.insert(cluster("mtls", DiscoveryType::OriginalDst));
        ["a", "b"].iter().for_each(|name| all.insert(cluster(name, DiscoveryType::Eds)));
        let asked: BTreeSet<Arc<str>> = ["b", "c"].map(Arc::from).into();
        let offered = offered(&all, &asked);
        let names: Vec<_> = offered.iter().map(|one| &**one.name()).collect();
        assert_eq!(names, ["b", "mtls"]);
        let is_absent = ["a", "b", "c", "d"].map(|name| offered.is_absent(name));
        assert_eq!(is_absent, [false, false, true, true], "of what there is not it is told");
        all.set_partial(true);
        assert!(!super::offered(&all, &asked).is_absent("c"), "as long as not all is known it is not");
    }
}
