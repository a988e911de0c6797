//! From API objects to the model, one file per kind. Pure: no client, no clock. What no decision needs is dropped here.

mod deployment;
mod endpoint_slice;
mod gateway;
mod gateway_class;
mod grpc_route;
mod http_route;
mod mesh_node;
mod namespace;
mod pod;
mod policy;
mod reference_grant;
mod secret;
mod service;
mod tcp_route;
mod unsupported;

pub(crate) use deployment::{GatewayDeployment, combined, deployment};
pub(crate) use endpoint_slice::endpoint_slice;
pub(crate) use gateway::{gateway, gateway_parameters};
pub(crate) use gateway_class::gateway_class;
pub(crate) use grpc_route::grpc_route;
pub(crate) use http_route::http_route;
pub(crate) use mesh_node::mesh_node;
pub(crate) use namespace::namespace;
pub(crate) use pod::{PodView, pod};
pub(crate) use policy::{AuthorizationPolicyView, MeshTlsPolicyView, authorization_policy, mesh_tls_policy};
pub(crate) use reference_grant::reference_grant;
pub(crate) use secret::secret;
pub(crate) use service::{GatewayService, ServiceView, service};
pub(crate) use tcp_route::tcp_route;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use meshwright_core::ObjectKey;
use meshwright_core::model::{GATEWAY_GROUP, Meta};

/// The part of the metadata that decisions use.
fn meta(object: &ObjectMeta) -> Meta {
    Meta {
        key: key(object),
        generation: object.generation.unwrap_or(0),
        created: object.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
    }
}

fn key(object: &ObjectMeta) -> ObjectKey {
    ObjectKey::new(object.namespace.clone().unwrap_or_default(), object.name.clone().unwrap_or_default())
}

/// The Gateway that an object was made for: its controller. The label with the Gateway's name is no help, because a name with a dot, or a
/// long one, is not what a label can hold, and the operator puts a shortened one there.
fn made_for_gateway(object: &ObjectMeta) -> Option<ObjectKey> {
    use meshwright_api::labels::{MANAGED_BY, MANAGER};
    let manager = object.labels.as_ref()?.get(MANAGED_BY)?;
    let owners = object.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true))?;
    (manager == MANAGER && is_gateway(controller))
        .then(|| ObjectKey::new(object.namespace.clone().unwrap_or_default(), controller.name.clone()))
}

/// Whether this is an owner of the Gateway API's kind Gateway, in whatever version.
fn is_gateway(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split_once('/').map(|(group, _)| group);
    group == Some(GATEWAY_GROUP) && owner.kind == "Gateway"
}

/// Ports are validated by the CRDs; one that is out of range all the same matches nothing.
fn port(number: i32) -> u16 {
    u16::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use meshwright_api::names;
    use serde_json::{Value, json};

    use super::*;

    /// The metadata that the operator gives to what it makes for the Gateway `shop/<name>`.
    pub(super) fn made_for(name: &str) -> Value {
        let owner = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": name, "uid": "u",
            "controller": true, "blockOwnerDeletion": true});
        let labels = json!({"app.kubernetes.io/managed-by": "meshwright",
            "gateway.networking.k8s.io/gateway-name": names::fit(name)});
        json!({"namespace": "shop", "name": names::gateway_resources(name), "labels": labels,
            "ownerReferences": [owner]})
    }

    fn gateway_of(metadata: Value) -> Option<ObjectKey> {
        made_for_gateway(&serde_json::from_value(metadata).unwrap())
    }

    #[test]
    fn a_name_that_no_label_can_hold_is_that_of_the_owner() {
        for name in ["edge", "edge.example.com", &"e".repeat(70)] {
            assert_eq!(gateway_of(made_for(name)), Some(ObjectKey::new("shop", name)));
        }
    }

    #[test]
    fn other_owners_and_managers_do_not_count() {
        let with = |path: &str, value: Value| {
            let mut metadata = made_for("edge");
            *metadata.pointer_mut(path).unwrap() = value;
            gateway_of(metadata)
        };
        assert_eq!(with("/ownerReferences", json!([])), None);
        assert_eq!(with("/ownerReferences/0/controller", json!(false)), None);
        assert_eq!(with("/ownerReferences/0/kind", json!("HTTPRoute")), None);
        assert_eq!(with("/ownerReferences/0/apiVersion", json!("networking.istio.io/v1")), None);
        assert_eq!(with("/labels/app.kubernetes.io~1managed-by", json!("somebody")), None);
        assert!(with("/ownerReferences/0/apiVersion", json!("gateway.networking.k8s.io/v2")).is_some());
    }
}
