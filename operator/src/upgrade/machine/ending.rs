//! From the new revision's being the active one to the end of the old one.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meshwright_api::{UpgradePhase, UpgradeResult};

use super::{Going, Outcome, Revision, Usage, phases::INSTALL, record};

/// Longest time for what is told to end: streams live until the drain deadline.
const DRAINED: Duration = Duration::from_secs(900);

impl Going<'_> {
    pub(super) fn promote(&mut self) -> Outcome {
        self.share(100);
        let p = &self.position;
        self.active = Revision { name: p.to.clone(), version: p.to_version.clone() };
        let note = format!("revision {} ({}) is the active one; {} stays warm", p.to, p.to_version, p.from);
        self.told.push(("RevisionActivated", note));
        self.enter(UpgradePhase::Drain);
        Outcome::Stays
    }

    // Here `measured_since` is the end of keepWarm: from then on the old pods end their connections.
    pub(super) fn drain(&mut self) -> Outcome {
        self.share(100);
        let queued = self.view.target.name != self.position.to;
        let next = if queued {
            format!("; revision {} comes after it", self.view.target.name)
        } else {
            String::new()
        };
        if self.position.measured_since.is_none() {
            let since = self.position.since.clone();
            let ended = self.view.wishes.end_keep_warm.as_deref() == Some(self.position.from.as_str());
            let until = self.after(&since, self.view.settings.keep_warm);
            if !ended && !self.position.without_baseline && self.view.now < until {
                let from = self.position.from.clone();
                self.wait(format!("revision {from} to have been warm for long enough{next}"), Some(until));
                return Outcome::Stays;
            }
            if self.must_hold() {
                return Outcome::Stays;
            }
            if !ended && !self.position.without_baseline && !self.view.gateways.settled {
                self.wait_for_new();
                return Outcome::Stays;
            }
            self.position.measured_since = Some(Time(self.view.now));
            self.recheck = Some(Duration::ZERO);
            return Outcome::Stays;
        }
        match self.view.from.in_use {
            Usage::Gone => self.enter(UpgradePhase::Retire),
            usage => {
                let from = self.position.from.clone();
                self.wait_for_use(usage, &from, &next);
            }
        }
        Outcome::Stays
    }

    /// Warm pods do not end while those that took their place are not well: they may be what serves.
    fn wait_for_new(&mut self) {
        let mut what = self.view.gateways.waiting.clone().unwrap_or_else(|| "the new proxies".to_owned());
        let since = self.blocked();
        if self.is_over(&since, INSTALL) {
            what.push_str(": mend them, or kubectl mesh rollback; kubectl mesh end-keep-warm ends the old ones all the same");
            self.asks = Some(what.clone());
        }
        self.wait(what, None);
    }

    /// Until nothing uses a revision any more. Nobody knows how long that takes where its control plane does not answer.
    pub(super) fn wait_for_use(&mut self, usage: Usage, revision: &str, next: &str) {
        let (mut what, patience, how) = match usage {
            Usage::Used => {
                (format!("connections of revision {revision} to end"), DRAINED, "kubectl describe mrev")
            }
            Usage::Unknown => (
                format!("a sign of whether anything uses revision {revision}"),
                INSTALL,
                "look with kubectl describe mrev; to remove it all the same, kubectl delete mrev",
            ),
            Usage::Unused | Usage::Gone => {
                self.wait(format!("nothing to use revision {revision} for a while{next}"), None);
                return;
            }
        };
        let since = self.position.measured_since.clone().unwrap_or_else(|| self.position.since.clone());
        // The revision's condition InUse names what is left.
        if self.is_over(&since, patience) {
            what = format!("{what}: {how} {revision}");
            self.asks = Some(what.clone());
        }
        self.wait(what + next, None);
    }

    /// The old revision is being deleted; the upgrade ends when it is gone.
    pub(super) fn retire(&mut self) -> Outcome {
        if self.view.from.exists {
            let from = self.position.from.clone();
            self.wait(format!("revision {from} to be removed"), None);
            return Outcome::Stays;
        }
        let reason = format!("revision {} serves", self.position.to);
        Outcome::Over(Some(record::record(&self.position, UpgradeResult::Succeeded, reason, self.view.now)))
    }
}
