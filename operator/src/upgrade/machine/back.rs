//! What makes an upgrade go back, from every phase up to Drain, and the way back.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meshwright_api::{Rollback, SUPERSEDED, UpgradePhase, UpgradeResult, VerdictResult};

use super::{Going, Outcome, REQUESTED, Revision, phases::INSTALL, record};

impl Going<'_> {
    pub(super) fn must_go_back(&self) -> Option<(String, String)> {
        let p = &self.position;
        let why = |cause: &str, message: String| Some((cause.to_owned(), message));
        // Without a baseline there is nothing to go back to, unless it has become ready since.
        if p.without_baseline && !self.view.from.ready {
            return None;
        }
        if self.view.wishes.rollback.as_deref() == Some(p.to.as_str()) {
            return why(REQUESTED, format!("annotation {} asks for it", meshwright_api::labels::ROLLBACK));
        }
        self.bad().or_else(|| {
            // From Promote on another target waits, except the one that is still warm.
            let warm = p.phase == UpgradePhase::Drain && p.measured_since.is_none();
            let wanted = &self.view.target.name;
            let takes_over = p.phase < UpgradePhase::Promote || warm && *wanted == p.from;
            (takes_over && *wanted != p.to)
                .then(|| (SUPERSEDED.to_owned(), format!("the spec asks for revision {wanted} now")))
        })
    }

    /// Something is wrong with the new revision; why does not depend on what else is asked for.
    fn bad(&self) -> Option<(String, String)> {
        let p = &self.position;
        let why = |cause: &str, message: String| Some((cause.to_owned(), message));
        if p.phase <= UpgradePhase::Preflight || p.without_baseline {
            return None;
        }
        // Once the old pods end their connections, going back is a person's decision.
        if p.phase == UpgradePhase::Drain && p.measured_since.is_some() {
            return None;
        }
        use UpgradePhase::{Bake, Drain, Shift, ShiftNodes};
        let of_gateways = matches!(p.phase, Shift | ShiftNodes | Bake | Drain);
        let of_gateways = self.view.gateways.trouble.as_ref().filter(|_| of_gateways);
        let mut troubles = [self.view.to.trouble.as_ref(), of_gateways].into_iter().flatten();
        if let Some(trouble) = troubles.find(|t| t.lasting) {
            return why(&trouble.cause, trouble.message.clone());
        }
        match &self.view.verdict {
            Some(v) if v.result == VerdictResult::Fail => why(&self.view.verdict_cause, v.reason.clone()),
            _ => None,
        }
    }

    pub(super) fn go_back(&mut self, (cause, message): (String, String)) {
        let p = &mut self.position;
        if let Some(verdict) = &self.view.verdict {
            p.verdict = Some(verdict.clone());
        }
        let note = format!("revision {} goes back to {} in phase {:?}: {message}", p.to, p.from, p.phase);
        let phase = p.phase;
        let decided = Time(self.view.now);
        // Before the first step there was no traffic, and there may be no new revision.
        let traffic_back = (phase < UpgradePhase::Shift).then(|| decided.clone());
        let generation = self.view.generation;
        p.rollback = Some(Rollback { phase, cause, message, decided, generation, traffic_back });
        self.told.push(("RollingBack", note));
        self.enter(UpgradePhase::RollingBack);
    }

    pub(super) fn rolling_back(&mut self) -> Outcome {
        let now = Time(self.view.now);
        self.share(0);
        let p = &mut self.position;
        let (from, version) = (p.from.clone(), p.from_version.clone());
        let Some(rollback) = p.rollback.as_mut() else {
            self.enter(UpgradePhase::RolledBack);
            return Outcome::Stays;
        };
        if rollback.traffic_back.is_none() {
            if self.view.gateways.back && self.view.nodes.back.is_none() {
                rollback.traffic_back = Some(now);
                let note = format!("all new connections go to revision {from} again");
                self.told.push(("TrafficBack", note));
                self.recheck = Some(Duration::ZERO);
            } else {
                let why = self.view.gateways.waiting.clone().filter(|_| !self.view.gateways.back);
                let why = why.or_else(|| self.view.nodes.back.clone());
                let since = self.position.since.clone();
                if self.is_over(&since, INSTALL) {
                    let from = &self.position.from;
                    self.asks = Some(format!(
                        "proxies of revision {from} that are to take the traffic back do not come up"
                    ));
                }
                self.wait(why.unwrap_or_else(|| format!("the traffic to go back to revision {from}")), None);
            }
            return Outcome::Stays;
        }
        // The record first: whoever reads it must not find a revision that goes.
        self.active = Revision { name: from, version };
        p.share = None;
        let superseded = rollback.cause == SUPERSEDED;
        let reason = format!("{}: {}", rollback.cause, rollback.message);
        self.enter(UpgradePhase::RolledBack);
        if superseded {
            return Outcome::Stays;
        }
        Outcome::Ends(record::record(&self.position, UpgradeResult::RolledBack, reason, self.view.now))
    }

    /// Stays until the spec asks for something else: what went back is not tried again by itself.
    pub(super) fn rolled_back(&mut self) -> Outcome {
        let p = &self.position;
        let superseded = p.rollback.as_ref().is_some_and(|r| r.cause == SUPERSEDED);
        let wanted = &self.view.target.name;
        // By itself the operator wants the old one again, and that is there.
        let left = *wanted == p.from && self.view.held_back.as_ref() == Some(&p.to_version);
        // The same release with other images is another revision, and nobody asked for that either.
        let decided = p.rollback.as_ref().and_then(|r| r.generation);
        let changed = self.view.generation != decided || self.view.target.version != p.to_version;
        let another = *wanted != p.to && !left && changed;
        let again = superseded || another || self.view.wishes.retry == Some(p.attempt());
        if self.view.to.exists {
            let to = p.to.clone();
            self.wait_for_use(self.view.to.in_use, &to, "");
            return Outcome::Stays;
        }
        if !again {
            let rollback = p.rollback.as_ref();
            let why = rollback.map_or_else(String::new, |r| format!(": {}", r.message));
            let to = p.to.clone();
            self.wait(
                format!("a change of the spec, or kubectl mesh retry; revision {to} went back{why}"),
                None,
            );
            self.recheck = None;
            return Outcome::Stays;
        }
        let reason = format!("revision {wanted} was asked for instead");
        let record = record::record(&self.position, UpgradeResult::Superseded, reason, self.view.now);
        Outcome::Over(superseded.then_some(record))
    }
}
