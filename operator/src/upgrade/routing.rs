//! What the position of an upgrade means for every Gateway: which revisions have pods, how many, and which of them its Service
//! sends connections to.

use meshwright_api::{MeshControlPlaneStatus, Rollback, SUPERSEDED, UpgradePhase, UpgradeStatus};

use super::machine::REQUESTED;

/// How many pods a revision has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As the autoscaler says.
    Scaled,
    /// As many as it has, whatever the autoscaler would say.
    Held,
    /// As many as this share of the connections is.
    Share(i32),
    /// As many as the other one.
    Full,
    /// None: its pods end their connections and go.
    Ending,
}

/// Which pods are behind the Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behind {
    /// Those of this revision, as soon as it has enough of them ready; until then what was before.
    Only(String),
    /// Those of this revision as soon as any is ready: the other one is bad.
    AnyOf(String),
    /// All.
    Both,
}

/// A revision's part in a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Name of the revision.
    pub revision: String,
    /// Its pods.
    pub size: Size,
}

/// What every Gateway should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The revision whose number of pods is the steady one: the others follow it.
    pub lead: Part,
    /// The other one.
    pub other: Option<Part>,
    /// Who gets connections.
    pub behind: Behind,
}

/// Routing of a mesh; none before its first revision.
pub fn of(status: &MeshControlPlaneStatus) -> Option<Routing> {
    let active = status.active_revision.as_deref()?;
    Some(status.upgrade.as_ref().and_then(during).unwrap_or_else(|| alone(active)))
}

fn alone(active: &str) -> Routing {
    Routing {
        lead: Part { revision: active.to_owned(), size: Size::Scaled },
        other: None,
        behind: Behind::Only(active.to_owned()),
    }
}

fn during(upgrade: &UpgradeStatus) -> Option<Routing> {
    let part = |revision: &str, size| Part { revision: revision.to_owned(), size };
    let (from, to) = (upgrade.from.as_str(), upgrade.to.as_str());
    let only = |revision: &str| Behind::Only(revision.to_owned());
    let routing = |lead, other, behind| Some(Routing { lead, other: Some(other), behind });
    match upgrade.phase {
        UpgradePhase::Planned
        | UpgradePhase::Preflight
        | UpgradePhase::InstallCanary
        | UpgradePhase::Compare => Some(alone(from)),
        // While the nodes go over the gateways stay at their last step: both revisions are still there to be measured.
        UpgradePhase::Shift | UpgradePhase::ShiftNodes => {
            routing(part(from, Size::Held), part(to, Size::Share(upgrade.percent())), Behind::Both)
        }
        // Not before the new revision can carry all of it.
        UpgradePhase::Bake if upgrade.measured_since.is_none() => {
            routing(part(from, Size::Held), part(to, Size::Full), Behind::Both)
        }
        UpgradePhase::Bake | UpgradePhase::Promote => {
            routing(part(from, Size::Held), part(to, Size::Full), only(to))
        }
        // Warm until keepWarm is over; the new revision leads from now on.
        UpgradePhase::Drain if upgrade.measured_since.is_none() => {
            routing(part(to, Size::Held), part(from, Size::Full), only(to))
        }
        UpgradePhase::Drain | UpgradePhase::Retire => {
            routing(part(to, Size::Scaled), part(from, Size::Ending), only(to))
        }
        // The new one goes only after the traffic has: its pods serve until then.
        UpgradePhase::RollingBack => {
            let rollback = upgrade.rollback.as_ref();
            let size =
                if rollback.is_some_and(|r| r.traffic_back.is_some()) { Size::Ending } else { Size::Held };
            // When a person asks so late, the old pods may be gone: the first of them that comes up cannot carry all traffic.
            let late = |r: &Rollback| r.phase >= UpgradePhase::Drain && r.cause == REQUESTED;
            let harmless = rollback.is_some_and(|r| r.cause == SUPERSEDED || late(r));
            let behind = if harmless { only(from) } else { Behind::AnyOf(from.to_owned()) };
            routing(part(from, Size::Held), part(to, size), behind)
        }
        UpgradePhase::RolledBack => routing(part(from, Size::Scaled), part(to, Size::Ending), only(from)),
    }
}
