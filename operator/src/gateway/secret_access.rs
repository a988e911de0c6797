//! Which namespaces' Secrets control planes may read: those that a listener of one of our Gateways names, in the
//! Gateway's own namespace or permitted there by a ReferenceGrant. The right goes as soon as the reference or the grant
//! does. It covers all Secrets of such a namespace, because RBAC cannot say less for a watch.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{api::rbac::v1::RoleBinding, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Resource, ResourceExt,
    api::ListParams,
    core::ApiResource,
    runtime::{controller::Action, events::EventType},
};
use meshwright_api::{
    CONTROLLER_NAME, MeshControlPlane, MeshRevision,
    gateway::{Gateway, GatewayClass, ReferenceGrant},
    labels,
};

use crate::{
    apply::{self, Desired, Error, Outcome, Problem, prune},
    context::Context,
    error::{self, Class},
    mesh_control_plane::{build, mesh_of_cluster},
    reconciler,
};

/// Name of this controller in metrics and logs.
pub const CONTROLLER: &str = "secret-access";
/// The role, and the name of every binding to it.
pub const ROLE: &str = "meshwright-gateway-secrets";
/// Value of the component label of these bindings.
const COMPONENT: &str = "secret-access";
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Some of the bindings could not be brought to what they should be.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of the bindings for Secrets could not be written")]
pub struct Unfinished {
    failed: usize,
    /// The first; the others are logged.
    #[source]
    first: Error,
}

/// A reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A read.
    #[error(transparent)]
    Read(#[from] Error),
    /// Some writes.
    #[error(transparent)]
    Unfinished(#[from] Unfinished),
}

impl reconciler::Classified for Failure {
    fn class(&self) -> Class {
        match self {
            Self::Read(error) => error.class(),
            Self::Unfinished(unfinished) => unfinished.first.class(),
        }
    }
}

/// What Gateways and grants ask for.
struct Asked {
    /// Namespaces whose Secrets may be read.
    permitted: BTreeSet<String>,
    /// Nothing that could name more namespaces was skipped.
    complete: bool,
}

/// Brings the bindings to what Gateways and grants say.
pub async fn reconcile(mcp: Arc<MeshControlPlane>, ctx: Arc<Context>) -> Result<Action, Failure> {
    let mesh = mesh_of_cluster(&ctx).await?;
    let serves = mesh.is_some_and(|m| m.uid() == mcp.uid() && m.metadata.deletion_timestamp.is_none());
    if !serves || ctx.leaving.is_cancelled() {
        return Ok(error::settled(None));
    }
    let asked = asked(&ctx).await?;
    let readers = readers(&ctx, &mcp).await?;
    let desired = asked
        .permitted
        .iter()
        .filter(|_| !readers.is_empty())
        .map(|namespace| Desired::new(&binding(&mcp, namespace, &readers)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Error::from)?;
    let mut errors = Vec::new();
    // Rights are taken away before others are given, and whatever becomes of those.
    if asked.complete {
        let selector = selector(&mcp);
        let kind = ApiResource::erase::<RoleBinding>(&());
        let keep = |namespace: Option<String>| asked.permitted.contains(&namespace.unwrap_or_default());
        errors.extend(prune(&ctx, &kind, None, &selector, |o| keep(o.namespace())).await.err());
    }
    let outcome = apply_each(&ctx, &desired, &mut errors).await;
    report(&ctx, &mcp, &outcome.problems, &errors).await;
    let failed = errors.len();
    // A namespace that is going waits longest, and must not make the others wait.
    errors.sort_by_key(|error| matches!(error.class(), Class::Waiting(_)));
    match errors.into_iter().next() {
        Some(first) => Err(Unfinished { failed, first }.into()),
        None => Ok(error::settled(outcome.recheck)),
    }
}

async fn asked(ctx: &Context) -> Result<Asked, Error> {
    let all = ListParams::default();
    let classes = reconciler::list_known::<GatewayClass>(Api::all(ctx.client.clone()), &all).await;
    let (classes, every_class) = classes.map_err(Error::request("list", "GatewayClasses"))?;
    let gateways = reconciler::list_known::<Gateway>(Api::all(ctx.client.clone()), &all).await;
    let (gateways, every_gateway) = gateways.map_err(Error::request("list", "Gateways"))?;
    let grants = reconciler::list::<ReferenceGrant>(Api::all(ctx.client.clone()), &all).await;
    let grants = grants.map_err(Error::request("list", "ReferenceGrants"))?;
    let ours: Vec<&Gateway> = gateways.iter().filter(|g| is_ours(g, &classes)).collect();
    Ok(Asked {
        permitted: permitted(&ours, &grants, &ctx.settings.namespace),
        complete: every_class && every_gateway,
    })
}

// From metadata, so that a revision that does not decode does not lose its rights.
async fn readers(ctx: &Context, mcp: &MeshControlPlane) -> Result<Vec<String>, Error> {
    let api = Api::<MeshRevision>::namespaced(ctx.client.clone(), &mcp.namespace().unwrap_or_default());
    let revisions = api.list_metadata(&ListParams::default()).await;
    let revisions = revisions.map_err(Error::request("list", "revisions"))?.items;
    let uid = mcp.uid();
    let ours = revisions.iter().filter(|r| r.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref()));
    let mut readers: Vec<String> = ours.map(ResourceExt::name_any).collect();
    readers.sort();
    Ok(readers)
}

// Each by itself: a stranger's binding in one namespace, or one that is going, is nothing to the others.
async fn apply_each(ctx: &Context, desired: &[Desired], errors: &mut Vec<Error>) -> Outcome {
    let mut outcome = Outcome::default();
    for binding in desired {
        match apply::apply(ctx, std::slice::from_ref(binding)).await {
            Ok(applied) => outcome.merge(applied),
            Err(error) => errors.push(error),
        }
    }
    outcome
}

async fn report(ctx: &Context, mcp: &MeshControlPlane, problems: &[Problem], errors: &[Error]) {
    for error in errors {
        tracing::warn!(error = %error::chain(error), "binding for Secrets");
    }
    let problems = problems.iter().map(|p| match p {
        Problem::NotOurs { object, owner } | Problem::Held { object, manager: owner } => {
            format!("{object} belongs to {owner}")
        }
        Problem::Contested { object, field, manager } => {
            format!("{object}: {field} is changed back again and again by {manager}")
        }
    });
    // What passes by itself is no news.
    let lasting = errors.iter().filter(|e| matches!(e.class(), Class::Refused | Class::Terminal));
    let notes: Vec<String> = problems.chain(lasting.map(|e| error::chain(e))).collect();
    if !notes.is_empty() {
        let note = format!("listeners there get no certificates: {}", notes.join("; "));
        tracing::warn!(mesh = %mcp.name_any(), note, "Secrets cannot be read");
        ctx.event(&mcp.object_ref(&()), EventType::Warning, "SecretsNotReadable", "Reconcile", note).await;
    }
}

fn selector(mcp: &MeshControlPlane) -> String {
    format!(
        "{}={},{}={},{}={COMPONENT}",
        labels::MANAGED_BY,
        labels::MANAGER,
        labels::MESH_NAME,
        mcp.name_any(),
        labels::COMPONENT
    )
}

fn is_ours(gateway: &Gateway, classes: &[GatewayClass]) -> bool {
    let class = classes.iter().find(|c| c.name_any() == gateway.spec.gateway_class_name);
    class.is_some_and(|c| c.spec.controller_name == CONTROLLER_NAME)
}

/// Namespaces with a Secret that a listener names and may name. Never the operator's own, whatever a Gateway there says:
/// the root keys are in it.
pub fn permitted(gateways: &[&Gateway], grants: &[ReferenceGrant], operator: &str) -> BTreeSet<String> {
    let mut namespaces = BTreeSet::new();
    for gateway in gateways {
        let own = gateway.namespace().unwrap_or_default();
        let tls = gateway.spec.listeners.iter().filter_map(|l| l.tls.as_ref());
        for secret in tls.flat_map(|t| t.certificate_refs.iter().flatten()) {
            let is_secret = secret.group.as_deref().unwrap_or_default().is_empty()
                && secret.kind.as_deref().unwrap_or("Secret") == "Secret";
            let namespace = secret.namespace.as_deref().unwrap_or(&own);
            if is_secret
                && namespace != operator
                && (namespace == own || granted(grants, &own, namespace, &secret.name))
            {
                namespaces.insert(namespace.to_owned());
            }
        }
    }
    namespaces
}

fn granted(grants: &[ReferenceGrant], from: &str, namespace: &str, secret: &str) -> bool {
    grants.iter().filter(|g| g.namespace().as_deref() == Some(namespace)).any(|grant| {
        let from_gateways = grant
            .spec
            .from
            .iter()
            .any(|f| f.group == GATEWAY_GROUP && f.kind == "Gateway" && f.namespace == from);
        let to_secret = grant.spec.to.iter().any(|t| {
            t.group.is_empty()
                && t.kind == "Secret"
                && t.name.as_deref().is_none_or(|name| name.is_empty() || name == secret)
        });
        from_gateways && to_secret
    })
}

fn binding(mcp: &MeshControlPlane, namespace: &str, readers: &[String]) -> RoleBinding {
    let mesh_namespace = mcp.namespace().unwrap_or_default();
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(ROLE.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(build::shared::labels(
                &mcp.name_any(),
                &mesh_namespace,
                &[(labels::COMPONENT, COMPONENT)],
            )),
            ..ObjectMeta::default()
        },
        role_ref: build::role_ref(ROLE),
        subjects: Some(readers.iter().map(|r| build::subject(&mesh_namespace, r)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::apply::tests::{Answer, not_found, server};

    #[tokio::test]
    async fn one_tenants_obstacles_do_not_stop_the_others() {
        let mcp = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane",
            "metadata": {"name": "mesh", "namespace": "prod"}, "spec": {}});
        let mcp: MeshControlPlane = serde_json::from_value(mcp).unwrap();
        let readers = ["mesh-0a1b2c3d".to_owned()];
        let desired: Vec<Desired> =
            ["a", "b", "c"].map(|n| Desired::new(&binding(&mcp, n, &readers)).unwrap()).into();
        let path = |n: &str| match n {
            "a" => "/apis/rbac.authorization.k8s.io/v1/namespaces/a/rolebindings/meshwright-gateway-secrets",
            "b" => "/apis/rbac.authorization.k8s.io/v1/namespaces/b/rolebindings/meshwright-gateway-secrets",
            _ => "/apis/rbac.authorization.k8s.io/v1/namespaces/c/rolebindings/meshwright-gateway-secrets",
        };
        let mut foreign = desired[0].body.clone();
        foreign["metadata"]["labels"] = json!({});
        let refused = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403});
        let answers = vec![
            Answer(Method::GET, path("a"), 200, foreign),
            Answer(Method::GET, path("b"), 404, not_found()),
            Answer(Method::PATCH, path("b"), 403, refused),
            Answer(Method::GET, path("c"), 404, not_found()),
            Answer(Method::PATCH, path("c"), 201, desired[2].body.clone()),
        ];
        let (ctx, mock) = server(answers);
        let mut errors = Vec::new();
        let outcome = apply_each(&ctx, &desired, &mut errors).await;
        mock.finish();
        assert_eq!((outcome.writes, outcome.problems.len(), errors.len()), (1, 1, 1));
        assert!(outcome.recheck.is_some());
    }
}
