//! Drift, interference and a lost leader.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use meshwright_e2e::testing::{active_revision, condition, eventually, holder};
use serde_json::json;

use crate::env::{DEADLINE, Env, MESH};

#[tokio::test]
async fn what_is_changed_or_deleted_by_hand_is_mended() -> Result<()> {
    let env = Env::with_mesh().await?;
    let name = active_revision(&env).await?;
    let services = env.api("v1", "Service", "services", MESH);
    let old = services.get(&name).await?.metadata.uid;
    services.delete(&name, &DeleteParams::default()).await?;
    eventually("the Service to come back", DEADLINE, || async {
        let seen = services.get_opt(&name).await.map_err(|e| e.to_string())?;
        if seen.is_some_and(|s| s.metadata.uid != old) { Ok(()) } else { Err("not there".into()) }
    })
    .await?;
    let budgets = env.api("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", MESH);
    let before = budgets.get(&name).await?.data["spec"]["maxUnavailable"].clone();
    budgets
        .patch(&name, &PatchParams::default(), &Patch::Merge(&json!({"spec": {"maxUnavailable": 0}})))
        .await?;
    eventually("the budget to be mended", DEADLINE, || async {
        let now = budgets.get(&name).await.map_err(|e| e.to_string())?.data["spec"]["maxUnavailable"].clone();
        if now == before { Ok(()) } else { Err(now.to_string()) }
    })
    .await
}

#[tokio::test]
async fn when_the_leader_is_gone_the_other_replica_acts() -> Result<()> {
    let env = Env::with_mesh().await?;
    let leases = env.api("coordination.k8s.io/v1", "Lease", "leases", "meshwright-system");
    let old = holder(&leases.get("meshwright-operator").await?).context("a leader")?;
    let pods = env.api("v1", "Pod", "pods", "meshwright-system");
    let operator = ListParams::default().labels("app.kubernetes.io/name=meshwright-operator");
    let leader = pods
        .list(&operator)
        .await?
        .into_iter()
        .filter_map(|p| p.metadata.name)
        .find(|name| old.contains(name.as_str()))
        .with_context(|| format!("the leader {old} is no pod of the operator"))?;
    pods.delete(&leader, &DeleteParams::default().grace_period(0)).await?;
    let start = Instant::now();
    eventually("another leader", DEADLINE, || async {
        let now = holder(&leases.get("meshwright-operator").await.map_err(|e| e.to_string())?);
        if now.as_ref().is_some_and(|n| *n != old) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await?;
    println!("the other replica leads after {:.1} s", start.elapsed().as_secs_f64());
    let name = active_revision(&env).await?;
    env.api("v1", "Service", "services", MESH).delete(&name, &DeleteParams::default()).await?;
    meshwright_e2e::testing::exists(&env.api("v1", "Service", "services", MESH), &name, true, DEADLINE)
        .await?;
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    condition(&meshes, MESH, "Ready", "True", Duration::from_secs(180)).await?;
    ensure!(holder(&leases.get("meshwright-operator").await?) != Some(old));
    Ok(())
}
