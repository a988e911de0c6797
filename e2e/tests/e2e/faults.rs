//! Drift, interference and a lost leader.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kube::api::{DeleteParams, Patch, PatchParams};
use meshwright_e2e::soak::{self, What};
use meshwright_e2e::testing::{
    Audit, Write, active_revision, apply_yaml, condition, delete_yaml, eventually,
};
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
async fn when_the_leader_is_killed_the_other_replica_acts() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::LeaderLost, 0).await
}

/// The leader is stopped for longer than its Lease lives; `make soak` overwrites the Lease too.
#[tokio::test]
async fn two_leaders_at_once_cannot_harm() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::TwoLeaders, 1).await
}

/// In an install; `make soak` does so in an edit and in a deletion too.
#[tokio::test]
async fn an_operator_killed_in_the_middle_converges() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::OperatorKilled { writes: 40 }, 0).await
}

/// As an admission policy of another team would: whatever is written comes out different.
const POLICY: &str = "apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: { name: e2e-budget }
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    resourceRules: [ { apiGroups: [policy], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [poddisruptionbudgets] } ]
    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: mesh } }
  mutations:
    - patchType: ApplyConfiguration
      applyConfiguration: { expression: 'Object{ spec: Object.spec{ unhealthyPodEvictionPolicy: \"IfHealthyBudget\" } }' }
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: { name: e2e-budget }
spec: { policyName: e2e-budget }
";

#[tokio::test]
async fn a_field_that_a_policy_keeps_changing_is_reported_and_not_fought() -> Result<()> {
    let env = Env::with_mesh().await?;
    let name = active_revision(&env).await?;
    apply_yaml(&env.client, POLICY, MESH).await?;
    let outcome = contested(&env, &name).await;
    delete_yaml(&env.client, POLICY, MESH).await?;
    outcome?;
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    condition(&meshes, MESH, "Reconciled", "True", DEADLINE * 2).await?;
    let budgets = env.api("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", MESH);
    let now = budgets.get(&name).await?.data["spec"]["unhealthyPodEvictionPolicy"].clone();
    ensure!(now == "AlwaysAllow", "after the policy is gone the budget has {now}");
    Ok(())
}

async fn contested(env: &Env, name: &str) -> Result<()> {
    let budgets = env.api("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", MESH);
    let mut audit = Audit::from_now(env)?;
    let change = Patch::Merge(json!({"spec": {"maxUnavailable": 0}}));
    eventually("the policy to be in force", DEADLINE, || async {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let changed = budgets.patch(name, &params, &change).await.map_err(|e| e.to_string())?;
        let policy = changed.data["spec"]["unhealthyPodEvictionPolicy"].clone();
        if policy == "IfHealthyBudget" { Ok(()) } else { Err(policy.to_string()) }
    })
    .await?;
    // Somebody's edit, which the operator mends; the policy has the last word on its answer.
    budgets.patch(name, &PatchParams::default(), &change).await?;
    let start = Instant::now();
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    condition(&meshes, MESH, "Reconciled", "False", DEADLINE).await?;
    let text = meshes.get(MESH).await?.data["status"]["conditions"].to_string();
    ensure!(text.contains("unhealthyPodEvictionPolicy"), "the condition does not name the field: {text}");
    audit.writes()?;
    let mut writes = Vec::new();
    let minutes = 2;
    while start.elapsed() < Duration::from_secs(60 * minutes) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Of this one: Gateways come and go meanwhile.
        let of_budget = |write: &Write| write.resource == "poddisruptionbudgets" && write.name == name;
        writes.extend(audit.writes()?.into_iter().filter(of_budget));
    }
    println!("{} writes in {minutes} minutes against a mutating admission policy", writes.len());
    ensure!(writes.len() as u64 <= 5 * minutes, "{} writes in {minutes} minutes: {writes:?}", writes.len());
    Ok(())
}
