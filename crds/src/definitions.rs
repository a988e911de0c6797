//! The CustomResourceDefinitions as objects and as YAML.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{
    AuthorizationPolicy, GatewayParameters, MeshControlPlane, MeshNode, MeshRevision, MeshTLSPolicy,
};

/// Every CustomResourceDefinition of our group.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        AuthorizationPolicy::crd(),
        GatewayParameters::crd(),
        MeshControlPlane::crd(),
        MeshNode::crd(),
        MeshRevision::crd(),
        MeshTLSPolicy::crd(),
    ]
}

/// File name and content of each definition, as committed in `yaml/`.
///
/// # Errors
/// When a definition cannot be written as YAML.
pub fn definitions_yaml() -> Result<Vec<(String, String)>, serde_yaml_ng::Error> {
    definitions()
        .into_iter()
        .map(|crd| {
            let name = format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            Ok((name, serde_yaml_ng::to_string(&crd)?))
        })
        .collect()
}
