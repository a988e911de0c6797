//! That there is no mesh: one finding, with the command to go on.

use super::Finding;
use crate::client::Sought;

/// The smallest one; the operator does the rest.
const APPLY: &str = r#"echo '{"apiVersion":"meshwright.io/v1alpha1","kind":"MeshControlPlane","metadata":{"name":"mesh","namespace":"mesh"},"spec":{}}' | kubectl apply -f -"#;

/// What is missing of a mesh; nothing where it is found.
pub(super) fn absent(sought: &Sought) -> Option<Finding> {
    match sought {
        Sought::Found(_) => None,
        Sought::NoneIn(Some(namespace)) => Some(Finding::problem(
            format!("there is no MeshControlPlane in namespace {namespace}"),
            "a cluster has one mesh, which is found without -n wherever it is",
            "kubectl mesh check",
        )),
        Sought::NoneIn(None) => Some(Finding::problem(
            "there is no MeshControlPlane in this cluster",
            "the operator installs a mesh when it is asked for one; its namespace must be there: kubectl create \
             namespace mesh",
            APPLY,
        )),
        Sought::NotInstalled => Some(Finding::problem(
            "Meshwright is not installed: this cluster does not know the kind MeshControlPlane",
            "`make dist` writes both files to target/dist; a MeshControlPlane comes after them",
            "kubectl mesh check --pre && kubectl apply --server-side -f crds.yaml -f install.yaml",
        )),
    }
}
