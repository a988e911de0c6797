//! The raw spec ends here: what comes out needs no further check.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::OwnerReference, jiff::Timestamp};
use kube::{Resource, ResourceExt};
use meshwright_api::{
    GatewayApiChannel, Images, MeshControlPlane, MeshRevisionSpec, Profile, Telemetry, UpgradePhase,
    WorkloadSettings, conditions::reason,
};

use super::{dereference::Seen, slots};
use crate::{
    availability::{Plan, Workload, solve},
    catalogue::{Catalogue, Version},
    certificates::{Error as CertificateError, root::REPLACE_LOST},
    upgrade,
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
    #[error("spec.version {version} is not known to this operator; it knows {known}")]
    UnknownVersion {
        /// What was asked for.
        version: String,
        /// What can be asked for.
        known: String,
    },
    /// Too far from the version that serves.
    #[error(
        "version {version} is more than one minor release from {from}, which serves; go there step by step: {reach}"
    )]
    StepTooLarge {
        /// What was asked for.
        version: Version,
        /// What serves.
        from: Version,
        /// What can be gone to from there.
        reach: String,
    },
    /// How upgrades are to be carried out.
    #[error(transparent)]
    Upgrade(#[from] upgrade::settings::Error),
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
            Self::StepTooLarge { .. } => reason::STEP_TOO_LARGE,
            Self::Field { .. } | Self::Upgrade(_) => reason::INVALID_SPEC,
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
    /// What a revision would be made of, without its ports on the nodes.
    pub snapshot: MeshRevisionSpec,
    /// How upgrades are carried out.
    pub upgrade: upgrade::Settings,
    /// The version was not asked for: it is the newest that an automatic upgrade takes.
    pub by_itself: bool,
    /// A newer release that could be gone to.
    pub newer: Option<Version>,
    /// That one went back before, and is not taken by itself again.
    pub held_back: bool,
    /// Every release that can be asked for.
    pub available: Vec<String>,
    /// Availability of the control plane.
    pub control_plane: Plan,
    /// Life of a new root.
    pub root_ttl: Duration,
    /// A root may be created: there was none, or its loss is accepted.
    pub root_is_new: bool,
    /// Which CRDs of the Gateway API to install.
    pub channel: GatewayApiChannel,
}

/// Checks. `pull_secrets` are those of a new revision.
pub fn validate(
    seen: &Seen,
    catalogue: &Catalogue,
    pull_secrets: &[String],
    now: Timestamp,
) -> Result<ValidatedMesh, Error> {
    let mcp = &seen.fresh;
    no_older_mesh(mcp, &seen.meshes)?;
    let settings_of_upgrade = upgrade::Settings::parse(&mcp.spec.upgrade)?;
    let choice = choose(seen, &settings_of_upgrade, catalogue, now)?;
    let images = images(seen, &choice, catalogue, pull_secrets)?;
    let spec = &mcp.spec;
    // Parsed only to refuse it here; the agent reads the text.
    duration("spec.certificates.workloadTTL", &spec.certificates.workload_ttl)?;
    // Likewise; the control plane reads them.
    told(&spec.telemetry)?;
    Ok(ValidatedMesh {
        snapshot: snapshot(mcp, choice.version, images),
        upgrade: settings_of_upgrade,
        by_itself: choice.by_itself,
        newer: choice.newer,
        held_back: choice.held_back,
        available: catalogue.versions(),
        control_plane: solve(Workload::ControlPlane, spec.profile, &[spec.control_plane.autoscaling]),
        root_ttl: duration("spec.certificates.rootTTL", &spec.certificates.root_ttl)?,
        root_is_new: root_is_new(seen)?,
        channel: spec.gateway_api.crds,
        mesh: reference(mcp),
    })
}

/// An upgrade that is under way, as it was asked for; none where there is none, or its revision is not there.
pub fn going(seen: &Seen, catalogue: &Catalogue) -> Option<ValidatedMesh> {
    let mcp = &seen.fresh;
    let position = mcp.status.as_ref()?.upgrade.as_ref()?;
    let over = position.phase == UpgradePhase::RolledBack;
    let to = seen.revisions.iter().find(|r| r.name_any() == position.to).filter(|_| !over)?;
    let spec = &mcp.spec;
    // What cannot be read of it counts as not said; and while it cannot, nothing new begins.
    let settings = upgrade::Settings::parse_what_can_be(&spec.upgrade)?;
    Some(ValidatedMesh {
        snapshot: slots::without(&to.spec),
        upgrade: upgrade::Settings { refused: true, ..settings },
        by_itself: false,
        newer: None,
        held_back: false,
        available: catalogue.versions(),
        control_plane: solve(Workload::ControlPlane, spec.profile, &[spec.control_plane.autoscaling]),
        // Only a root that is there is used.
        root_ttl: Duration::ZERO,
        root_is_new: false,
        channel: GatewayApiChannel::None,
        mesh: reference(mcp),
    })
    .filter(|_| seen.root.is_some())
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

struct Choice {
    version: Version,
    by_itself: bool,
    newer: Option<Version>,
    held_back: bool,
}

// An unset version stays at what was installed, unless upgrades are automatic: an upgrade is a decision.
fn choose(
    seen: &Seen,
    upgrade: &upgrade::Settings,
    catalogue: &Catalogue,
    now: Timestamp,
) -> Result<Choice, Error> {
    let status = seen.fresh.status.as_ref();
    let unknown =
        |version: &str| Error::UnknownVersion { version: version.to_owned(), known: catalogue.list() };
    let parse = |text: &str| text.parse::<Version>().map_err(|()| unknown(text));
    let serving = status.and_then(|s| s.active_revision.as_ref());
    let serving = serving.and_then(|name| seen.revisions.iter().find(|r| r.name_any() == *name));
    let pinned = status.and_then(|s| s.version.as_deref()).or(serving.map(|r| r.spec.version.as_str()));
    let pinned = pinned.map(parse).transpose()?;
    let newer = pinned.and_then(|v| catalogue.upgrade(v));
    let held_back = upgrade.automatic && newer.is_some_and(|newer| seen.fresh.went_back(&newer.to_string()));
    let choice = |version, by_itself| Choice { version, by_itself, newer, held_back: false };
    let Some(asked) = seen.fresh.spec.version.as_deref() else {
        // One that is under way goes on to its end, whatever became known since.
        let going = status.and_then(|s| s.upgrade.as_ref());
        let begun = UpgradePhase::InstallCanary..UpgradePhase::RolledBack;
        // Asked for by nobody else: who takes a version away again has changed their mind.
        let going = going.filter(|u| (upgrade.automatic || u.by_itself) && begun.contains(&u.phase));
        // What a person changes does not wait for the window of a release.
        let is_changed = |pinned: Version| {
            serving.is_some_and(|r| r.spec != snapshot(&seen.fresh, pinned, r.spec.images.clone()))
        };
        let first = |pinned: Version| upgrade.opens(now).is_some() && is_changed(pinned);
        return match (going, pinned) {
            (Some(going), _) => Ok(choice(parse(&going.to_version)?, false)),
            (None, Some(pinned)) if upgrade.automatic && newer.is_some() && first(pinned) => {
                Ok(choice(pinned, false))
            }
            (None, Some(pinned)) if held_back => Ok(Choice { held_back, ..choice(pinned, false) }),
            (None, Some(pinned)) if upgrade.automatic => Ok(choice(newer.unwrap_or(pinned), newer.is_some())),
            (None, Some(pinned)) => Ok(choice(pinned, false)),
            (None, None) => Ok(choice(catalogue.newest().ok_or_else(|| unknown("(none)"))?, false)),
        };
    };
    let version = parse(asked)?;
    let from = serving.map(|r| parse(&r.spec.version)).transpose()?;
    match from.filter(|from| *from != version && !from.may_step_to(version)) {
        Some(from) if catalogue.images(version).is_some() => {
            let reach = catalogue.versions().into_iter();
            let reach = reach.filter(|v| v.parse().is_ok_and(|v| v != from && from.may_step_to(v)));
            Err(Error::StepTooLarge { version, from, reach: reach.collect::<Vec<_>>().join(", ") })
        }
        _ => Ok(choice(version, false)),
    }
}

// A version that is installed keeps the images that it has: another operator, with other ones, changes nothing by itself.
fn images(
    seen: &Seen,
    choice: &Choice,
    catalogue: &Catalogue,
    pull_secrets: &[String],
) -> Result<Images, Error> {
    let version = choice.version.to_string();
    let active = seen.fresh.status.as_ref().and_then(|s| s.active_revision.clone());
    let mut same: Vec<_> = seen.revisions.iter().filter(|r| r.spec.version == version).collect();
    same.sort_by_key(|r| Some(r.name_any()) != active);
    if let Some(installed) = same.first().filter(|_| choice.version.builders().is_some()) {
        return Ok(installed.spec.images.clone());
    }
    let known = catalogue.images(choice.version);
    let known = known.ok_or_else(|| Error::UnknownVersion { version, known: catalogue.list() })?;
    Ok(Images {
        control_plane: known.control_plane.clone(),
        proxy: known.proxy.clone(),
        pull_secrets: pull_secrets.to_vec(),
    })
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

// What a revision is made of.
fn snapshot(mcp: &MeshControlPlane, version: Version, images: Images) -> MeshRevisionSpec {
    let spec = &mcp.spec;
    MeshRevisionSpec {
        mesh: mcp.name_any(),
        version: version.to_string(),
        images,
        trust_domain: spec.trust_domain.clone(),
        workload_ttl: spec.certificates.workload_ttl.clone(),
        control_plane: settings(spec.profile, &spec.control_plane),
        gateways: settings(spec.profile, &spec.gateways),
        // Where there are no node proxies a change of it would be an upgrade for nothing.
        telemetry: if version.has_node_proxies() { spec.telemetry.clone() } else { Telemetry::default() },
        // Given out when it is made.
        node_slot: None,
    }
}

/// What a pod template depends on, complete.
fn settings(profile: Profile, component: &meshwright_api::ComponentSettings) -> WorkloadSettings {
    WorkloadSettings {
        resources: profile.resources(component.resources.as_ref()),
        scheduling: component.scheduling.clone().unwrap_or_default(),
        spread_zones: profile == Profile::Production,
    }
}

fn told(telemetry: &Telemetry) -> Result<(), Error> {
    let Some(tracing) = &telemetry.tracing else { return Ok(()) };
    let wrong = |field, value: &str, wanted| Error::Field { field, value: value.to_owned(), wanted };
    let (endpoint, sampling) = (&tracing.endpoint, &tracing.sampling);
    meshwright_core::telemetry::endpoint(endpoint).ok_or_else(|| {
        let wanted = "a host and a port such as collector.observability.svc:4317";
        wrong("spec.telemetry.tracing.endpoint", endpoint, wanted)
    })?;
    meshwright_core::telemetry::millionths(sampling).ok_or_else(|| {
        wrong("spec.telemetry.tracing.sampling", sampling, "a percentage such as 0.5%, 100% at most")
    })?;
    Ok(())
}

fn duration(field: &'static str, text: &str) -> Result<Duration, Error> {
    meshwright_core::duration::parse(text).filter(|d| !d.is_zero()).ok_or_else(|| Error::Field {
        field,
        value: text.to_owned(),
        wanted: "a duration such as 24h or 1h30m",
    })
}
