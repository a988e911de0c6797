//! Endpoints that are held before Envoy asks for them, where it asks for clusters when it needs them.

use std::{collections::BTreeSet, sync::Arc};

use meshwright_xds::{DeltaDiscoveryRequest, Resource, Resources, TypeUrl};

use super::{Name, State, is_news, request};

impl State {
    // Asks for the endpoints of clusters that are new, and no more for those of clusters that are gone.
    pub(super) fn look_ahead(&mut self) -> Option<DeltaDiscoveryRequest> {
        let ahead = self.ahead.as_mut()?;
        let clusters = self.candidate.resources(TypeUrl::Cluster);
        let now: BTreeSet<Name> =
            clusters.iter().flat_map(|all| all.iter()).filter_map(|one| one.endpoints().cloned()).collect();
        let before = std::mem::replace(ahead, now.clone());
        let wanted = self.wanted.get(&TypeUrl::Endpoint);
        let is_wanted = |name: &Name| wanted.is_some_and(|wanted| wanted.contains(name));
        let new = now.difference(&before).filter(|name| !is_wanted(name));
        let gone: Vec<_> = before.difference(&now).filter(|name| !is_wanted(name)).cloned().collect();
        let message = DeltaDiscoveryRequest {
            resource_names_subscribe: new.map(|name| name.to_string()).collect(),
            resource_names_unsubscribe: gone.iter().map(|name| name.to_string()).collect(),
            ..request(TypeUrl::Endpoint)
        };
        self.forget(TypeUrl::Endpoint, &gone);
        is_news(&message).then_some(message)
    }

    // Of the control plane, for Envoy or ahead of it.
    pub(super) fn is_asked_for(&self, kind: TypeUrl, name: &str) -> bool {
        let ahead = self.ahead.as_ref().filter(|_| kind == TypeUrl::Endpoint);
        self.wanted.get(&kind).into_iter().chain(ahead).any(|names| names.contains(name))
    }

    // A cluster is followed by its endpoints, or by the word that there are none. Until then what was said of them before is void: a cluster that
    // changed and hears that there are none takes the place of the one before without any, and one that gets old ones keeps them.
    pub(super) fn reopen(&mut self, cluster: &Resource) {
        let Some(endpoints) = cluster.endpoints() else { return };
        let known = self.candidate.resources(TypeUrl::Endpoint);
        let is_wanted = self.is_asked_for(TypeUrl::Endpoint, endpoints);
        let is_void = |known: &Arc<Resources>| {
            known.is_absent(endpoints) || !is_wanted && known.get(endpoints).is_some()
        };
        if known.is_some_and(is_void) {
            self.candidate.edit(TypeUrl::Endpoint).forget(endpoints);
        }
    }
}
