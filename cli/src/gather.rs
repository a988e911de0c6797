//! Every read of `check` and `status`. What may not be read is noted and stops nothing else.

use futures::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Node, Pod, Service},
        policy::v1::PodDisruptionBudget,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams};
use meshwright_api::{
    MeshControlPlane, MeshRevision,
    gateway::{Gateway, GatewayClass},
    labels,
};
use serde::de::DeserializeOwned;
use std::fmt::Debug;

use crate::{
    client::{self, Sought},
    upgrade::running,
};

mod rights;

#[cfg(test)]
pub use rights::needed;
pub use rights::{Right, rights};

/// What was read, or why not.
pub type Looked<T> = Result<T, String>;

/// Namespace of the operator, unless the install file was made for another.
pub const OPERATOR_NAMESPACE: &str = "meshwright-system";
/// Labels of the operator's own objects.
pub const OPERATOR_LABEL: &str = "app.kubernetes.io/name=meshwright-operator";
/// What the mesh cannot do without.
pub const DEFINITIONS: [&str; 4] = ["gatewayclasses", "gateways", "httproutes", "referencegrants"];

/// An installed mesh and all around it.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The mesh, or what is missing of it.
    pub mesh: Looked<Sought>,
    /// Its revisions.
    pub revisions: Looked<Vec<MeshRevision>>,
    /// The operator's Deployment.
    pub operators: Looked<Vec<Deployment>>,
    /// Deployments of control planes and gateways.
    pub deployments: Looked<Vec<Deployment>>,
    /// Their pods and the operator's.
    pub pods: Looked<Vec<Pod>>,
    /// Their autoscalers.
    pub autoscalers: Looked<Vec<HorizontalPodAutoscaler>>,
    /// Their disruption budgets.
    pub budgets: Looked<Vec<PodDisruptionBudget>>,
    /// All Gateways of our class.
    pub gateways: Looked<Vec<Gateway>>,
}

/// A cluster before an installation.
#[derive(Debug, Clone)]
pub struct Before {
    /// Major and minor version of Kubernetes.
    pub version: Looked<(u32, u32)>,
    /// What is needed to install, and whether the user may.
    pub rights: Vec<(Right, Looked<bool>)>,
    /// API groups that are served.
    pub groups: Looked<Vec<String>>,
    /// The Gateway API's definitions.
    pub definitions: Looked<Vec<Definition>>,
    /// MeshControlPlanes that are there already.
    pub meshes: Looked<Vec<MeshControlPlane>>,
    /// Nodes.
    pub nodes: Looked<Vec<Node>>,
    /// Services, for what gives out addresses.
    pub services: Looked<Vec<Service>>,
}

/// A definition of the Gateway API in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Plural name.
    pub name: &'static str,
    /// Its release; none where the definition is absent.
    pub version: Option<String>,
    /// Our operator installed it.
    pub ours: bool,
}

/// All objects of a kind; a kind that is not served has none.
pub async fn list<K>(client: &Client, selector: &str) -> Looked<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let read = api.list(&ListParams::default().labels(selector)).await;
    match read {
        Ok(list) => Ok(list.items),
        // A kind that is not installed has no objects.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(client::reason(&error)),
    }
}

/// Looks for the mesh and at all around it.
pub async fn installed(client: &Client, namespace: Option<&str>) -> Installed {
    around(client, client::seek(client, namespace).await.map_err(|e| format!("{e:#}"))).await
}

/// Looks at all around a mesh.
pub async fn around(client: &Client, mesh: Looked<Sought>) -> Installed {
    let managed = format!("{}={},{}", labels::MANAGED_BY, labels::MANAGER, labels::COMPONENT);
    let (revisions, operators, deployments, pods, own, autoscalers, budgets, gateways, classes) = tokio::join!(
        list(client, ""),
        list(client, OPERATOR_LABEL),
        list(client, &managed),
        list::<Pod>(client, &managed),
        list::<Pod>(client, OPERATOR_LABEL),
        list(client, &managed),
        list(client, &managed),
        list::<Gateway>(client, ""),
        list::<GatewayClass>(client, ""),
    );
    let pods = pods.and_then(|pods| Ok(pods.into_iter().chain(own?).collect()));
    let gateways = gateways.map(|all| all.into_iter().filter(|g| is_ours(g, &classes)).collect());
    Installed { mesh, revisions, operators, deployments, pods, autoscalers, budgets, gateways }
}

/// Pods that each Gateway has of the revision that serves, or that an upgrade goes away from.
pub async fn pods_of_gateways(client: &Client, mesh: &MeshControlPlane) -> Looked<Vec<i32>> {
    let status = mesh.status.as_ref();
    let serving = running(mesh).map(|u| &u.from).or(status.and_then(|s| s.active_revision.as_ref()));
    let Some(revision) = serving else { return Ok(Vec::new()) };
    let selector =
        format!("{}={},{}={revision}", labels::COMPONENT, labels::COMPONENT_GATEWAY, labels::REVISION);
    let deployments: Vec<Deployment> = list(client, &selector).await?;
    let wanted = deployments.iter().filter_map(|d| d.spec.replicas);
    Ok(wanted.filter(|n| *n > 0).collect())
}

// Who may not list classes still sees the Gateways of the class that the operator installs.
fn is_ours(gateway: &Gateway, classes: &Looked<Vec<GatewayClass>>) -> bool {
    let name = &gateway.spec.gateway_class_name;
    match classes {
        Err(_) => name == meshwright_api::GATEWAY_CLASS,
        Ok(all) => all
            .iter()
            .any(|c| c.name_any() == *name && c.spec.controller_name == meshwright_api::CONTROLLER_NAME),
    }
}

/// Looks at a cluster in which nothing is installed yet.
pub async fn before(client: &Client) -> Before {
    let meshes = async {
        let meshes = client::meshes(client, None).await.map_err(|e| client::reason(&e));
        meshes.map(Option::unwrap_or_default)
    };
    let (version, rights, groups, definitions, meshes, nodes, services) = tokio::join!(
        version(client),
        rights(client),
        groups(client),
        definitions(client),
        meshes,
        list(client, ""),
        list(client, "")
    );
    Before { version, rights, groups, definitions, meshes, nodes, services }
}

async fn version(client: &Client) -> Looked<(u32, u32)> {
    let info = client.apiserver_version().await.map_err(|e| client::reason(&e))?;
    // Some providers write 37+.
    let number = |text: &str| text.trim_end_matches('+').parse().map_err(|_| format!("version {text:?}"));
    Ok((number(&info.major)?, number(&info.minor)?))
}

async fn groups(client: &Client) -> Looked<Vec<String>> {
    let list = client.list_api_groups().await.map_err(|e| client::reason(&e))?;
    Ok(list.groups.into_iter().map(|g| g.name).collect())
}

async fn definitions(client: &Client) -> Looked<Vec<Definition>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let read = |name: &'static str| {
        let api = api.clone();
        async move {
            let crd = api.get_metadata_opt(&format!("{name}.gateway.networking.k8s.io")).await;
            let crd = crd.map_err(|e| client::reason(&e))?;
            let version = crd.as_ref().map(|crd| {
                crd.annotations().get(labels::BUNDLE_VERSION).cloned().unwrap_or("no release".to_owned())
            });
            let ours =
                crd.is_some_and(|c| c.labels().get(labels::MANAGED_BY).is_some_and(|m| m == labels::MANAGER));
            Ok(Definition { name, version, ours })
        }
    };
    join_all(DEFINITIONS.map(read)).await.into_iter().collect()
}
