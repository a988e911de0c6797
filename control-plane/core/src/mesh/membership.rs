//! Which pods are in the mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::model::{Namespace, ObjectKey, Pod};

/// On a namespace or a pod: whether its pods are in the mesh. The pod's own label wins.
pub const LABEL: &str = "meshwright.io/mesh";
/// Value of [`LABEL`]: in.
pub const ENABLED: &str = "enabled";
/// Value of [`LABEL`]: out.
pub const DISABLED: &str = "disabled";
/// On every pod that the operator makes.
pub const COMPONENT: &str = "meshwright.io/component";
/// Value of [`COMPONENT`]: a Gateway's proxy.
pub const GATEWAY: &str = "gateway";
/// On a namespace or a pod: Istio redirects its traffic without a sidecar, if the value is [`AMBIENT`].
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Value of [`DATAPLANE_MODE`].
pub const AMBIENT: &str = "ambient";

/// Containers that other meshes put into pods. What redirects a pod's traffic besides us would redirect it twice.
const FOREIGN_SIDECARS: [&str; 8] = [
    // Istio, also its gateways.
    "istio-proxy",
    "linkerd-proxy",
    // Consul, now and before.
    "consul-dataplane",
    "envoy-sidecar",
    "kuma-sidecar",
    "nginx-mesh-sidecar",
    // App Mesh and Open Service Mesh call their proxy `envoy`, as many do who have no mesh; what redirects is an init container.
    "proxyinit",
    "osm-init",
];

/// Whether a container of this name is another mesh's.
pub fn is_foreign_sidecar(container: &str) -> bool {
    FOREIGN_SIDECARS.contains(&container)
}

/// What decides besides labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Namespaces whose pods never join: the mesh's, the operator's, kube-system.
    pub closed: BTreeSet<String>,
    /// The mesh's own: a MeshTLSPolicy without targets there is for the whole mesh.
    pub root: String,
}

/// Where a label is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// On the pod.
    Pod,
    /// On its namespace.
    Namespace,
}

/// Why a pod is not in the mesh. What it says is for the pod's owner, and names the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outside {
    /// Neither it nor its namespace asks for it.
    NotAsked,
    /// [`LABEL`] is [`DISABLED`].
    Disabled(On),
    /// [`LABEL`] has a value that means nothing.
    UnknownValue(On, String),
    /// No pod of its namespace, here by name, ever joins.
    ClosedNamespace(String),
    /// The operator made it, as the component named here: it speaks mutual TLS by itself.
    OwnProxy(String),
    /// `spec.hostNetwork`: it has no network to redirect but the node's.
    HostNetwork,
    /// A container of this name is another mesh's.
    ForeignSidecar(String),
    /// Istio redirects its traffic without a sidecar.
    Ambient(On),
    /// It has no service account, so it could have no identity.
    NoServiceAccount,
}

impl Outside {
    /// Whether somebody asked for the pod to be in the mesh, and something about it stands against that: its owner has to be told.
    pub fn is_obstacle(&self) -> bool {
        match self {
            Self::UnknownValue(..)
            | Self::HostNetwork
            | Self::ForeignSidecar(_)
            | Self::Ambient(_)
            | Self::NoServiceAccount => true,
            Self::NotAsked | Self::Disabled(_) | Self::ClosedNamespace(_) | Self::OwnProxy(_) => false,
        }
    }
}

/// Whether the pod is to be in the mesh. `namespace`: its own, None if that is not known.
///
/// # Errors
/// Why it is not.
pub fn membership(
    pod: &Pod,
    key: &ObjectKey,
    namespace: Option<&Namespace>,
    rules: &Rules,
) -> Result<(), Outside> {
    let none = BTreeMap::new();
    let around = namespace.map_or(&none, |namespace| &namespace.labels);
    // First what no label of the user's can change, so that nobody is told to set one in vain.
    if rules.closed.contains(&key.namespace) {
        return Err(Outside::ClosedNamespace(key.namespace.clone()));
    }
    if let Some(component) = pod.labels.get(COMPONENT) {
        return Err(Outside::OwnProxy(component.clone()));
    }
    asked(&pod.labels, around)?;
    if pod.host_network {
        return Err(Outside::HostNetwork);
    }
    if let Some(sidecar) = &pod.sidecar {
        return Err(Outside::ForeignSidecar(sidecar.clone()));
    }
    if let Some((on, AMBIENT)) = nearest(DATAPLANE_MODE, &pod.labels, around) {
        return Err(Outside::Ambient(on));
    }
    if pod.service_account.is_empty() {
        return Err(Outside::NoServiceAccount);
    }
    Ok(())
}

/// Whether pods of the namespace are members unless they say otherwise.
pub fn enrolls(name: &str, namespace: &Namespace, rules: &Rules) -> bool {
    !rules.closed.contains(name)
        && asked(&BTreeMap::new(), &namespace.labels).is_ok()
        && namespace.labels.get(DATAPLANE_MODE).is_none_or(|mode| mode != AMBIENT)
}

fn asked(pod: &BTreeMap<String, String>, namespace: &BTreeMap<String, String>) -> Result<(), Outside> {
    match nearest(LABEL, pod, namespace) {
        None => Err(Outside::NotAsked),
        Some((_, ENABLED)) => Ok(()),
        Some((on, DISABLED)) => Err(Outside::Disabled(on)),
        Some((on, value)) => Err(Outside::UnknownValue(on, value.to_owned())),
    }
}

/// The pod's own label, else its namespace's.
fn nearest<'a>(
    label: &str,
    pod: &'a BTreeMap<String, String>,
    namespace: &'a BTreeMap<String, String>,
) -> Option<(On, &'a str)> {
    let own = pod.get(label).map(|value| (On::Pod, value.as_str()));
    own.or_else(|| namespace.get(label).map(|value| (On::Namespace, value.as_str())))
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pod => "the pod",
            Self::Namespace => "its namespace",
        })
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAsked => write!(f, "neither the pod nor its namespace has label {LABEL}: give one of them {LABEL}={ENABLED}"),
            Self::Disabled(On::Pod) => write!(f, "the pod has label {LABEL}={DISABLED}: set it to {ENABLED}, or take it off if the namespace has it"),
            Self::Disabled(On::Namespace) => write!(f, "its namespace has label {LABEL}={DISABLED}: set it to {ENABLED} there or on the pod"),
            Self::UnknownValue(on, value) => write!(f, "{on} has label {LABEL}={value}, which means nothing: set it to {ENABLED} or {DISABLED}"),
            Self::ClosedNamespace(name) => write!(f, "pods of namespace {name} never join: what is to be in the mesh has to run in another one"),
            Self::OwnProxy(component) => write!(f, "the pod has label {COMPONENT}={component}, so it is a part of the mesh itself: if it is not, take the label off its template"),
            Self::HostNetwork => f.write_str("the pod uses the network of its node, which is not its own to redirect: take hostNetwork off its template"),
            Self::ForeignSidecar(name) => write!(f, "container {name} is another mesh's and redirects the pod's traffic already: take the pod out of that mesh, and create it anew"),
            Self::Ambient(on) => write!(f, "{on} has label {DATAPLANE_MODE}={AMBIENT}, so Istio redirects the pod's traffic already: take it off, or set it to none on the pod"),
            Self::NoServiceAccount => f.write_str("the pod has no service account, so it can have no identity: run it as a Deployment or DaemonSet instead of a static pod"),
        }
    }
}

impl std::error::Error for Outside {}
