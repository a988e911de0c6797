//! How a mesh goes from one revision to the next: what a user may say about it, and what is seen of it.

mod settings;
mod status;

pub use settings::{Analysis, Approval, OnInsufficient, Probe, Step, Strategy, Upgrade, UpgradeMode, Window};
pub use status::{
    Accepted, Approved, Blocker, Comparison, DonePhase, NODE_WAVES, NODES_STEP, NodeShift, PassedOver,
    Rollback, SUPERSEDED, Share, UNMEASURED, UpgradePhase, UpgradeRecord, UpgradeResult, UpgradeStatus,
    Verdict, VerdictResult,
};
