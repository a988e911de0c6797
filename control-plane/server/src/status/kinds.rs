//! What differs between the kinds whose status we write.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use meshwright_api::PolicyStatus;
use meshwright_api::gateway as api;
use meshwright_core::ObjectKey;
use meshwright_core::status::Statuses;
use meshwright_index::{Live, LiveObjects};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::merge;

/// A kind with a status of ours.
pub trait Kind: Send + Sync + 'static {
    /// The API type.
    type Object: Resource<DynamicType = ()>;
    /// Its status.
    type Status: Serialize + DeserializeOwned + PartialEq + Clone + Send + Sync + 'static;
    /// The object as last seen.
    fn live(objects: &LiveObjects, key: &ObjectKey) -> Option<Arc<Live<Self::Status>>>;
    /// Remembers what a write or a read answered.
    fn record(objects: &LiveObjects, key: &ObjectKey, live: Live<Self::Status>);
    /// Forgets the object with this uid, which is gone.
    fn forget(objects: &LiveObjects, key: &ObjectKey, uid: &str);
    /// What the status should be; None when there is nothing to say about this object.
    fn wanted(
        statuses: &Statuses,
        key: &ObjectKey,
        current: Option<&Self::Status>,
        now: Timestamp,
    ) -> Option<Self::Status>;
    /// Conditions worth an Event when they change.
    fn conditions(status: &Self::Status) -> Vec<&Condition>;
}

/// GatewayClass.
pub struct GatewayClasses;
/// Gateway.
pub struct Gateways;
/// HTTPRoute.
pub struct HttpRoutes;
/// GRPCRoute.
pub struct GrpcRoutes;
/// TCPRoute.
pub struct TcpRoutes;

/// AuthorizationPolicy.
pub struct AuthorizationPolicies;
/// MeshTLSPolicy.
pub struct MeshTlsPolicies;

macro_rules! policy {
    ($kind:ident, $object:ty, $field:ident, $live:ident, $record:ident, $forget:ident) => {
        impl Kind for $kind {
            type Object = $object;
            type Status = PolicyStatus;

            fn live(objects: &LiveObjects, key: &ObjectKey) -> Option<Arc<Live<Self::Status>>> {
                objects.$live(key)
            }

            fn record(objects: &LiveObjects, key: &ObjectKey, live: Live<Self::Status>) {
                objects.$record(key, live);
            }

            fn forget(objects: &LiveObjects, key: &ObjectKey, uid: &str) {
                objects.$forget(key, uid);
            }

            fn wanted(
                statuses: &Statuses,
                key: &ObjectKey,
                current: Option<&Self::Status>,
                now: Timestamp,
            ) -> Option<Self::Status> {
                Some(merge::policy(current, statuses.policies.$field.get(key)?, now))
            }

            fn conditions(status: &Self::Status) -> Vec<&Condition> {
                status.conditions.iter().collect()
            }
        }
    };
}

policy!(
    AuthorizationPolicies,
    meshwright_api::AuthorizationPolicy,
    authorization,
    authorization_policy,
    record_authorization_policy,
    forget_authorization_policy
);
policy!(
    MeshTlsPolicies,
    meshwright_api::MeshTLSPolicy,
    tls,
    mesh_tls_policy,
    record_mesh_tls_policy,
    forget_mesh_tls_policy
);

impl Kind for GatewayClasses {
    type Object = api::GatewayClass;
    type Status = api::GatewayClassStatus;

    fn live(objects: &LiveObjects, key: &ObjectKey) -> Option<Arc<Live<Self::Status>>> {
        objects.gateway_class(key)
    }

    fn record(objects: &LiveObjects, key: &ObjectKey, live: Live<Self::Status>) {
        objects.record_gateway_class(key, live);
    }

    fn forget(objects: &LiveObjects, key: &ObjectKey, uid: &str) {
        objects.forget_gateway_class(key, uid);
    }

    fn wanted(
        statuses: &Statuses,
        key: &ObjectKey,
        current: Option<&Self::Status>,
        now: Timestamp,
    ) -> Option<Self::Status> {
        Some(merge::gateway_class(current, statuses.gateway_classes.get(&key.name)?, now))
    }

    fn conditions(status: &Self::Status) -> Vec<&Condition> {
        status.conditions.iter().flatten().collect()
    }
}

impl Kind for Gateways {
    type Object = api::Gateway;
    type Status = api::GatewayStatus;

    fn live(objects: &LiveObjects, key: &ObjectKey) -> Option<Arc<Live<Self::Status>>> {
        objects.gateway(key)
    }

    fn record(objects: &LiveObjects, key: &ObjectKey, live: Live<Self::Status>) {
        objects.record_gateway(key, live);
    }

    fn forget(objects: &LiveObjects, key: &ObjectKey, uid: &str) {
        objects.forget_gateway(key, uid);
    }

    fn wanted(
        statuses: &Statuses,
        key: &ObjectKey,
        current: Option<&Self::Status>,
        now: Timestamp,
    ) -> Option<Self::Status> {
        Some(merge::gateway(current, statuses.gateways.get(key)?, now))
    }

    fn conditions(status: &Self::Status) -> Vec<&Condition> {
        status.conditions.iter().flatten().collect()
    }
}

macro_rules! route {
    ($kind:ident, $object:ident, $status:ident, $route:ident, $routes:ident, $record:ident, $forget:ident) => {
        impl Kind for $kind {
            type Object = api::$object;
            type Status = api::$status;

            fn live(objects: &LiveObjects, key: &ObjectKey) -> Option<Arc<Live<Self::Status>>> {
                objects.$route(key)
            }

            fn record(objects: &LiveObjects, key: &ObjectKey, live: Live<Self::Status>) {
                objects.$record(key, live);
            }

            fn forget(objects: &LiveObjects, key: &ObjectKey, uid: &str) {
                objects.$forget(key, uid);
            }

            fn wanted(
                statuses: &Statuses,
                key: &ObjectKey,
                current: Option<&Self::Status>,
                now: Timestamp,
            ) -> Option<Self::Status> {
                let wanted = statuses.$routes.get(key).map(AsRef::as_ref);
                if wanted.is_none() && current.is_none() {
                    return None;
                }
                Some(merge::$route(current, wanted, now))
            }

            fn conditions(status: &Self::Status) -> Vec<&Condition> {
                let all = status.parents.iter();
                let ours = all.filter(|parent| parent.controller_name == meshwright_api::CONTROLLER_NAME);
                ours.flat_map(|parent| &parent.conditions).collect()
            }
        }
    };
}

route!(HttpRoutes, HttpRoute, HttpRouteStatus, http_route, http_routes, record_http_route, forget_http_route);
route!(GrpcRoutes, GrpcRoute, GrpcRouteStatus, grpc_route, grpc_routes, record_grpc_route, forget_grpc_route);
route!(TcpRoutes, TcpRoute, TcpRouteStatus, tcp_route, tcp_routes, record_tcp_route, forget_tcp_route);
