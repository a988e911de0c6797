//! Watches that go on: an object that does not decode is reported and skipped, an API that is not served is looked for again later.

mod discovery;
mod guarded;
#[cfg(test)]
mod tests;

use kube::core::{DeserializeGuard, NamespaceResourceScope};
use kube::runtime::watcher;
use kube::{Api, Resource};

pub use discovery::{Discovery, api_served};
pub use guarded::run;

/// Namespace (empty for cluster-scoped objects) and name.
pub type Key = (String, String);

/// What to watch.
#[derive(Clone)]
pub struct Source<K> {
    /// For logs, e.g. `httproutes`.
    pub what: &'static str,
    /// Where requests go; wide enough for every object that matters.
    pub client: kube::Client,
    /// Label and field selectors.
    pub config: watcher::Config,
    /// Where Events about objects that do not decode are published.
    pub recorder: Option<kube::runtime::events::Recorder>,
    /// Look whether the API is served before watching: for CustomResourceDefinitions that may be absent.
    pub optional: bool,
    api: Api<DeserializeGuard<K>>,
}

impl<K: Resource<DynamicType = ()> + Clone> Source<K> {
    /// All objects of a kind that every cluster serves.
    pub fn all(what: &'static str, client: kube::Client) -> Self {
        Self::of(what, Api::all(client))
    }

    /// Those of one namespace.
    pub fn namespaced(what: &'static str, client: kube::Client, namespace: &str) -> Self
    where
        K: Resource<Scope = NamespaceResourceScope>,
    {
        Self::of(what, Api::namespaced(client, namespace))
    }

    fn of(what: &'static str, api: Api<DeserializeGuard<K>>) -> Self {
        let client = api.clone().into_client();
        Self { what, client, config: watcher::Config::default(), recorder: None, optional: false, api }
    }

    /// The kind may be absent.
    #[must_use]
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Only objects with these labels.
    #[must_use]
    pub fn labels(mut self, selector: &str) -> Self {
        self.config = self.config.labels(selector);
        self
    }

    /// Publish Events about objects that do not decode.
    #[must_use]
    pub fn recorder(mut self, recorder: kube::runtime::events::Recorder) -> Self {
        self.recorder = Some(recorder);
        self
    }
}

/// A change of the watched set. `T` is what the caller made of each object at once, so that nothing large is buffered.
#[derive(Debug, Clone, PartialEq)]
pub enum Update<T> {
    /// The whole set, first of all and again whenever the watch had to start anew.
    Replaced {
        /// Every object that decodes.
        objects: Vec<(Key, T)>,
        /// Objects that are there but do not decode: keep what is known of them.
        undecodable: Vec<Key>,
    },
    /// An object that was added or changed.
    Applied(Key, T),
    /// An object that is gone.
    Deleted(Key),
}

/// Namespace and name of an object.
pub fn object_key<K: Resource>(object: &K) -> Key {
    let meta = object.meta();
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}
