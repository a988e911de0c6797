//! GatewayClass.

use meshwright_api::gateway as api;
use meshwright_core::model::{GatewayClass, ParametersRef};

pub(crate) fn gateway_class(object: &api::GatewayClass) -> GatewayClass {
    GatewayClass {
        meta: super::meta(&object.metadata),
        controller_name: object.spec.controller_name.clone(),
        parameters_ref: object.spec.parameters_ref.as_ref().map(|reference| ParametersRef {
            group: reference.group.clone(),
            kind: reference.kind.clone(),
            namespace: reference.namespace.clone(),
            name: reference.name.clone(),
        }),
    }
}
