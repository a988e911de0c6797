//! ReferenceGrants: may an object refer to one in another namespace?

use crate::model::{ObjectKey, World};

/// The referring side.
pub(crate) struct From<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
}

/// The object referred to.
pub(crate) struct To<'a> {
    pub group: &'a str,
    pub kind: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Always within a namespace; across namespaces only with a grant in the target's.
pub(crate) fn permitted(world: &World, from: &From<'_>, to: &To<'_>) -> bool {
    if from.namespace == to.namespace {
        return true;
    }
    let first = ObjectKey::new(to.namespace, "");
    world.reference_grants.range(first..).take_while(|(key, _)| key.namespace == to.namespace).any(
        |(_, grant)| {
            grant.from.iter().any(|allowed| {
                allowed.group == from.group
                    && allowed.kind == from.kind
                    && allowed.namespace == from.namespace
            }) && grant.to.iter().any(|allowed| {
                allowed.group == to.group
                    && allowed.kind == to.kind
                    && allowed.name.as_deref().is_none_or(|name| name.is_empty() || name == to.name)
            })
        },
    )
}
