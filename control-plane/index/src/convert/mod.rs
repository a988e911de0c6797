//! From API objects to the model, one file per kind. Pure: no client, no clock. What no decision needs is dropped here.

mod deployment;
mod endpoint_slice;
mod gateway;
mod gateway_class;
mod http_route;
mod namespace;
mod reference_grant;
mod secret;
mod service;

pub(crate) use deployment::{GatewayDeployment, combined, deployment};
pub(crate) use endpoint_slice::endpoint_slice;
pub(crate) use gateway::{gateway, gateway_parameters};
pub(crate) use gateway_class::gateway_class;
pub(crate) use http_route::http_route;
pub(crate) use namespace::namespace;
pub(crate) use reference_grant::reference_grant;
pub(crate) use secret::secret;
pub(crate) use service::{GatewayService, ServiceView, service};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use meshwright_core::ObjectKey;
use meshwright_core::model::Meta;

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

/// The Gateway that an object was made for, from its labels.
fn made_for_gateway(object: &ObjectMeta) -> Option<ObjectKey> {
    use meshwright_api::labels::{GATEWAY_NAME, MANAGED_BY, MANAGER};
    let labels = object.labels.as_ref()?;
    if labels.get(MANAGED_BY).map(String::as_str) != Some(MANAGER) {
        return None;
    }
    Some(ObjectKey::new(object.namespace.clone()?, labels.get(GATEWAY_NAME)?.clone()))
}

/// Ports are validated by the CRDs; one that is out of range all the same matches nothing.
fn port(number: i32) -> u16 {
    u16::try_from(number).unwrap_or(0)
}
