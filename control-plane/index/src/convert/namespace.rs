//! Namespace.

use k8s_openapi::api::core::v1 as api;
use meshwright_core::model::Namespace;

pub(crate) fn namespace(object: api::Namespace) -> Namespace {
    Namespace { labels: object.metadata.labels.unwrap_or_default() }
}
