//! What only the node knows, put into what the control plane sent: where pods' network namespaces are. Pure.
//!
//! Listeners `pod/<uid>/…` have the placeholder `pod:<uid>` as the namespace of their addresses. It becomes a path; while there is none, Envoy
//! does not get the listener. As long as there is one it keeps the listener, also when the control plane takes it away: established
//! connections of a pod that leaves go through it. Of a listener that Envoy has from before this process, and that nobody sends any more, nothing
//! is said for as long: what is not told apart from Envoy's own is not taken away either. What Envoy refuses of a pod is between it and us: the same listener may be fine in the pod's
//! next namespace, so the control plane need not send another. What a listener refers to stays as long as the listener, see [`policies`].
//!
//! Of clusters Envoy gets those that it asks for, see [`demand`].

mod places;
mod policies;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::envoy::config::{endpoint::v3::ClusterLoadAssignment, listener::v3::Listener};
use meshwright_xds::{Event, Resource, Resources, Snapshot, TypeUrl, mesh::demand};
use places::{Places, edited};
use policies::Policies;

type Name = Arc<str>;

/// What every pod of the mesh has.
const DIRECTIONS: [&str; 2] = ["outbound", "inbound"];

/// The types of which Envoy gets something else than the control plane sent.
const RENDERED: [TypeUrl; 3] = [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::ExtensionConfig];
/// The same where there is no IPv6.
const RENDERED_FOR_IPV4: [TypeUrl; 4] =
    [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::ExtensionConfig];

/// See the module.
#[derive(Debug)]
pub struct Pods {
    /// The kernel has no IPv6.
    ipv4_only: bool,
    /// Paths by uid.
    namespaces: BTreeMap<String, String>,
    /// Those of them in which Envoy may have listeners from before this process, as long as they are the same.
    inherited: BTreeMap<String, String>,
    /// What was rendered last, by type.
    sources: BTreeMap<TypeUrl, Arc<Resources>>,
    rendered: BTreeMap<(TypeUrl, Name), Rendered>,
    /// Clusters that Envoy has asked for, some process of it, or has. It asks once, and then wants to hear of it for ever.
    asked: BTreeSet<Name>,
    /// Versions of pods' listeners as Envoy was given them, and what it said.
    refused: BTreeMap<Name, (Name, String)>,
    settled: Option<u64>,
    policies: Policies,
    out: Snapshot,
}

#[derive(Debug, Clone)]
struct Rendered {
    source: Arc<Resource>,
    path: Option<String>,
    resource: Arc<Resource>,
    /// The generation that had it first.
    since: u64,
    /// What Envoy took before, in the same namespace.
    good: Option<Arc<Resource>>,
}

/// No pod has a namespace yet.
impl Default for Pods {
    fn default() -> Self {
        Self {
            ipv4_only: false,
            namespaces: BTreeMap::new(),
            inherited: BTreeMap::new(),
            sources: BTreeMap::new(),
            rendered: BTreeMap::new(),
            asked: BTreeSet::new(),
            refused: BTreeMap::new(),
            settled: None,
            policies: Policies::default(),
            out: Snapshot::unknown(),
        }
    }
}

impl Pods {
    /// The same for a kernel that has no IPv6: what the control plane sent for both families is made for IPv4.
    #[must_use]
    pub fn for_ipv4_only(self, ipv4_only: bool) -> Self {
        Self { ipv4_only, ..self }
    }

    /// Where pods' namespaces were, by uid, when a process before this one told Envoy so.
    pub fn inherit(&mut self, namespaces: BTreeMap<String, String>) {
        self.inherited.clone_from(&namespaces);
        self.set_namespaces(namespaces);
    }

    /// Where pods' namespaces are, by uid: everything. The next rendering has it.
    pub fn set_namespaces(&mut self, namespaces: BTreeMap<String, String>) {
        self.inherited.retain(|uid, path| namespaces.get(uid) == Some(path));
        self.refused.retain(|name, _| uid(name).is_some_and(|uid| namespaces.contains_key(uid)));
        self.namespaces = namespaces;
        self.sources.remove(&TypeUrl::Listener);
        self.sources.remove(&TypeUrl::ExtensionConfig);
    }

    /// What Envoy should have. Of a higher generation than the one before if anything changed.
    pub fn render(&mut self, source: &Snapshot) -> Snapshot {
        let changed: &[_] = if self.ipv4_only { &RENDERED_FOR_IPV4 } else { &RENDERED };
        for kind in TypeUrl::ALL.iter().copied() {
            let Some(resources) = source.resources(kind) else { continue };
            if !changed.contains(&kind) {
                self.out.share(kind, resources.clone());
            } else if !self.sources.get(&kind).is_some_and(|known| Arc::ptr_eq(known, resources)) {
                let rendered = match kind {
                    TypeUrl::ExtensionConfig => self.policies.render(resources, self.namespaces.keys()),
                    TypeUrl::Cluster => demand::offered(resources, &self.asked),
                    _ => self.render_all(kind, resources, source.generation()),
                };
                self.out.share(kind, Arc::new(rendered));
                self.sources.insert(kind, resources.clone());
            }
        }
        self.out.set_generation(source.generation());
        self.out.clone()
    }

    fn render_all(&mut self, kind: TypeUrl, source: &Resources, generation: u64) -> Resources {
        let mut all = source.clone();
        let known = std::mem::take(&mut self.rendered);
        let (mut before, others) =
            known.into_iter().partition::<BTreeMap<_, _>, _>(|((of, _), _)| *of == kind);
        self.rendered = others;
        for resource in source.iter() {
            let name = resource.name();
            let known = before.remove(&(kind, name.clone()));
            match self.render_one(kind, resource, known, generation) {
                Some(rendered) => {
                    match self.offered(&rendered) {
                        Some(resource) => all.insert(resource),
                        None => all.forget(name),
                    }
                    self.rendered.insert((kind, name.clone()), rendered);
                }
                None => all.forget(name),
            }
        }
        // Not sent any more, but still needed.
        for ((_, name), kept) in before {
            let path = kept.path.as_ref().filter(|_| kind == TypeUrl::Listener);
            if path.is_some() && uid(&name).and_then(|uid| self.namespaces.get(uid)) == path {
                self.offered(&kept).into_iter().for_each(|resource| all.insert(resource));
                self.rendered.insert((kind, name), kept);
            }
        }
        let inherited =
            self.inherited.keys().filter(|_| kind == TypeUrl::Listener).flat_map(|uid| names(uid));
        for name in inherited.filter(|name| all.get(name).is_none()).collect::<Vec<_>>() {
            all.leave_open(name);
        }
        all
    }

    /// What Envoy gets: the newest, or what it took before if it refused that.
    fn offered(&self, rendered: &Rendered) -> Option<Arc<Resource>> {
        let refused = self.refused.get(rendered.resource.name());
        let is_refused = refused.is_some_and(|(version, _)| version == rendered.resource.version());
        if is_refused { rendered.good.clone() } else { Some(rendered.resource.clone()) }
    }

    /// None for the listener of a pod without a namespace.
    fn render_one(
        &self,
        kind: TypeUrl,
        source: &Arc<Resource>,
        known: Option<Rendered>,
        generation: u64,
    ) -> Option<Rendered> {
        let uid = uid(source.name()).filter(|_| kind == TypeUrl::Listener);
        let path = match uid {
            Some(uid) => Some(self.namespaces.get(uid)?.clone()),
            None => None,
        };
        let known = known.filter(|known| known.path == path);
        if let Some(known) = known.as_ref().filter(|known| known.source.version() == source.version()) {
            return Some(known.clone());
        }
        let places = Places {
            pod: uid.map(|uid| format!("pod:{uid}")),
            path: path.as_deref(),
            ipv4_only: self.ipv4_only,
        };
        let body = match kind {
            TypeUrl::Listener => {
                edited(source.body(), |listener: &mut Listener| places.in_listener(listener))
            }
            _ => edited(source.body(), |all: &mut ClusterLoadAssignment| places.in_assignment(all)),
        };
        let resource = match body {
            None => source.clone(),
            Some(body) => Arc::new(Resource::with_version(
                source.name().clone(),
                version(source.version(), path.as_deref()),
                body,
            )),
        };
        let good = known.and_then(|known| known.good);
        Some(Rendered { source: source.clone(), path, resource, since: generation, good })
    }

    /// Whether Envoy asks for a cluster for the first time. The next rendering has it, if there is one.
    pub fn asks(&mut self, event: &Event) -> bool {
        let before = self.asked.len();
        self.asked.extend(demand::named(event).cloned());
        let asks = self.asked.len() > before;
        if asks {
            self.sources.remove(&TypeUrl::Cluster);
        }
        asks
    }

    /// What Envoy says, without what it says about pods' listeners, and of what the control plane sent. The next rendering goes by it.
    pub fn on_downstream(&mut self, event: Event) -> Event {
        match event {
            Event::Settled { kind: TypeUrl::Listener, generation } => self.settle(generation),
            Event::Closed { .. } => self.settled = None,
            Event::Nack { kind: TypeUrl::Listener, mut resources, message } => {
                let of_pods = resources.extract_if(.., |(name, _)| uid(name).is_some());
                let of_pods: Vec<_> =
                    of_pods.map(|(name, version)| (name, (version, message.clone()))).collect();
                if !of_pods.is_empty() {
                    self.refused.extend(of_pods);
                    self.sources.remove(&TypeUrl::Listener);
                }
                return Event::Nack { kind: TypeUrl::Listener, resources, message };
            }
            Event::Nack { kind: TypeUrl::ExtensionConfig, resources, message } => {
                let resources = resources.into_iter().map(Policies::as_sent).collect();
                return Event::Nack { kind: TypeUrl::ExtensionConfig, resources, message };
            }
            _ => {}
        }
        event
    }

    fn settle(&mut self, generation: u64) {
        self.settled = Some(generation);
        let refused = &self.refused;
        for rendered in self.rendered.values_mut().filter(|rendered| rendered.path.is_some()) {
            let is_refused = refused
                .get(rendered.resource.name())
                .is_some_and(|(version, _)| version == rendered.resource.version());
            if rendered.since <= generation && !is_refused {
                rendered.good = Some(rendered.resource.clone());
            }
        }
    }

    /// A new process has nothing, and may judge differently. What its pods have called it gets at once; what there is not any more, it asks for
    /// itself if there is one again.
    pub fn envoy_restarted(&mut self) {
        if let Some(clusters) = self.sources.get(&TypeUrl::Cluster).filter(|all| !all.is_partial()) {
            self.asked.retain(|name| clusters.get(name).is_some());
        }
        self.settled = None;
        self.refused.clear();
        self.inherited.clear();
        self.sources.remove(&TypeUrl::Listener);
    }

    /// Uids of the pods for which Envoy has taken its listeners as they are now.
    pub fn opened(&self) -> BTreeSet<String> {
        let taken = |uid: &str| {
            names(uid).into_iter().all(|name| {
                let rendered = self.rendered.get(&(TypeUrl::Listener, name));
                let settled =
                    |rendered: &Rendered| self.settled.is_some_and(|settled| settled >= rendered.since);
                rendered.is_some_and(|rendered| settled(rendered) && self.offered(rendered).is_some())
            })
        };
        self.namespaces.keys().filter(|uid| taken(uid)).cloned().collect()
    }

    /// Why Envoy refused a listener of the pod, if it did.
    pub fn refusal(&self, uid: &str) -> Option<String> {
        names(uid).iter().find_map(|name| self.refused.get(name)).map(|(_, message)| message.clone())
    }
}

/// The listeners of a pod.
fn names(uid: &str) -> [Name; 2] {
    DIRECTIONS.map(|direction| format!("pod/{uid}/{direction}").into())
}

/// Whose listener that is.
fn uid(listener: &str) -> Option<&str> {
    listener.strip_prefix("pod/")?.split('/').next()
}

/// The path is part of it: with another one Envoy needs another listener.
fn version(source: &str, path: Option<&str>) -> String {
    path.map_or_else(|| source.to_owned(), |path| format!("{source}@{path}"))
}

#[cfg(test)]
mod tests;
