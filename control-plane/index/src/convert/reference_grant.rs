//! ReferenceGrant.

use meshwright_api::gateway as api;
use meshwright_core::model::{GrantFrom, GrantTo, ReferenceGrant};

pub(crate) fn reference_grant(object: api::ReferenceGrant) -> ReferenceGrant {
    ReferenceGrant {
        meta: super::meta(&object.metadata),
        from: object.spec.from.into_iter().map(from).collect(),
        to: object.spec.to.into_iter().map(to).collect(),
    }
}

fn from(from: api::ReferenceGrantFrom) -> GrantFrom {
    GrantFrom { group: from.group, kind: from.kind, namespace: from.namespace }
}

fn to(to: api::ReferenceGrantTo) -> GrantTo {
    // An empty name means the same as none.
    GrantTo { group: to.group, kind: to.kind, name: to.name.filter(|name| !name.is_empty()) }
}
