//! The API server: connecting, finding the mesh, knowing oneself, patching.

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use meshwright_api::MeshControlPlane;

use crate::args::Target;

const FIELD_MANAGER: &str = "kubectl-mesh";

/// A client as the command line asks for it.
pub async fn connect(target: &Target) -> anyhow::Result<Client> {
    let options = KubeConfigOptions { context: target.context.clone(), ..KubeConfigOptions::default() };
    // The errors of kube tell their causes themselves; as a source they would be told twice.
    let config = match (&target.kubeconfig, &target.context) {
        (Some(path), _) => {
            let file = Kubeconfig::read_from(path)
                .map_err(|e| anyhow!("could not use kubeconfig {}: {e}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|e| anyhow!("{e}"))
        }
        (None, Some(context)) => Config::from_kubeconfig(&options)
            .await
            .map_err(|e| anyhow!("could not use context {context} of the kubeconfig: {e}")),
        (None, None) => Config::infer()
            .await
            .map_err(|e| anyhow!("found no usable kubeconfig; name one with --kubeconfig: {e}")),
    };
    Client::try_from(config?).map_err(|e| anyhow!("could not use the kubeconfig: {}", reason(&e)))
}

/// What the API server said, or what keeps it from being asked, without the types around it.
pub fn reason(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut root: &dyn std::error::Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// What there is of a mesh.
#[derive(Debug, Clone)]
pub enum Sought {
    /// It is here.
    Found(Box<MeshControlPlane>),
    /// None is here, or not in the namespace that was named.
    NoneIn(Option<String>),
    /// Its kind is not installed.
    NotInstalled,
}

/// The MeshControlPlanes; nothing at all where the kind is not installed.
pub async fn meshes(client: &Client, namespace: Option<&str>) -> kube::Result<Option<Vec<MeshControlPlane>>> {
    let api = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(Some(list.items)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(error),
    }
}

/// The mesh of this cluster.
pub async fn mesh(client: &Client, namespace: Option<&str>) -> anyhow::Result<MeshControlPlane> {
    match seek(client, namespace).await? {
        Sought::Found(mesh) => Ok(*mesh),
        Sought::NoneIn(Some(namespace)) => {
            bail!("there is no MeshControlPlane in namespace {namespace}; without -n it is found")
        }
        Sought::NoneIn(None) => {
            bail!("there is no MeshControlPlane in this cluster; see `kubectl mesh check`")
        }
        Sought::NotInstalled => bail!(
            "Meshwright is not installed in this cluster; see with `kubectl mesh check --pre` what an installation needs"
        ),
    }
}

/// Looks for it.
pub async fn seek(client: &Client, namespace: Option<&str>) -> anyhow::Result<Sought> {
    let all = match meshes(client, namespace).await {
        Ok(all) => all,
        Err(kube::Error::Api(status)) if status.is_forbidden() && namespace.is_none() => {
            bail!("{}; name the namespace of the mesh with -n", status.message)
        }
        Err(error) => bail!("could not look for MeshControlPlanes: {}", reason(&error)),
    };
    Ok(match all.map(holder) {
        Some(Some(mesh)) => Sought::Found(Box::new(mesh)),
        Some(None) => Sought::NoneIn(namespace.map(str::to_owned)),
        None => Sought::NotInstalled,
    })
}

/// Of several the one that is installed, then the oldest: the others are in conflict with it and change nothing.
pub fn holder(meshes: Vec<MeshControlPlane>) -> Option<MeshControlPlane> {
    meshes.into_iter().min_by_key(|m| {
        let installed = m.status.as_ref().is_some_and(|s| s.active_revision.is_some());
        (!installed, m.creation_timestamp().map(|t| t.0), m.namespace(), m.name_any())
    })
}

/// The user's name as the API server knows it.
pub async fn user(client: &Client) -> anyhow::Result<String> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.map_err(|e| anyhow!("could not ask who you are: {}", reason(&e)))?;
    let name = review.status.and_then(|s| s.user_info).and_then(|u| u.username);
    name.context("the API server does not say who you are")
}

/// Merges a patch into this very object: one of the same name that was made since is not touched.
pub async fn patch(
    client: &Client,
    mesh: &MeshControlPlane,
    mut patch: serde_json::Value,
) -> anyhow::Result<()> {
    let (namespace, name) = (mesh.namespace().unwrap_or_default(), mesh.name_any());
    if let Some(uid) = mesh.uid() {
        patch["metadata"]["uid"] = uid.into();
    }
    let api: Api<MeshControlPlane> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let done = api.patch(&name, &params, &Patch::Merge(&patch)).await;
    done.map_err(|e| {
        let forbidden = matches!(&e, kube::Error::Api(status) if status.is_forbidden());
        let hint =
            "; ClusterRole meshwright-operate, bound in that namespace, gives the right to steer upgrades";
        let hint = if forbidden && reason(&e).contains("cannot patch") { hint } else { "" };
        anyhow!("could not change MeshControlPlane {namespace}/{name}: {}{hint}", reason(&e))
    })?;
    Ok(())
}
