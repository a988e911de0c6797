//! One `kubectl apply` gives a whole, highly available mesh; what is wrong is said and changes nothing.

use anyhow::{Context, Result, bail, ensure};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use meshwright_e2e::soak::{self, What};
use meshwright_e2e::testing::{apply_yaml, condition, delete_yaml, eventually};
use serde_json::Value;

use crate::env::{DEADLINE, Env, MESH};

#[tokio::test]
async fn a_mesh_has_an_autoscaler_and_a_disruption_budget_for_every_workload() -> Result<()> {
    let env = Env::with_mesh().await?;
    crate::bookinfo::installed(&env).await?;
    for namespace in [MESH, "bookinfo"] {
        let ours = ListParams::default().labels("app.kubernetes.io/managed-by=meshwright");
        let deployments = env.api("apps/v1", "Deployment", "deployments", namespace).list(&ours).await?;
        ensure!(!deployments.items.is_empty(), "no Deployment of the mesh in {namespace}");
        let budgets = env.api("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", namespace);
        let budgets = budgets.list(&ours).await?.items;
        for deployment in deployments {
            let name = deployment.name_any();
            let hpa = env
                .api("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", namespace)
                .get(&name)
                .await?;
            let fewest = hpa.data.pointer("/spec/minReplicas").and_then(Value::as_i64).unwrap_or(0);
            // One budget for the proxies of all revisions of a Gateway: with two of them an eviction fails.
            let labels =
                deployment.data.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
            let of_this = budgets.iter().filter(|budget| selects(budget, &labels)).collect::<Vec<_>>();
            let [pdb] = of_this.as_slice() else {
                bail!("{namespace}/{name} has {} budgets", of_this.len());
            };
            let unavailable = pdb.data.pointer("/spec/maxUnavailable").context("maxUnavailable")?;
            ensure!(
                fewest >= 2,
                "{namespace}/{name}: an autoscaler with at least {fewest} pods survives no node"
            );
            ensure!(
                unavailable.as_i64() != Some(0),
                "{namespace}/{name}: a budget of {unavailable} blocks every drain"
            );
            ensure!(
                pdb.data.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str)
                    == Some("AlwaysAllow")
            );
        }
    }
    Ok(())
}

/// Whether every label that the budget selects by is among these.
fn selects(budget: &DynamicObject, labels: &Value) -> bool {
    let selector = budget.data.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    selector.is_some_and(|selector| selector.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

#[tokio::test]
async fn a_second_mesh_gets_a_conflict_and_changes_nothing() -> Result<()> {
    let env = Env::with_mesh().await?;
    let second = "apiVersion: meshwright.io/v1alpha1\nkind: MeshControlPlane\nmetadata: { name: second, namespace: default }\nspec: {}\n";
    apply_yaml(&env.client, second, "default").await?;
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", "default");
    condition(&meshes, "second", "Reconciled", "False", DEADLINE).await?;
    let seen = meshes.get("second").await?;
    let revisions = env
        .api("meshwright.io/v1alpha1", "MeshRevision", "meshrevisions", "default")
        .list(&ListParams::default())
        .await?;
    delete_yaml(&env.client, second, "default").await?;
    let text = seen.data["status"]["conditions"].to_string();
    ensure!(text.contains("\"Conflict\"") && text.contains("mesh/mesh"), "{text}");
    ensure!(revisions.items.is_empty(), "the second mesh made {} revisions", revisions.items.len());
    meshwright_e2e::testing::exists(&meshes, "second", false, DEADLINE).await
}

#[tokio::test]
async fn an_unknown_version_lists_the_known_ones_and_the_mesh_goes_on() -> Result<()> {
    let env = Env::with_mesh().await?;
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    let before = meshes.get(MESH).await?.data["status"]["activeRevision"].clone();
    let wrong = "apiVersion: meshwright.io/v1alpha1\nkind: MeshControlPlane\nmetadata: { name: mesh, namespace: mesh }\nspec: { version: 9.9.9, profile: Production }\n";
    apply_yaml(&env.client, wrong, MESH).await?;
    let outcome = condition(&meshes, MESH, "Reconciled", "False", DEADLINE).await;
    let seen = meshes.get(MESH).await?;
    apply_yaml(&env.client, crate::env::MESH_YAML, MESH).await?;
    outcome?;
    let text = seen.data["status"]["conditions"].to_string();
    ensure!(text.contains("UnknownVersion") && text.contains("0.2.0"), "{text}");
    ensure!(
        seen.data["status"]["activeRevision"] == before,
        "the running revision changed to {}",
        seen.data["status"]["activeRevision"]
    );
    condition(&meshes, MESH, "Reconciled", "True", DEADLINE).await
}

#[tokio::test]
async fn a_refused_revision_is_told_and_goes_when_the_spec_goes_back() -> Result<()> {
    let env = Env::with_mesh().await?;
    let meshes = env.api("meshwright.io/v1alpha1", "MeshControlPlane", "meshcontrolplanes", MESH);
    let revisions = env.api("meshwright.io/v1alpha1", "MeshRevision", "meshrevisions", MESH);
    let before = meshes.get(MESH).await?.data["status"]["activeRevision"].clone();
    let wrong = "apiVersion: meshwright.io/v1alpha1\nkind: MeshControlPlane\nmetadata: { name: mesh, namespace: mesh }\nspec: { profile: \
                 Production, controlPlane: { scheduling: { tolerations: [ { operator: Wrong } ] } } }\n";
    apply_yaml(&env.client, wrong, MESH).await?;
    let told = condition(&meshes, MESH, "Reconciled", "False", DEADLINE).await;
    let seen = meshes.get(MESH).await?;
    apply_yaml(&env.client, crate::env::MESH_YAML, MESH).await?;
    told?;
    let conditions = seen.data["status"]["conditions"].to_string();
    ensure!(conditions.contains("tolerations"), "the refusal is not told: {conditions}");
    ensure!(seen.data["status"]["activeRevision"] == before, "{}", seen.data["status"]);
    condition(&meshes, MESH, "Ready", "True", DEADLINE).await?;
    condition(&meshes, MESH, "Reconciled", "True", DEADLINE).await?;
    eventually("the refused revision is removed", DEADLINE, || async {
        let left = revisions.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let left: Vec<_> = left.items.into_iter().filter_map(|r| r.metadata.name).collect();
        if left.len() == 1 { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await
}

#[tokio::test]
async fn nothing_is_written_in_two_idle_minutes() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::Idle { seconds: 120 }, 0).await
}
