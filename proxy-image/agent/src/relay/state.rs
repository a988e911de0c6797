//! The relay's decisions, without I/O: what Envoy should have, and what the control plane is told.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use envoy_types::pb::google::rpc::Status;
use meshwright_xds::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Event, Resource, Resources, Snapshot, TypeUrl,
};

/// Secrets that the agent itself serves: these, and pods' certificates, which are called by the identities that they name.
const LOCAL_SECRETS: [&str; 2] = ["workload", "roots"];
const PODS_SECRETS: &str = "spiffe://";

const WILDCARDS: [TypeUrl; 2] = [TypeUrl::Cluster, TypeUrl::Listener];
const FAILED_PRECONDITION: i32 = 9;

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

/// A response of the control plane that Envoy has not judged yet.
#[derive(Debug)]
struct Pending {
    kind: TypeUrl,
    /// None after the stream it came on ended: nobody to tell any more.
    nonce: Option<String>,
    generation: u64,
    resources: Vec<Arc<Resource>>,
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
    wanted: BTreeMap<TypeUrl, BTreeSet<Name>>,
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
            pending: VecDeque::new(),
            settled: BTreeMap::new(),
            first_generation: BTreeMap::new(),
        }
    }
}

impl State {
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
            let names: Vec<String> =
                self.wanted.get(&kind).into_iter().flatten().map(|n| n.to_string()).collect();
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
            let is_wanted = self.wanted.get(&kind).is_some_and(|wanted| wanted.contains(name.as_str()));
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
        self.resolve()
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

    // Endpoints change all the time, also while Envoy is away or crashes again and again: what is replaced before it
    // was judged will not be, so it is not kept, and with nothing left its response is acknowledged. Types that can
    // be refused for what users write wait: their answers become conditions.
    fn supersede(&mut self, updates: &[Arc<Resource>], removals: &[String]) {
        let names = updates.iter().map(|update| &**update.name());
        let names: BTreeSet<&str> = names.chain(removals.iter().map(String::as_str)).collect();
        for pending in self.pending.iter_mut().filter(|pending| pending.kind == TypeUrl::Endpoint) {
            pending.resources.retain(|resource| !names.contains(&**resource.name()));
        }
    }

    // A cluster is followed by its endpoints, or by the word that there are none. Until then what was said of them before is void: a cluster that
    // changed and hears that there are none takes the place of the one before without any, and one that gets old ones keeps them.
    fn reopen(&mut self, cluster: &Resource) {
        let Some(endpoints) = cluster.endpoints() else { return };
        let known = self.candidate.resources(TypeUrl::Endpoint);
        let is_wanted = self.wanted.get(&TypeUrl::Endpoint).is_some_and(|wanted| wanted.contains(endpoints));
        let is_void = |known: &Arc<Resources>| {
            known.is_absent(endpoints) || !is_wanted && known.get(endpoints).is_some()
        };
        if known.is_some_and(is_void) {
            self.candidate.edit(TypeUrl::Endpoint).forget(endpoints);
        }
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
        let mut message = request(kind);
        for name in subscribed.iter().filter(|name| !is_local(kind, name)) {
            // What Envoy asks for again is answered from here.
            if wanted.insert(name.clone()) {
                message.resource_names_subscribe.push(name.to_string());
            }
        }
        let mut forgotten = false;
        for name in unsubscribed.iter().filter(|name| !is_local(kind, name)) {
            if wanted.remove(name) {
                message.resource_names_unsubscribe.push(name.to_string());
                self.candidate.edit(kind).forget(name);
                self.accepted.remove(&(kind, name.clone()));
                self.rejected.remove(&(kind, name.clone()));
                self.refused.remove(&(kind, name.clone()));
                forgotten = true;
            }
        }
        if forgotten {
            self.bump();
        }
        let news =
            !message.resource_names_subscribe.is_empty() || !message.resource_names_unsubscribe.is_empty();
        news.then_some(message)
    }

    // Answers what Envoy has judged, and what it does not care about.
    fn resolve(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        let mut waiting = VecDeque::new();
        for pending in std::mem::take(&mut self.pending) {
            if !self.is_judged(&pending) {
                waiting.push_back(pending);
                continue;
            }
            let mut errors = Vec::new();
            for resource in &pending.resources {
                let key = (pending.kind, resource.name().clone());
                match self.rejected.get(&key) {
                    Some(refused) if refused.version == *resource.version() => {
                        errors.push(format!("{}: {}", resource.name(), refused.message));
                    }
                    _ => {
                        let current = self.candidate.get(pending.kind, resource.name());
                        if current.is_some_and(|current| current.version() == resource.version()) {
                            self.accepted.insert(key, resource.clone());
                        }
                    }
                }
            }
            let Some(nonce) = pending.nonce else { continue };
            let error_detail = (!errors.is_empty()).then(|| Status {
                code: FAILED_PRECONDITION,
                message: errors.join("; "),
                ..Status::default()
            });
            requests.push(DeltaDiscoveryRequest {
                response_nonce: nonce,
                error_detail,
                ..request(pending.kind)
            });
        }
        self.pending = waiting;
        requests
    }

    fn is_judged(&self, pending: &Pending) -> bool {
        if self.settled.get(&pending.kind).is_some_and(|settled| *settled >= pending.generation) {
            return true;
        }
        // Endpoints that came along with a cluster before Envoy asked for them, and the like.
        let wanted = self.wanted.get(&pending.kind);
        let wants = |resource: &Arc<Resource>| wanted.is_some_and(|wanted| wanted.contains(resource.name()));
        !WILDCARDS.contains(&pending.kind) && !pending.resources.iter().any(wants)
    }

    fn bump(&mut self) {
        self.candidate.set_generation(self.candidate.generation() + 1);
    }
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
