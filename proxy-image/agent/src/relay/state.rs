//! The relay's decisions, without I/O: what Envoy should have, and what the control plane is told.

mod ahead;
mod judged;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use judged::Pending;
use meshwright_xds::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Event, Resource, Snapshot, TypeUrl};

/// Secrets that the agent itself serves: these, and pods' certificates, which are called by the identities that they name.
const LOCAL_SECRETS: [&str; 2] = ["workload", "roots"];
const PODS_SECRETS: &str = "spiffe://";

const WILDCARDS: [TypeUrl; 2] = [TypeUrl::Cluster, TypeUrl::Listener];

type Name = Arc<str>;

/// How far Envoy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Configured {
    /// It has not judged a full set of clusters and listeners yet.
    #[default]
    No,
    /// It has, but lacks a route or a certificate that its listeners name: not sent yet, or refused without an older
    /// one to fall back to. On that listener's port it answers 404, or nothing.
    Partly,
    /// It has all it asked for, as far as that exists.
    Fully,
}

#[derive(Debug)]
struct Rejected {
    version: Name,
    message: String,
}

/// See the module.
#[derive(Debug)]
pub struct State {
    /// What Envoy is offered: the newest of everything, unless Envoy refused that.
    candidate: Snapshot,
    accepted: BTreeMap<(TypeUrl, Name), Arc<Resource>>,
    rejected: BTreeMap<(TypeUrl, Name), Rejected>,
    /// Versions that some process of Envoy rejected last.
    refused: BTreeMap<(TypeUrl, Name), Name>,
    /// What Envoy asked for.
    wanted: BTreeMap<TypeUrl, BTreeSet<Name>>,
    /// Endpoints of all clusters, where Envoy asks for clusters when it needs them: by then it must not depend on the control plane.
    ahead: Option<BTreeSet<Name>>,
    pending: VecDeque<Pending>,
    settled: BTreeMap<TypeUrl, u64>,
    first_generation: BTreeMap<TypeUrl, u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            candidate: Snapshot::unknown(),
            accepted: BTreeMap::new(),
            rejected: BTreeMap::new(),
            refused: BTreeMap::new(),
            wanted: BTreeMap::new(),
            ahead: None,
            pending: VecDeque::new(),
            settled: BTreeMap::new(),
            first_generation: BTreeMap::new(),
        }
    }
}

impl State {
    /// Of an Envoy that asks for clusters when it needs them.
    pub fn on_demand() -> Self {
        Self { ahead: Some(BTreeSet::new()), ..Self::default() }
    }

    /// What Envoy should have.
    pub fn snapshot(&self) -> &Snapshot {
        &self.candidate
    }

    /// How far this Envoy is.
    pub fn configured(&self) -> Configured {
        let settled = WILDCARDS.iter().all(|kind| {
            let first = self.first_generation.get(kind);
            first.is_some_and(|first| self.settled.get(kind).is_some_and(|settled| settled >= first))
        });
        match settled {
            false => Configured::No,
            true if self.lacks_something() => Configured::Partly,
            true => Configured::Fully,
        }
    }

    /// Whether Envoy has taken this version of a resource.
    pub fn has_taken(&self, kind: TypeUrl, name: &str, version: &str) -> bool {
        let taken = self.accepted.get(&(kind, name.into()));
        taken.is_some_and(|taken| **taken.version() == *version)
    }

    /// Whether Envoy refused this version of a resource and is not offered it any more, also since it was started anew.
    pub fn has_refused(&self, kind: TypeUrl, name: &str, version: &str) -> bool {
        let is = |known: Option<&Name>| known.is_some_and(|known| **known == *version);
        let offered = self.candidate.get(kind, name).map(|offered| offered.version());
        is(self.refused.get(&(kind, name.into()))) && !is(offered)
    }

    // Not only what was refused: until Envoy has judged, nobody knows. Behind a listener that was refused nobody even asks for routes.
    fn lacks_something(&self) -> bool {
        let refused = |key: &(TypeUrl, Name)| WILDCARDS.contains(&key.0) && !self.accepted.contains_key(key);
        if self.rejected.keys().any(refused) {
            return true;
        }
        let lacks = |kind: TypeUrl, name: &Name| {
            let absent = self.candidate.resources(kind).is_some_and(|all| all.is_absent(name));
            !absent && !self.accepted.contains_key(&(kind, name.clone()))
        };
        let kinds = [TypeUrl::Route, TypeUrl::Secret].into_iter();
        kinds
            .filter_map(|kind| Some((kind, self.wanted.get(&kind)?)))
            .any(|(kind, names)| names.iter().any(|name| lacks(kind, name)))
    }

    /// A secret the control plane never sees.
    pub fn set_local_secret(&mut self, secret: Resource) {
        self.candidate.edit(TypeUrl::Secret).insert(secret);
        self.bump();
    }

    /// Takes such a secret away. Envoy keeps it as long as it asks for it.
    pub fn remove_local_secret(&mut self, name: &str) {
        self.candidate.edit(TypeUrl::Secret).forget(name);
        self.bump();
    }

    /// Something that is put into what Envoy is offered has changed.
    pub fn touch(&mut self) {
        self.bump();
    }

    /// Everything Envoy wants, and everything we hold, on a new stream.
    pub fn on_upstream_connected(&mut self) -> Vec<DeltaDiscoveryRequest> {
        for pending in &mut self.pending {
            pending.nonce = None;
        }
        let mut requests = Vec::new();
        for kind in TypeUrl::ALL.iter().copied() {
            let ahead = self.ahead.iter().filter(|_| kind == TypeUrl::Endpoint);
            let names: BTreeSet<&Name> = self.wanted.get(&kind).into_iter().chain(ahead).flatten().collect();
            let names: Vec<String> = names.into_iter().map(|n| n.to_string()).collect();
            let wildcard = WILDCARDS.contains(&kind);
            if names.is_empty() && !wildcard {
                continue;
            }
            let held = self.candidate.resources(kind);
            let held =
                held.iter().flat_map(|all| all.iter()).filter(|resource| !is_local(kind, resource.name()));
            requests.push(DeltaDiscoveryRequest {
                initial_resource_versions: held
                    .map(|resource| (resource.name().to_string(), resource.version().to_string()))
                    .collect(),
                resource_names_subscribe: if wildcard { vec!["*".to_owned()] } else { names },
                ..request(kind)
            });
        }
        requests
    }

    /// New configuration: offered to Envoy now, answered when Envoy has judged it.
    pub fn on_upstream(&mut self, response: DeltaDiscoveryResponse) -> Vec<DeltaDiscoveryRequest> {
        let Some(kind) = TypeUrl::parse(&response.type_url) else {
            tracing::warn!(type_url = response.type_url, "control plane sent an unknown type");
            return Vec::new();
        };
        let first = WILDCARDS.contains(&kind) && !self.first_generation.contains_key(&kind);
        let mut changed = first;
        let mut resources = Vec::new();
        for wire in response.resources {
            let Some(body) = wire.resource else { continue };
            if is_local(kind, &wire.name) {
                tracing::warn!(name = wire.name, "control plane sent a secret of ours");
                continue;
            }
            let resource = Arc::new(Resource::with_version(wire.name, wire.version, body));
            self.reopen(&resource);
            let refused = self.rejected.get(&(kind, resource.name().clone()));
            if refused.is_none_or(|refused| refused.version != *resource.version()) {
                changed |= self.offer(kind, &resource);
            }
            resources.push(resource);
        }
        for name in response.removed_resources.iter().filter(|name| !is_local(kind, name)) {
            self.accepted.remove(&(kind, name.as_str().into()));
            self.rejected.remove(&(kind, name.as_str().into()));
            self.refused.remove(&(kind, name.as_str().into()));
            let is_wanted = self.is_asked_for(kind, name);
            let held = self.candidate.edit(kind);
            if is_wanted || WILDCARDS.contains(&kind) {
                held.remove(name);
            } else {
                // Whoever asks for it later asks anew.
                held.forget(name);
            }
            changed = true;
        }
        if first {
            self.candidate.edit(kind).set_partial(false);
        }
        if changed {
            self.bump();
        }
        let generation = self.candidate.generation();
        if first {
            self.first_generation.insert(kind, generation);
        }
        if kind == TypeUrl::Endpoint {
            self.supersede(&resources, &response.removed_resources);
        }
        self.pending.push_back(Pending { kind, nonce: Some(response.nonce), generation, resources });
        let mut requests = self.resolve();
        if kind == TypeUrl::Cluster {
            requests.extend(self.look_ahead());
        }
        requests
    }

    fn forget(&mut self, kind: TypeUrl, names: &[Name]) {
        for name in names {
            self.candidate.edit(kind).forget(name);
            self.accepted.remove(&(kind, name.clone()));
            self.rejected.remove(&(kind, name.clone()));
            self.refused.remove(&(kind, name.clone()));
        }
        if !names.is_empty() {
            self.bump();
        }
    }

    /// Envoy asked, judged, or went away.
    pub fn on_downstream(&mut self, event: Event) -> Vec<DeltaDiscoveryRequest> {
        match event {
            Event::Subscription { kind, subscribed, unsubscribed, .. } => {
                let mut requests: Vec<_> =
                    self.subscribe(kind, &subscribed, &unsubscribed).into_iter().collect();
                requests.extend(self.resolve());
                requests
            }
            Event::Settled { kind, generation } => {
                self.settled.insert(kind, generation);
                self.resolve()
            }
            Event::Nack { kind, resources, message } => {
                for (name, version) in resources {
                    self.reject(kind, name, version, &message);
                }
                Vec::new()
            }
            Event::Closed { .. } => {
                self.envoy_disconnected();
                Vec::new()
            }
            Event::Ack { .. } => Vec::new(),
            Event::UnknownType(url) => {
                tracing::warn!(url, "envoy asked for an unknown type");
                Vec::new()
            }
        }
    }

    /// What Envoy judged on a stream that ended says nothing about the next one.
    pub fn envoy_disconnected(&mut self) {
        self.settled.clear();
    }

    /// A new process may judge differently.
    pub fn envoy_restarted(&mut self) {
        self.rejected.clear();
        self.settled.clear();
    }

    fn offer(&mut self, kind: TypeUrl, resource: &Arc<Resource>) -> bool {
        let known = self.candidate.get(kind, resource.name());
        if known.is_some_and(|known| known.version() == resource.version()) {
            return false;
        }
        self.candidate.edit(kind).insert(resource.clone());
        true
    }

    // Back to what Envoy accepted before: a restarted Envoy must not stumble over the bad version.
    fn reject(&mut self, kind: TypeUrl, name: Name, version: Name, message: &str) {
        if is_local(kind, &name) {
            return;
        }
        let current = self.candidate.get(kind, &name).is_some_and(|current| *current.version() == version);
        if current {
            match self.accepted.get(&(kind, name.clone())) {
                Some(good) if *good.version() != version => {
                    self.candidate.edit(kind).insert(good.clone());
                }
                _ => self.candidate.edit(kind).forget(&name),
            }
            self.bump();
        }
        self.refused.insert((kind, name.clone()), version.clone());
        self.rejected.insert((kind, name), Rejected { version, message: message.to_owned() });
    }

    fn subscribe(
        &mut self,
        kind: TypeUrl,
        subscribed: &[Name],
        unsubscribed: &[Name],
    ) -> Option<DeltaDiscoveryRequest> {
        if WILDCARDS.contains(&kind) {
            return None; // asked for since the stream began
        }
        let wanted = self.wanted.entry(kind).or_default();
        let ahead = self.ahead.as_ref().filter(|_| kind == TypeUrl::Endpoint);
        let is_ours = |name: &Name| is_local(kind, name) || ahead.is_some_and(|ahead| ahead.contains(name));
        // What Envoy asks for again is answered from here.
        let new: Vec<_> = subscribed.iter().filter(|name| !is_local(kind, name)).collect();
        let new: Vec<_> = new.into_iter().filter(|name| wanted.insert((*name).clone())).collect();
        let gone = unsubscribed.iter().filter(|name| wanted.remove(*name));
        let gone: Vec<_> = gone.filter(|name| !is_ours(name)).cloned().collect();
        let message = DeltaDiscoveryRequest {
            resource_names_subscribe: new
                .into_iter()
                .filter(|name| !is_ours(name))
                .map(|n| n.to_string())
                .collect(),
            resource_names_unsubscribe: gone.iter().map(|name| name.to_string()).collect(),
            ..request(kind)
        };
        self.forget(kind, &gone);
        is_news(&message).then_some(message)
    }

    fn bump(&mut self) {
        self.candidate.set_generation(self.candidate.generation() + 1);
    }
}

fn is_news(message: &DeltaDiscoveryRequest) -> bool {
    !message.resource_names_subscribe.is_empty() || !message.resource_names_unsubscribe.is_empty()
}

fn is_local(kind: TypeUrl, name: &str) -> bool {
    kind == TypeUrl::Secret && (LOCAL_SECRETS.contains(&name) || name.starts_with(PODS_SECRETS))
}

fn request(kind: TypeUrl) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.as_str().to_owned(), ..DeltaDiscoveryRequest::default() }
}

#[cfg(test)]
mod flips;
#[cfg(test)]
mod tests;
