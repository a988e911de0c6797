//! The issuing CA of a revision. The operator may create and delete Secrets in the mesh's namespace and not read them,
//! so what is where is recorded in the MeshRevision: the current Secret in its status, by compare-and-swap, and how far
//! old ones are removed in an annotation.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use meshwright_api::{IssuingCaStatus, MeshRevision, labels, names};
use meshwright_pki::{fingerprint, sign_issuing_ca, validity};
use serde_json::json;

use super::{Error, root::Root};
use crate::{apply, context::Context, mesh_control_plane::build::shared};

/// Life of an issuing CA.
const LIFE: Duration = Duration::from_secs(30 * 86_400);
/// Renewed when this much is left.
const RENEW: Duration = Duration::from_secs(15 * 86_400);
/// Annotation on a MeshRevision: Secrets up to this epoch are removed.
const COLLECTED: &str = "meshwright.io/issuing-collected";
/// Annotation on a MeshRevision: which root signed the CA of which Secret.
const SIGNED_BY: &str = "meshwright.io/issuing-signed-by";
/// Names may be taken: by Secrets whose creation was not recorded, or by somebody's. So many are tried at once that
/// taking them all is a war and no accident, and few enough that a reconcile ends.
const ATTEMPTS: u64 = 1000;

/// What to do about a revision's issuing CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The Secret that the Deployment mounts.
    pub secret: String,
    /// The epoch to issue first, if one is due.
    pub issue: Option<u64>,
    /// Epochs whose Secrets can go.
    pub collect: Vec<u64>,
}

/// Decides. `mounted` are the Secrets that pods of the revision mount, `replaced` says that the root is a new one since
/// the current certificate was signed.
pub fn plan(
    revision: &MeshRevision,
    root: &Root,
    replaced: bool,
    mounted: &BTreeSet<String>,
    now: Timestamp,
) -> Plan {
    let name = revision.name_any();
    let current = revision.status.as_ref().and_then(|s| s.issuing_ca.as_ref());
    let Some(current) = current else {
        return Plan { secret: secret_name(&name, 1), issue: Some(1), collect: Vec::new() };
    };
    let epoch = epoch_of(&current.secret_name);
    if replaced || is_due(current, root, now) {
        return Plan { secret: secret_name(&name, epoch + 1), issue: Some(epoch + 1), collect: Vec::new() };
    }
    let collected: u64 = revision.annotations().get(COLLECTED).and_then(|n| n.parse().ok()).unwrap_or(0);
    // Only from the oldest on, so that one number says what is left; and only once the new one is in use.
    let in_use = mounted.contains(&current.secret_name);
    let collect =
        (collected + 1..epoch).take_while(|e| in_use && !mounted.contains(&secret_name(&name, *e))).collect();
    Plan { secret: current.secret_name.clone(), issue: None, collect }
}

/// Whether the current certificate is of another root than this one, as far as is known. The annotation names the
/// Secret, too: what was annotated and then not recorded is of no use. One without it is of an operator that gave its
/// Secrets a type which a listener could serve.
pub fn is_replaced(revision: &MeshRevision, root: &str) -> bool {
    let Some(current) = revision.status.as_ref().and_then(|s| s.issuing_ca.as_ref()) else { return false };
    revision.annotations().get(SIGNED_BY) != Some(&signed_by(&current.secret_name, root))
}

fn signed_by(secret: &str, root: &str) -> String {
    format!("{secret}={root}")
}

fn is_due(current: &IssuingCaStatus, root: &Root, now: Timestamp) -> bool {
    let left = Duration::try_from(current.not_after.0.duration_since(now)).unwrap_or_default();
    // Near the root's own end a new one would not live longer.
    let longer = current.not_after.0 + Duration::from_secs(60) < root.not_after;
    left <= RENEW && longer
}

/// How long until one is due.
pub fn due_in(current: &IssuingCaStatus, now: Timestamp) -> Duration {
    let left = Duration::try_from(current.not_after.0.duration_since(now)).unwrap_or_default();
    left.saturating_sub(RENEW)
}

fn secret_name(revision: &str, epoch: u64) -> String {
    names::fit(&format!("{revision}-issuing-{epoch}"))
}

fn epoch_of(secret: &str) -> u64 {
    secret.rsplit_once("-issuing-").and_then(|(_, n)| n.parse().ok()).unwrap_or(1)
}

/// Signs and delivers a new issuing CA and records it. The Secret comes first: a record without a Secret would stop
/// pods, a Secret without a record is only left over, and its epoch is skipped.
pub async fn deliver(
    ctx: &Context,
    revision: &MeshRevision,
    root: &Root,
    epoch: u64,
) -> Result<MeshRevision, Error> {
    let name = revision.name_any();
    let namespace = revision.namespace().unwrap_or_default();
    let sign = |source| Error::Sign { what: format!("the issuing certificate of {name}"), source };
    let ca = sign_issuing_ca(&root.authority, &name, ctx.now(), LIFE).map_err(sign)?;
    let not_after = validity(ca.cert()).map_err(sign)?.until;
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    for epoch in epoch..epoch + ATTEMPTS {
        let secret_name = secret_name(&name, epoch);
        let secret = super::root::ca_secret(meta(revision, &secret_name, &namespace), Some(&ca), &root.pem)?;
        ctx.metrics.wrote("Secret", "create");
        match ctx.write(api.create(&PostParams::default(), &secret)).await {
            Ok(_) => {
                let issued = IssuingCaStatus {
                    secret_name,
                    fingerprint: fingerprint(ca.cert()),
                    not_after: Time(not_after),
                };
                let revision = sign_for(ctx, revision, &issued, root).await?;
                return record(ctx, &revision, issued).await;
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(failed("create", &namespace, &secret_name)(error)),
        }
    }
    let taken = secret_name(&name, epoch);
    let conflict = kube::error::Status::failure("every epoch tried is taken", "AlreadyExists").with_code(409);
    Err(failed("create", &namespace, &taken)(kube::Error::Api(Box::new(conflict))))
}

/// Whether a Secret was deleted behind our back. The operator may not read it; a creation that would go through says so.
pub async fn is_gone(ctx: &Context, revision: &MeshRevision, secret: &str) -> Result<bool, Error> {
    let namespace = revision.namespace().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    // Without a key: nothing of it is kept.
    let probe = super::root::ca_secret(meta(revision, secret, &namespace), None, "")?;
    let params = PostParams { dry_run: true, ..PostParams::default() };
    match ctx.write(api.create(&params, &probe)).await {
        Ok(_) => {
            tracing::warn!(secret, namespace, "the Secret with the issuing certificate was deleted");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
        // A quota, a policy: nothing is known, and what else there is to keep must not wait for it.
        Err(error) => {
            tracing::warn!(secret, namespace, %error, "cannot tell whether the Secret is there");
            Ok(false)
        }
    }
}

// Before the record: were it the other way round, a stop in between would leave a certificate of a lost root in use.
async fn sign_for(
    ctx: &Context,
    revision: &MeshRevision,
    issued: &IssuingCaStatus,
    root: &Root,
) -> Result<MeshRevision, Error> {
    let value = signed_by(&issued.secret_name, &root.fingerprint);
    annotate(ctx, revision, SIGNED_BY, value).await
}

async fn annotate(
    ctx: &Context,
    revision: &MeshRevision,
    annotation: &str,
    value: String,
) -> Result<MeshRevision, Error> {
    let name = revision.name_any();
    let namespace = revision.namespace().unwrap_or_default();
    let api: Api<MeshRevision> = Api::namespaced(ctx.client.clone(), &namespace);
    let body = json!({"metadata": {
        "resourceVersion": revision.resource_version(),
        "annotations": {annotation: value},
    }});
    ctx.metrics.wrote("MeshRevision", "apply");
    ctx.write(api.patch(&name, &PatchParams::default(), &Patch::Merge(&body)))
        .await
        .map_err(|e| apply::Error::request("annotate", format!("MeshRevision {name}"))(e).into())
}

fn meta(revision: &MeshRevision, name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(shared::labels(
            &revision.spec.mesh,
            namespace,
            &[(labels::REVISION, &revision.name_any())],
        )),
        owner_references: revision.controller_owner_ref(&()).map(|o| vec![o]),
        ..ObjectMeta::default()
    }
}

async fn record(
    ctx: &Context,
    revision: &MeshRevision,
    issued: IssuingCaStatus,
) -> Result<MeshRevision, Error> {
    let mut wanted = revision.clone();
    wanted.status.get_or_insert_default().issuing_ca = Some(issued);
    let namespace = revision.namespace().unwrap_or_default();
    let api: Api<MeshRevision> = Api::namespaced(ctx.client.clone(), &namespace);
    ctx.metrics.wrote("MeshRevision", "status");
    // The resourceVersion of the read goes with it: whoever read an older state loses here.
    let name = revision.name_any();
    let recorded = ctx.write(api.replace_status(&name, &PostParams::default(), &wanted)).await;
    recorded.map_err(|e| {
        apply::Error::request(
            "record the issuing certificate of",
            format!("MeshRevision {}", revision.name_any()),
        )(e)
        .into()
    })
}

/// Removes Secrets of old epochs.
pub async fn collect(ctx: &Context, revision: &MeshRevision, epochs: &[u64]) -> Result<(), Error> {
    let Some(last) = epochs.last() else { return Ok(()) };
    let name = revision.name_any();
    let namespace = revision.namespace().unwrap_or_default();
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &namespace);
    for epoch in epochs {
        let secret = secret_name(&name, *epoch);
        ctx.metrics.wrote("Secret", "delete");
        match ctx.write(secrets.delete(&secret, &DeleteParams::default())).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => return Err(failed("delete", &namespace, &secret)(error)),
        }
    }
    annotate(ctx, revision, COLLECTED, last.to_string()).await.map(|_| ())
}

fn failed(action: &'static str, namespace: &str, secret: &str) -> impl FnOnce(kube::Error) -> Error {
    let object = format!("Secret {namespace}/{secret}");
    move |error| apply::Error::request(action, object)(error).into()
}
