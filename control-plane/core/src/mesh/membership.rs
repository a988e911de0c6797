//! Which pods are in the mesh.

use std::collections::BTreeSet;

use crate::model::{Namespace, ObjectKey, Pod};

/// What decides besides labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Namespaces whose pods never join: the mesh's, the operator's, kube-system.
    pub closed: BTreeSet<String>,
}

/// Why a pod is not in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// Neither it nor its namespace asks for it, or it says no.
    NotAsked,
}

/// Whether the pod is to be in the mesh.
///
/// # Errors
/// Why it is not.
pub fn membership(
    _pod: &Pod,
    _key: &ObjectKey,
    _namespace: Option<&Namespace>,
    _rules: &Rules,
) -> Result<(), Outside> {
    Err(Outside::NotAsked)
}
