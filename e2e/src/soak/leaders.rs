//! The operator's replicas: who leads, who could.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::json;

use super::kill::{fresh, is_ready, pods};
use super::mesh::{OPERATOR, OPERATOR_NAMESPACE, OPERATOR_PODS};
use crate::testing::{DEADLINE, Env, eventually, holder, rolled_out};

/// The leader, and those that are ready to lead.
#[derive(Debug)]
pub struct Replicas {
    pub leader: Pod,
    pub others: Vec<Pod>,
}

impl Replicas {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Pod> {
        std::iter::once(&self.leader).chain(&self.others)
    }
}

/// Waits until every replica is ready, was never restarted, and one of them leads.
///
/// # Errors
/// After the deadline, with what was seen last.
pub async fn replicas(env: &Env) -> Result<Replicas> {
    fresh(env, OPERATOR_NAMESPACE, OPERATOR_PODS).await?;
    rolled_out(env, OPERATOR_NAMESPACE, OPERATOR).await?;
    eventually("a leader and another replica", DEADLINE, || async {
        let leader = leader(env).await.map_err(|e| format!("{e:#}"))?.ok_or("nobody leads")?;
        let all = pods(env, OPERATOR_NAMESPACE, OPERATOR_PODS).await.map_err(|e| format!("{e:#}"))?;
        let (leading, others): (Vec<Pod>, Vec<Pod>) =
            all.into_iter().filter(is_ready).partition(|pod| pod.name_any() == leader);
        match leading.into_iter().next() {
            Some(leader) if !others.is_empty() => Ok(Replicas { leader, others }),
            _ => Err(format!("{leader} leads, {} others are ready", others.len())),
        }
    })
    .await
}

/// Name of the pod that the Lease names.
///
/// # Errors
/// When there is no Lease.
pub async fn leader(env: &Env) -> Result<Option<String>> {
    let lease = leases(env).get(OPERATOR).await.context("read the operator's Lease")?;
    Ok(holder(&lease))
}

/// Waits until another than this pod leads.
///
/// # Errors
/// After the deadline.
pub async fn another_leader(env: &Env, than: &Pod) -> Result<()> {
    eventually("another leader", DEADLINE, || async {
        let now = leader(env).await.map_err(|e| format!("{e:#}"))?;
        if now.as_ref().is_some_and(|now| *now != than.name_any()) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await
}

/// Writes this pod into the Lease, as if it had just renewed it: it takes that for its own, while the old leader
/// goes on until its next renewal.
///
/// # Errors
/// When the API server refuses it.
pub async fn overwrite(env: &Env, with: &Pod) -> Result<()> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
    let spec = json!({"spec": {"holderIdentity": with.name_any(), "renewTime": now}});
    let patch = leases(env).patch(OPERATOR, &PatchParams::default(), &Patch::Merge(&spec)).await;
    patch.context("overwrite the operator's Lease").map(drop)
}

fn leases(env: &Env) -> Api<DynamicObject> {
    env.api("coordination.k8s.io/v1", "Lease", "leases", OPERATOR_NAMESPACE)
}
