//! The raw spec ends here: what comes out needs no further check.

use std::time::Duration;

use k8s_openapi::{
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt};
use meshwright_api::{
    GatewayApiChannel, Images, MeshControlPlane, MeshRevisionSpec, Profile, Resources, WorkloadSettings,
    conditions::reason,
};

use super::dereference::Seen;
use crate::{
    availability::{Plan, Workload, solve},
    catalogue::{self, Release},
    certificates::{Error as CertificateError, root::REPLACE_LOST},
};

/// A MeshControlPlane that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another MeshControlPlane was first.
    #[error(
        "a cluster holds one mesh, and MeshControlPlane {namespace}/{name} was here first; delete one of the two"
    )]
    Conflict {
        /// The other's namespace.
        namespace: String,
        /// The other's name.
        name: String,
    },
    /// Not a version that we can render.
    #[error("spec.version {version} is not known to this operator; it knows {}", catalogue::known())]
    UnknownVersion {
        /// What was asked for.
        version: String,
    },
    /// A field that the API's own validation should have refused.
    #[error("{field} {value:?} is not {wanted}")]
    Field {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The root key is gone.
    #[error(transparent)]
    Root(CertificateError),
}

impl Error {
    /// Reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => reason::CONFLICT,
            Self::UnknownVersion { .. } => reason::UNKNOWN_VERSION,
            Self::Field { .. } => reason::INVALID_SPEC,
            Self::Root(_) => reason::NOT_ISSUED,
        }
    }
}

/// Which mesh.
#[derive(Debug, Clone)]
pub struct MeshRef {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The MeshControlPlane as an owner.
    pub owner: Option<OwnerReference>,
}

/// A mesh that can be built.
#[derive(Debug, Clone)]
pub struct ValidatedMesh {
    /// Which one.
    pub mesh: MeshRef,
    /// What a revision would be made of.
    pub snapshot: MeshRevisionSpec,
    /// Availability of the control plane.
    pub control_plane: Plan,
    /// Life of a new root.
    pub root_ttl: Duration,
    /// A root may be created: there was none, or its loss is accepted.
    pub root_is_new: bool,
    /// Which CRDs of the Gateway API to install.
    pub channel: GatewayApiChannel,
}

/// Checks. `images` are those of this operator's release.
pub fn validate(seen: &Seen, images: &Images) -> Result<ValidatedMesh, Error> {
    let mcp = &seen.fresh;
    no_older_mesh(mcp, &seen.meshes)?;
    let release = version(mcp)?;
    let spec = &mcp.spec;
    let name = mcp.name_any();
    // Parsed only to refuse it here; the agent reads the text.
    duration("spec.certificates.workloadTTL", &spec.certificates.workload_ttl)?;
    Ok(ValidatedMesh {
        snapshot: MeshRevisionSpec {
            mesh: name.clone(),
            version: release.as_str().to_owned(),
            images: images.clone(),
            trust_domain: spec.trust_domain.clone(),
            workload_ttl: spec.certificates.workload_ttl.clone(),
            control_plane: settings(spec.profile, &spec.control_plane),
            gateways: settings(spec.profile, &spec.gateways),
        },
        control_plane: solve(Workload::ControlPlane, spec.profile, &[spec.control_plane.autoscaling]),
        root_ttl: duration("spec.certificates.rootTTL", &spec.certificates.root_ttl)?,
        root_is_new: root_is_new(seen)?,
        channel: spec.gateway_api.crds,
        mesh: reference(mcp),
    })
}

/// This mesh, for labels and owners.
pub fn reference(mcp: &MeshControlPlane) -> MeshRef {
    MeshRef {
        name: mcp.name_any(),
        namespace: mcp.namespace().unwrap_or_default(),
        owner: mcp.controller_owner_ref(&()),
    }
}

/// The mesh of this cluster: the one that is installed, then the oldest, and of equally old ones the first by name.
/// Times of creation alone would not do: a restored backup gives them anew, and a mesh that serves must not lose to one
/// that only exists.
pub fn holder(meshes: &[MeshControlPlane]) -> Option<&MeshControlPlane> {
    meshes.iter().min_by_key(|m| precedence(m))
}

/// Something was installed for it.
pub fn is_installed(mcp: &MeshControlPlane) -> bool {
    let active = mcp.status.as_ref().is_some_and(|s| s.active_revision.is_some());
    active || mcp.finalizers().iter().any(|f| f == super::FINALIZER)
}

fn precedence(mcp: &MeshControlPlane) -> (bool, Option<Timestamp>, Option<String>, String) {
    (!is_installed(mcp), mcp.creation_timestamp().map(|t| t.0), mcp.namespace(), mcp.name_any())
}

fn no_older_mesh(mcp: &MeshControlPlane, meshes: &[MeshControlPlane]) -> Result<(), Error> {
    match holder(meshes) {
        Some(first) if first.uid() != mcp.uid() => {
            Err(Error::Conflict { namespace: first.namespace().unwrap_or_default(), name: first.name_any() })
        }
        _ => Ok(()),
    }
}

// An unset version stays at what was installed: an upgrade is a decision.
fn version(mcp: &MeshControlPlane) -> Result<Release, Error> {
    let pinned = mcp.status.as_ref().and_then(|s| s.version.as_deref());
    match mcp.spec.version.as_deref().or(pinned) {
        None => Ok(catalogue::NEWEST),
        Some(version) => {
            Release::parse(version).ok_or_else(|| Error::UnknownVersion { version: version.to_owned() })
        }
    }
}

fn root_is_new(seen: &Seen) -> Result<bool, Error> {
    let status = seen.fresh.status.as_ref();
    let recorded = status.and_then(|s| s.certificates.as_ref()).map(|c| c.root_fingerprint.clone());
    match (&seen.root, recorded) {
        (Some(_), _) => Ok(false),
        (None, None) => Ok(true),
        (None, Some(fingerprint)) if seen.fresh.annotations().get(REPLACE_LOST) == Some(&fingerprint) => {
            Ok(true)
        }
        (None, Some(fingerprint)) => {
            let secret = crate::certificates::root::secret_name(
                &seen.fresh.namespace().unwrap_or_default(),
                &seen.fresh.name_any(),
            );
            Err(Error::Root(CertificateError::LostRoot { secret, annotation: REPLACE_LOST, fingerprint }))
        }
    }
}

/// What a pod template depends on, complete.
fn settings(profile: Profile, component: &meshwright_api::ComponentSettings) -> WorkloadSettings {
    WorkloadSettings {
        resources: resources(profile, component.resources.as_ref()),
        scheduling: component.scheduling.clone().unwrap_or_default(),
        spread_zones: profile == Profile::Production,
    }
}

// Requests always, because the autoscaler counts in percent of them; limits only where a user wants them: a limit on
// CPU throttles, and one on memory kills, exactly when there is most to do.
fn resources(profile: Profile, said: Option<&Resources>) -> Resources {
    let (cpu, memory) = match profile {
        Profile::Demo => ("20m", "64Mi"),
        Profile::Default => ("50m", "96Mi"),
        Profile::Production => ("100m", "128Mi"),
    };
    let mut complete = said.cloned().unwrap_or_default();
    for (name, amount) in [("cpu", cpu), ("memory", memory)] {
        // A limit alone is taken as the request by Kubernetes itself.
        if !complete.limits.contains_key(name) {
            complete.requests.entry(name.to_owned()).or_insert_with(|| Quantity(amount.to_owned()));
        }
    }
    complete
}

fn duration(field: &'static str, text: &str) -> Result<Duration, Error> {
    go_duration(text).ok_or_else(|| Error::Field {
        field,
        value: text.to_owned(),
        wanted: "a duration such as 24h or 1h30m",
    })
}

/// Hours, minutes and seconds as Go writes them.
fn go_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        let unit = match rest.get(digits..=digits)? {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(unit)?)?;
        rest = rest.get(digits + 1..)?;
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_durations() {
        assert_eq!(go_duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(go_duration("87600h"), Some(Duration::from_secs(87600 * 3600)));
        for bad in ["", "h", "5", "5d", "0s", "1h-3m"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }
}
