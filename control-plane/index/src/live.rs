//! The objects whose status we write, as last seen: what a status writer needs to merge and to compare-and-swap, and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwright_api::PolicyStatus;
use meshwright_api::gateway as api;
use meshwright_core::ObjectKey;
use meshwright_k8s::Update;
use tokio::sync::Notify;

/// Status and version of one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Live<S> {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `status`.
    pub status: Option<S>,
}

impl<S> Live<S> {
    // Resource versions of one resource are comparable numbers (Kubernetes 1.35 says so, etcd always did).
    fn is_older_than(&self, other: &Self) -> bool {
        let number = |live: &Self| live.resource_version.parse::<u128>().unwrap_or(0);
        self.uid == other.uid && number(self) < number(other)
    }
}

/// Objects that changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// GatewayClasses, by name.
    pub gateway_classes: BTreeSet<ObjectKey>,
    /// Gateways.
    pub gateways: BTreeSet<ObjectKey>,
    /// HTTPRoutes.
    pub http_routes: BTreeSet<ObjectKey>,
    /// AuthorizationPolicies.
    pub authorization_policies: BTreeSet<ObjectKey>,
    /// MeshTLSPolicies.
    pub mesh_tls_policies: BTreeSet<ObjectKey>,
    /// GRPCRoutes.
    pub grpc_routes: BTreeSet<ObjectKey>,
    /// TCPRoutes.
    pub tcp_routes: BTreeSet<ObjectKey>,
}

#[derive(Default)]
struct Inner {
    gateway_classes: BTreeMap<ObjectKey, Arc<Live<api::GatewayClassStatus>>>,
    gateways: BTreeMap<ObjectKey, Arc<Live<api::GatewayStatus>>>,
    http_routes: BTreeMap<ObjectKey, Arc<Live<api::HttpRouteStatus>>>,
    authorization_policies: BTreeMap<ObjectKey, Arc<Live<PolicyStatus>>>,
    mesh_tls_policies: BTreeMap<ObjectKey, Arc<Live<PolicyStatus>>>,
    grpc_routes: BTreeMap<ObjectKey, Arc<Live<api::GrpcRouteStatus>>>,
    tcp_routes: BTreeMap<ObjectKey, Arc<Live<api::TcpRouteStatus>>>,
    touched: Touched,
}

/// Shared between the index, which fills it from watches, and the status writer, which adds the answers of its writes.
#[derive(Clone, Default)]
pub struct LiveObjects {
    inner: Arc<Mutex<Inner>>,
    changed: Arc<Notify>,
}

macro_rules! kind {
    ($get:ident, $all:ident, $record:ident, $forget:ident, $update:ident, $field:ident, $status:ty) => {
        impl LiveObjects {
            /// The object as last seen.
            pub fn $get(&self, key: &ObjectKey) -> Option<Arc<Live<$status>>> {
                self.lock().$field.get(key).cloned()
            }

            /// All objects as last seen.
            pub fn $all(&self) -> Vec<(ObjectKey, Arc<Live<$status>>)> {
                self.lock().$field.iter().map(|(key, live)| (key.clone(), live.clone())).collect()
            }

            /// Remembers the answer of a write or a read, unless the watch was faster: then it has told something newer, or that the
            /// object is gone.
            pub fn $record(&self, key: &ObjectKey, live: Live<$status>) {
                record(&mut self.lock().$field, key, live);
            }

            /// Forgets the object with this uid: the API server does not know it any more, which the watch will tell, too.
            pub fn $forget(&self, key: &ObjectKey, uid: &str) {
                let objects = &mut self.lock().$field;
                if objects.get(key).is_some_and(|known| known.uid == uid) {
                    objects.remove(key);
                }
            }

            /// What the watch tells.
            pub fn $update(&self, update: Update<Live<$status>>) {
                let mut inner = self.lock();
                let Inner { $field: objects, touched, .. } = &mut *inner;
                apply(objects, &mut touched.$field, update);
                drop(inner);
                self.changed.notify_one();
            }
        }
    };
}

kind!(
    gateway_class,
    gateway_classes,
    record_gateway_class,
    forget_gateway_class,
    update_gateway_classes,
    gateway_classes,
    api::GatewayClassStatus
);
kind!(gateway, gateways, record_gateway, forget_gateway, update_gateways, gateways, api::GatewayStatus);
kind!(
    http_route,
    http_routes,
    record_http_route,
    forget_http_route,
    update_http_routes,
    http_routes,
    api::HttpRouteStatus
);
kind!(
    grpc_route,
    grpc_routes,
    record_grpc_route,
    forget_grpc_route,
    update_grpc_routes,
    grpc_routes,
    api::GrpcRouteStatus
);
kind!(
    tcp_route,
    tcp_routes,
    record_tcp_route,
    forget_tcp_route,
    update_tcp_routes,
    tcp_routes,
    api::TcpRouteStatus
);

kind!(
    authorization_policy,
    authorization_policies,
    record_authorization_policy,
    forget_authorization_policy,
    update_authorization_policies,
    authorization_policies,
    PolicyStatus
);
kind!(
    mesh_tls_policy,
    mesh_tls_policies,
    record_mesh_tls_policy,
    forget_mesh_tls_policy,
    update_mesh_tls_policies,
    mesh_tls_policies,
    PolicyStatus
);

impl LiveObjects {
    /// Waits until something was touched; then take it with [`LiveObjects::take_touched`].
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What changed since this was last called.
    pub fn take_touched(&self) -> Touched {
        std::mem::take(&mut self.lock().touched)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only the watch adds objects: an answer may be handled after the object was deleted, and after another was made of the same name.
fn record<S>(objects: &mut BTreeMap<ObjectKey, Arc<Live<S>>>, key: &ObjectKey, live: Live<S>) {
    if let Some(known) = objects.get_mut(key)
        && known.uid == live.uid
        && !live.is_older_than(known)
    {
        *known = Arc::new(live);
    }
}

fn apply<S>(
    objects: &mut BTreeMap<ObjectKey, Arc<Live<S>>>,
    touched: &mut BTreeSet<ObjectKey>,
    update: Update<Live<S>>,
) {
    let mut put = |objects: &mut BTreeMap<ObjectKey, Arc<Live<S>>>,
                   (namespace, name): (String, String),
                   live: Live<S>| {
        let key = ObjectKey::new(namespace, name);
        if !objects.get(&key).is_some_and(|known| live.is_older_than(known)) {
            objects.insert(key.clone(), Arc::new(live));
            touched.insert(key);
        }
    };
    match update {
        Update::Applied(key, live) => put(objects, key, live),
        Update::Deleted((namespace, name)) => {
            objects.remove(&ObjectKey::new(namespace, name));
        }
        Update::Replaced { objects: all, undecodable } => {
            let there: BTreeSet<ObjectKey> = all
                .iter()
                .map(|(key, _)| key)
                .chain(&undecodable)
                .map(|(namespace, name)| ObjectKey::new(namespace, name))
                .collect();
            objects.retain(|key, _| there.contains(key));
            all.into_iter().for_each(|(key, live)| put(objects, key, live));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ObjectKey {
        ObjectKey::new("shop", "cart")
    }

    fn seen(uid: &str, version: u32) -> Live<api::HttpRouteStatus> {
        Live { uid: uid.to_owned(), resource_version: version.to_string(), status: None }
    }

    fn applied(uid: &str, version: u32) -> Update<Live<api::HttpRouteStatus>> {
        Update::Applied(("shop".to_owned(), "cart".to_owned()), seen(uid, version))
    }

    fn version(objects: &LiveObjects) -> Option<String> {
        objects.http_route(&key()).map(|live| live.resource_version.clone())
    }

    #[test]
    fn an_answer_that_comes_after_the_deletion_brings_nothing_back() {
        let objects = LiveObjects::default();
        objects.update_http_routes(applied("a", 1));
        objects.update_http_routes(Update::Deleted(("shop".to_owned(), "cart".to_owned())));
        objects.record_http_route(&key(), seen("a", 2));
        assert_eq!(version(&objects), None);
        objects.update_http_routes(applied("b", 3));
        objects.record_http_route(&key(), seen("a", 4));
        assert_eq!(version(&objects).as_deref(), Some("3"), "another object has the name now");
    }

    #[test]
    fn of_answer_and_watch_the_newer_counts() {
        let objects = LiveObjects::default();
        objects.update_http_routes(applied("a", 9));
        objects.record_http_route(&key(), seen("a", 10));
        assert_eq!(version(&objects).as_deref(), Some("10"));
        objects.record_http_route(&key(), seen("a", 9));
        objects.update_http_routes(applied("a", 9));
        assert_eq!(version(&objects).as_deref(), Some("10"));
    }

    #[test]
    fn what_is_forgotten_is_the_object_and_not_its_name() {
        let objects = LiveObjects::default();
        objects.update_http_routes(applied("a", 1));
        objects.forget_http_route(&key(), "another");
        assert!(version(&objects).is_some());
        objects.forget_http_route(&key(), "a");
        assert_eq!(version(&objects), None);
    }
}
