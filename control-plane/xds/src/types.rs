//! What is served: resources, grouped by type into snapshots.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::google::protobuf::Any;
use prost::Message;
use sha2::{Digest, Sha256};

macro_rules! types {
    ($($(#[$doc:meta])* $name:ident = $url:literal,)*) => {
        /// Resource types, in the order in which their updates are sent.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum TypeUrl { $($(#[$doc])* $name,)* }

        impl TypeUrl {
            /// All types, in the order in which their updates are sent.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The URL on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => concat!("type.googleapis.com/", $url),)* }
            }
        }
    };
}

types! {
    /// CDS.
    Cluster = "envoy.config.cluster.v3.Cluster",
    /// EDS.
    Endpoint = "envoy.config.endpoint.v3.ClusterLoadAssignment",
    /// LDS.
    Listener = "envoy.config.listener.v3.Listener",
    /// RDS.
    Route = "envoy.config.route.v3.RouteConfiguration",
    /// SRDS.
    ScopedRoute = "envoy.config.route.v3.ScopedRouteConfiguration",
    /// VHDS.
    VirtualHost = "envoy.config.route.v3.VirtualHost",
    /// ECDS.
    ExtensionConfig = "envoy.config.core.v3.TypedExtensionConfig",
    /// SDS.
    Secret = "envoy.extensions.transport_sockets.tls.v3.Secret",
    /// RTDS.
    Runtime = "envoy.service.runtime.v3.Runtime",
}

impl TypeUrl {
    /// The type of that URL, if it is one we know.
    pub fn parse(url: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.as_str() == url)
    }

    /// Only for these does an empty first request mean "everything".
    pub(crate) fn legacy_wildcard(self) -> bool {
        matches!(self, Self::Cluster | Self::Listener)
    }
}

impl std::fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One named resource. Equal content has an equal version on every replica.
#[derive(Clone, PartialEq)]
pub struct Resource {
    name: Arc<str>,
    version: Arc<str>,
    body: Any,
    endpoints: Option<Arc<str>>,
}

// Without the body: a Secret's holds a private key, and Debug output ends in logs.
impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resource")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Resource {
    /// A resource whose version is the hash of its content.
    pub fn new(name: impl Into<Arc<str>>, body: Any) -> Self {
        let digest = Sha256::digest(&body.value);
        Self::with_digest(name, &digest, body)
    }

    /// A resource whose content was hashed part by part.
    pub(crate) fn with_digest(name: impl Into<Arc<str>>, digest: &[u8], body: Any) -> Self {
        Self::with_version(name, short(digest), body)
    }

    /// A resource that somebody else versioned: a relay must hand on what it got.
    pub fn with_version(name: impl Into<Arc<str>>, version: impl Into<Arc<str>>, body: Any) -> Self {
        let name = name.into();
        let endpoints = endpoints_of(&name, &body);
        Self { name, version: version.into(), body, endpoints }
    }

    /// Its name, unique within the type.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its version.
    pub fn version(&self) -> &Arc<str> {
        &self.version
    }

    /// The packed message.
    pub fn body(&self) -> &Any {
        &self.body
    }

    /// For a cluster with EDS, the name of its ClusterLoadAssignment.
    pub fn endpoints(&self) -> Option<&Arc<str>> {
        self.endpoints.as_ref()
    }
}

/// As much of a hash as tells contents apart.
pub(crate) fn short(digest: &[u8]) -> String {
    digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

// Read once here, not for each of thousands of streams.
fn endpoints_of(name: &Arc<str>, body: &Any) -> Option<Arc<str>> {
    if body.type_url != TypeUrl::Cluster.as_str() {
        return None;
    }
    let cluster = Cluster::decode(body.value.as_slice()).ok()?;
    let eds = cluster::DiscoveryType::Eds as i32;
    if cluster.cluster_discovery_type != Some(cluster::ClusterDiscoveryType::Type(eds)) {
        return None;
    }
    let service = cluster.eds_cluster_config.map(|config| config.service_name).unwrap_or_default();
    Some(if service.is_empty() { name.clone() } else { service.into() })
}

/// The resources of one type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resources {
    pub(crate) present: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Names known not to exist; only of interest while `partial`.
    pub(crate) absent: BTreeSet<Arc<str>>,
    /// Names in neither set are unknown, not absent: a relay still has to ask.
    pub(crate) partial: bool,
    /// Names that are unknown even if nothing else is.
    pub(crate) open: BTreeSet<Arc<str>>,
}

impl Resources {
    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.present.get(name)
    }

    /// All resources, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.present.values()
    }

    /// True if the name is known not to exist.
    pub fn is_absent(&self, name: &str) -> bool {
        let known = !self.open.contains(name) && (!self.partial || self.absent.contains(name));
        known && !self.present.contains_key(name)
    }

    /// Adds or replaces a resource.
    pub fn insert(&mut self, resource: impl Into<Arc<Resource>>) {
        let resource = resource.into();
        self.absent.remove(resource.name());
        self.open.remove(resource.name());
        self.present.insert(resource.name().clone(), resource);
    }

    /// Takes a resource away and remembers that it does not exist.
    pub fn remove(&mut self, name: &str) {
        self.present.remove(name);
        self.open.remove(name);
        if self.partial {
            self.absent.insert(name.into());
        }
    }

    /// Takes a resource away without a claim about whether it exists.
    pub fn forget(&mut self, name: &str) {
        self.present.remove(name);
        self.absent.remove(name);
    }

    /// Takes a resource away, and from now on says nothing of it: who has one keeps it.
    pub fn leave_open(&mut self, name: impl Into<Arc<str>>) {
        let name = name.into();
        self.forget(&name);
        self.open.insert(name);
    }

    /// Says whether names that are not here may exist nevertheless.
    pub fn set_partial(&mut self, partial: bool) {
        self.partial = partial;
    }

    /// See [`Resources::set_partial`].
    pub fn is_partial(&self) -> bool {
        self.partial
    }
}

/// Everything one proxy should have. Clones share all resources; a type that did not change shares its whole map,
/// which is how a session sees in one comparison that it has nothing to do.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    types: BTreeMap<TypeUrl, Arc<Resources>>,
    generation: u64,
}

impl Snapshot {
    /// Replaces the resources of one type. Of two resources with one name the later wins.
    #[must_use]
    pub fn with(mut self, kind: TypeUrl, resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut all = Resources::default();
        resources.into_iter().for_each(|resource| all.insert(resource));
        self.types.insert(kind, Arc::new(all));
        self
    }

    /// A snapshot that knows nothing yet: no name is answered with "does not exist".
    pub fn unknown() -> Self {
        let unknown = Arc::new(Resources { partial: true, ..Resources::default() });
        Self { types: TypeUrl::ALL.iter().map(|kind| (*kind, unknown.clone())).collect(), generation: 0 }
    }

    /// The resources of one type.
    pub fn resources(&self, kind: TypeUrl) -> Option<&Arc<Resources>> {
        self.types.get(&kind)
    }

    /// One resource.
    pub fn get(&self, kind: TypeUrl, name: &str) -> Option<&Arc<Resource>> {
        self.types.get(&kind)?.get(name)
    }

    /// Replaces the resources of one type by a whole map, which may be another snapshot's.
    pub fn share(&mut self, kind: TypeUrl, resources: Arc<Resources>) {
        self.types.insert(kind, resources);
    }

    /// The resources of one type, to change; the copy is shallow.
    pub fn edit(&mut self, kind: TypeUrl) -> &mut Resources {
        Arc::make_mut(self.types.entry(kind).or_default())
    }

    /// A number of the publisher's choice, increasing; [`crate::Event::Settled`] speaks of it.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Sets the generation.
    pub fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }
}
