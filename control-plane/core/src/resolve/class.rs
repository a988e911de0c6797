//! GatewayClasses.

use crate::conditions::{ACCEPTED, SUPPORTED_VERSION, reason};
use crate::features::SUPPORTED_FEATURES;
use crate::model::{GatewayClass, MESHWRIGHT_GROUP, ObjectKey, World};
use crate::status::{ConditionStatus, ConditionUpdate, Finding, GatewayClassStatus};

/// The CRD bundle that the model was made from. Newer patch versions change nothing that is read here.
const BUNDLE_VERSION: &str = "v1.7.";

/// Why a class cannot be used, if so.
pub(crate) fn rejection(class: &GatewayClass, world: &World) -> Option<Finding> {
    let parameters = class.parameters_ref.as_ref()?;
    let namespace = parameters.namespace.as_deref().unwrap_or_default();
    let known = parameters.group == MESHWRIGHT_GROUP
        && parameters.kind == "GatewayParameters"
        && world.gateway_parameters.contains_key(&ObjectKey::new(namespace, parameters.name.clone()));
    (!known).then(|| {
        let message = format!(
            "parametersRef names no GatewayParameters of group {MESHWRIGHT_GROUP}: {} {namespace}/{}",
            parameters.kind, parameters.name
        );
        Finding::new(reason::INVALID_PARAMETERS, message)
    })
}

/// The status of one of our classes.
pub(crate) fn status(class: &GatewayClass, world: &World) -> GatewayClassStatus {
    let generation = class.meta.generation;
    let accepted = ConditionUpdate::from_finding(
        ACCEPTED,
        rejection(class, world).as_ref(),
        reason::ACCEPTED,
        generation,
    );
    GatewayClassStatus {
        conditions: vec![accepted, supported_version(world.crd_bundle_version.as_deref(), generation)],
        supported_features: SUPPORTED_FEATURES,
    }
}

fn supported_version(installed: Option<&str>, generation: i64) -> ConditionUpdate {
    match installed {
        Some(version) if version.starts_with(BUNDLE_VERSION) => {
            ConditionUpdate::ok(SUPPORTED_VERSION, reason::SUPPORTED_VERSION, generation)
        }
        Some(version) => {
            let message = format!(
                "the installed CRDs are {version}, this control plane knows {BUNDLE_VERSION}x; it does its best"
            );
            ConditionUpdate::bad(
                SUPPORTED_VERSION,
                &Finding::new(reason::UNSUPPORTED_VERSION, message),
                generation,
            )
        }
        None => ConditionUpdate {
            kind: SUPPORTED_VERSION,
            status: ConditionStatus::Unknown,
            reason: reason::PENDING,
            message: "the version of the installed CRDs is not known yet".to_owned(),
            observed_generation: generation,
        },
    }
}
