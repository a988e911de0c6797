//! Removes what is of no revision any more: what builders of an earlier operator made and ours do not, and the cluster-scoped objects of
//! retired revisions.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRoleBinding, RoleBinding},
};
use kube::{ResourceExt, core::ApiResource};
use meshwright_api::{MeshRevision, labels, names};

use super::{
    apply::{Error, selector},
    step::Step,
    validate::MeshRef,
};
use crate::{apply, context::Context};

/// Prunes. Owned objects of a retired revision are the garbage collector's.
pub(super) async fn prune(
    ctx: &Context,
    mesh: &MeshRef,
    revisions: &[MeshRevision],
    step: &Step,
) -> Result<(), Error> {
    let is_live = |labels: &BTreeMap<String, String>| {
        labels
            .get(labels::REVISION)
            .is_some_and(|r| revisions.iter().any(|l| l.name_any() == *r) || *r == step.target)
    };
    let ours = selector(mesh);
    let cluster = ApiResource::erase::<ClusterRoleBinding>(&());
    apply::prune(ctx, &cluster, None, &ours, |o| is_live(o.labels())).await?;
    let is_made = |name: &str| {
        revisions.iter().map(ResourceExt::name_any).any(|revision| {
            let suffixed = |suffix: &str| name == format!("{revision}-{suffix}");
            name == revision
                || suffixed("lease")
                || suffixed("nodes")
                || name == names::node_resources(&revision)
        })
    };
    let kinds = [
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<DaemonSet>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
        ApiResource::erase::<RoleBinding>(&()),
    ];
    let (control_planes, nodes) = (labels::COMPONENT_CONTROL_PLANE, labels::COMPONENT_NODE);
    let of_revisions = format!("{ours},{} in ({control_planes},{nodes})", labels::COMPONENT);
    for kind in &kinds {
        let keeps = |o: &kube::core::PartialObjectMeta<_>| !is_live(o.labels()) || is_made(&o.name_any());
        apply::prune(ctx, kind, Some(&mesh.namespace), &of_revisions, keeps).await?;
    }
    Ok(())
}
