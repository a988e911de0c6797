//! The snapshot of one Gateway, changed where its configuration or endpoints change: of thousands of resources most stay.
//!
//! A cluster that no route names any more stays for a while: a request may have been routed to it a moment ago, and a route that comes back
//! soon, as in a canary that is turned up and down, finds it warm. Without that, 200 quick route changes failed some ten requests of 6,000.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use meshwright_core::config::{BackendProtocol, ClusterRef};
use meshwright_core::model::SecretState;
use meshwright_core::{ObjectKey, difference};
use meshwright_index::GatewayOutput;
use meshwright_xds::envoy::{self, Backends, EncodedHosts};
use meshwright_xds::{Resource, Snapshot, TypeUrl};
use tokio::time::Instant;

/// How long a cluster outlives its last route.
pub(super) const LINGER: Duration = Duration::from_secs(60);

/// Backends by cluster.
pub(super) type AllBackends = BTreeMap<Arc<ClusterRef>, Arc<Backends>>;

/// What the last snapshot of a Gateway was made from.
#[derive(Default)]
pub(super) struct Made {
    gateway: Option<Arc<GatewayOutput>>,
    /// Of the clusters that linger, too.
    backends: AllBackends,
    /// Clusters that no route names any more, and since when.
    lingering: BTreeMap<Arc<ClusterRef>, Instant>,
    hosts: EncodedHosts,
    snapshot: Arc<Snapshot>,
}

impl Made {
    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    pub(super) fn is_of(&self, gateway: &Arc<GatewayOutput>) -> bool {
        self.gateway.as_ref().is_some_and(|known| Arc::ptr_eq(known, gateway))
    }

    pub(super) fn lingering(&self) -> impl Iterator<Item = &ClusterRef> {
        self.lingering.keys().map(AsRef::as_ref)
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.lingering.values().map(|since| *since + LINGER).min()
    }

    /// Takes backends that are others now; false if none is of a cluster here.
    pub(super) fn follow_backends(&mut self, moved: &[Arc<ClusterRef>], all: &AllBackends) -> bool {
        if !moved.iter().any(|cluster| self.backends.contains_key(cluster)) {
            return false;
        }
        let before = self.backends.clone();
        self.take_backends(moved, all);
        self.edit(|snapshot, made| show_clusters(snapshot, &before, &made.backends));
        true
    }

    /// Follows another configuration, and backends. While a proxy is `behind` no cluster goes: its last good routes may name any.
    pub(super) fn follow(
        &mut self,
        gateway: &Arc<GatewayOutput>,
        moved: &[Arc<ClusterRef>],
        all: &AllBackends,
        behind: bool,
        now: Instant,
    ) {
        let known = self.gateway.replace(gateway.clone());
        let none = BTreeSet::new();
        let named = known.as_ref().map_or(&none, |known| &*known.clusters);
        let before = self.backends.clone();
        self.take_backends(moved, all);
        let unnamed = named.difference(&gateway.clusters);
        let unnamed = unnamed.filter_map(|cluster| self.backends.get_key_value(cluster));
        self.lingering.extend(unnamed.map(|(cluster, _)| (cluster.clone(), now)));
        self.let_go(&gateway.clusters, behind, now);
        for cluster in gateway.clusters.difference(named) {
            // The index publishes both together; whatever it is, the cluster has to be known to linger later.
            let (cluster, found) = match all.get_key_value(cluster) {
                Some((cluster, found)) => (cluster.clone(), found.clone()),
                None => (Arc::new(cluster.clone()), Arc::default()),
            };
            self.backends.insert(cluster, found);
        }
        let mut certificate = |key: &ObjectKey| match gateway.certificates.get(key).map(Arc::as_ref) {
            Some(SecretState::Ok(certificate)) => Some(certificate.clone()),
            _ => None,
        };
        let options = envoy::Options::default();
        let translation = envoy::translate(&gateway.config, &options, &mut certificate, &self.hosts);
        self.hosts = translation.hosts;
        let mut resources = translation.resources;
        self.edit(|snapshot, made| {
            show_clusters(snapshot, &before, &made.backends);
            for kind in [TypeUrl::Listener, TypeUrl::Route, TypeUrl::Secret] {
                show(snapshot, kind, resources.remove(&kind).unwrap_or_default());
            }
        });
    }

    /// Takes away clusters that lingered long enough; false if there is none.
    pub(super) fn expire(&mut self, behind: bool, now: Instant) -> bool {
        let Some(gateway) = self.gateway.clone() else { return false };
        let before = self.backends.clone();
        self.let_go(&gateway.clusters, behind, now);
        let changed = before.len() != self.backends.len();
        if changed {
            self.edit(|snapshot, made| show_clusters(snapshot, &before, &made.backends));
        }
        changed
    }

    fn take_backends(&mut self, moved: &[Arc<ClusterRef>], all: &AllBackends) {
        for cluster in moved {
            if let (Some(known), Some(found)) = (self.backends.get_mut(cluster), all.get(cluster)) {
                known.clone_from(found);
            }
        }
    }

    /// Ends the lingering of clusters whose time is over, and of those whose name is wanted again, perhaps spoken to in another way.
    fn let_go(&mut self, named: &BTreeSet<ClusterRef>, behind: bool, now: Instant) {
        let backends = &mut self.backends;
        self.lingering.retain(|cluster, since| {
            let mut is_over = now.duration_since(*since) >= LINGER;
            if is_over && behind {
                // For as long as that lasts and a while after.
                (*since, is_over) = (now, false);
            }
            let lingers = !is_over && !is_wanted(named, cluster);
            if !lingers {
                backends.remove(cluster);
            }
            lingers
        });
    }

    fn edit(&mut self, change: impl FnOnce(&mut Snapshot, &Self)) {
        let mut snapshot = Snapshot::clone(&self.snapshot);
        snapshot.set_generation(snapshot.generation() + 1);
        change(&mut snapshot, self);
        self.snapshot = Arc::new(snapshot);
    }
}

/// Whether a cluster of that name is among these: the name does not tell how it is spoken to.
fn is_wanted(named: &BTreeSet<ClusterRef>, cluster: &ClusterRef) -> bool {
    let protocols = [BackendProtocol::Http1, BackendProtocol::H2c];
    protocols.into_iter().any(|protocol| named.contains(&ClusterRef { protocol, ..cluster.clone() }))
}

/// Shows these clusters and endpoints instead of those. A cluster that is there changes only when its backends' identities do.
fn show_clusters(snapshot: &mut Snapshot, before: &AllBackends, after: &AllBackends) {
    let changed = || difference(before, after, Arc::ptr_eq);
    // First, because a cluster that is spoken to in another way now has the same name, and so may its endpoints.
    for (cluster, known) in changed().filter_map(|cluster| before.get_key_value(cluster)) {
        if !after.contains_key(cluster) {
            snapshot.edit(TypeUrl::Cluster).remove(&envoy::cluster::name(cluster));
        }
        let name = envoy::endpoint::name(cluster, known);
        if after.get(cluster).is_none_or(|found| envoy::endpoint::name(cluster, found) != name) {
            snapshot.edit(TypeUrl::Endpoint).remove(&name);
        }
    }
    for (cluster, found) in changed().filter_map(|cluster| after.get_key_value(cluster)) {
        let resource = envoy::cluster::resource(cluster, found);
        let known = snapshot.get(TypeUrl::Cluster, resource.name());
        if known.is_none_or(|known| known.version() != resource.version()) {
            snapshot.edit(TypeUrl::Cluster).insert(resource);
        }
        snapshot.edit(TypeUrl::Endpoint).insert(envoy::endpoint::resource(cluster, found));
    }
}

/// Shows these resources of a type and no others. A type that is as it was keeps its allocation, which is how a stream sees at a glance
/// that it has nothing to send.
fn show(snapshot: &mut Snapshot, kind: TypeUrl, wanted: BTreeMap<Arc<str>, Resource>) {
    let known = snapshot.resources(kind).cloned().unwrap_or_default();
    for resource in known.iter().filter(|known| !wanted.contains_key(known.name())) {
        snapshot.edit(kind).remove(resource.name());
    }
    for (name, resource) in wanted {
        if known.get(&name).is_none_or(|known| known.version() != resource.version()) {
            snapshot.edit(kind).insert(resource);
        }
    }
}
