//! What there is once for a mesh, whatever its revisions.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{coordination::v1::Lease, rbac::v1::RoleBinding},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use meshwright_api::{
    CONTROLLER_NAME, GATEWAY_CLASS,
    gateway::{GatewayClass, GatewayClassSpec},
    names,
};
use meshwright_k8s::lease::REVISION_ANNOTATION;

use super::{Error, rbac, shared};
use crate::{apply::Desired, mesh_control_plane::validate::MeshRef};

/// The objects of the mesh. The GatewayClass only where its kind is served.
pub fn whole_mesh(
    mesh: &MeshRef,
    active: &str,
    operator: (&str, &str),
    gateway_api: bool,
) -> Result<Vec<Desired>, Error> {
    let mut objects =
        vec![Desired::new(&issuing_ca_binding(mesh, operator))?, Desired::new(&lease(mesh, active))?];
    if gateway_api {
        objects.push(Desired::new(&gateway_class(mesh))?);
    }
    Ok(objects)
}

// Only pods of the revision that it names may hold it and write the Gateway API's status.
fn lease(mesh: &MeshRef, active: &str) -> Lease {
    let annotations = BTreeMap::from([(REVISION_ANNOTATION.to_owned(), active.to_owned())]);
    Lease {
        metadata: ObjectMeta {
            annotations: Some(annotations),
            ..meta(mesh, names::status_lease(&mesh.name))
        },
        spec: None,
    }
}

// The operator gives itself the right to deliver issuing CAs, in this namespace only and not to read them.
fn issuing_ca_binding(mesh: &MeshRef, (namespace, service_account): (&str, &str)) -> RoleBinding {
    RoleBinding {
        metadata: meta(mesh, rbac::ISSUING_CA_ROLE.to_owned()),
        role_ref: rbac::role_ref(rbac::ISSUING_CA_ROLE),
        subjects: Some(vec![rbac::subject(namespace, service_account)]),
    }
}

fn gateway_class(mesh: &MeshRef) -> GatewayClass {
    let mut class = GatewayClass::new(
        GATEWAY_CLASS,
        GatewayClassSpec {
            controller_name: CONTROLLER_NAME.to_owned(),
            description: Some("Envoy gateways of Meshwright".to_owned()),
            parameters_ref: None,
        },
    );
    class.metadata.labels = Some(shared::labels(&mesh.name, &mesh.namespace, &[]));
    class
}

fn meta(mesh: &MeshRef, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(mesh.namespace.clone()),
        labels: Some(shared::labels(&mesh.name, &mesh.namespace, &[])),
        owner_references: mesh.owner.clone().map(|o| vec![o]),
        ..ObjectMeta::default()
    }
}
