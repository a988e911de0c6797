//! One function for each phase: what it waits for, and what comes after it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meshwright_api::{Approval, Blocker, OnInsufficient, Strategy, UpgradePhase};

use super::{Going, Outcome, PATIENCE};

/// Longest time for a new control plane to become ready, and for pods to follow a share.
pub(super) const INSTALL: Duration = Duration::from_secs(600);
/// Watches of two control planes lag behind each other for a moment: a difference counts when it stays.
const SETTLE: Duration = Duration::from_secs(10);
/// The time of a window may be changed meanwhile, which is an event; this is for clocks that jump.
const OPENS: Duration = Duration::from_secs(60);

impl Going<'_> {
    pub(super) fn planned(&mut self) -> Outcome {
        if !self.is_closed() && !self.must_hold() {
            self.enter(UpgradePhase::Preflight);
        }
        Outcome::Stays
    }

    /// Outside the windows, which also close while something stands in the way, nothing begins by itself.
    fn is_closed(&mut self) -> bool {
        if let Some(opens) = self.view.opens {
            self.wait(format!("the next window of spec.upgrade.windows, {opens}"), Some(opens));
            self.recheck = Some(self.left(opens).min(OPENS));
        }
        self.view.opens.is_some()
    }

    pub(super) fn preflight(&mut self) -> Outcome {
        self.block(self.view.blockers.clone());
        if self.is_closed() || self.must_hold() {
            return Outcome::Stays;
        }
        if let Some(unseen) = &self.view.unseen {
            self.wait(format!("a look at {unseen}"), None);
            return Outcome::Stays;
        }
        let hindered = !self.position.blockers.is_empty() && !self.position.without_baseline;
        if hindered && !self.is_acknowledged() {
            let ask = format!(
                "{} in the way: kubectl mesh upgrade status",
                count(self.position.blockers.len(), "thing")
            );
            self.asks = Some(ask.clone());
            self.wait(ask, None);
            return Outcome::Stays;
        }
        self.enter(UpgradePhase::InstallCanary);
        self.blocked();
        Outcome::Stays
    }

    pub(super) fn install_canary(&mut self) -> Outcome {
        if let Some(ports) = self.view.ports.as_ref().filter(|_| !self.view.to.exists) {
            // What an earlier revision still has on the nodes is not the new one's doing.
            self.position.blocked_since = None;
            let since = self.position.since.clone();
            if self.is_over(&since, INSTALL) {
                self.asks = Some(ports.clone());
            }
            self.wait(ports.clone(), None);
            return Outcome::Stays;
        }
        if self.view.to.ready {
            self.position.blocked_since = None;
            if !self.must_hold() {
                let next =
                    if self.position.without_baseline { UpgradePhase::Bake } else { UpgradePhase::Compare };
                self.enter(next);
            }
            return Outcome::Stays;
        }
        let since = self.blocked();
        if self.is_over(&since, INSTALL) && !self.position.without_baseline {
            let why = self.view.to.trouble.as_ref().map(|t| t.message.clone());
            let why = why.unwrap_or_else(|| "its pods do not become ready".to_owned());
            let message = format!("the control plane was not ready after {} s: {why}", INSTALL.as_secs());
            self.go_back(("NotReady".to_owned(), message));
            return Outcome::Stays;
        }
        let why = self.view.to.trouble.as_ref().map_or(String::new(), |t| format!(": {}", t.message));
        let until = (!self.position.without_baseline).then(|| self.after(&since, INSTALL));
        self.wait(format!("the control plane of revision {}{why}", self.position.to), until);
        Outcome::Stays
    }

    pub(super) fn compare(&mut self) -> Outcome {
        let deadline = self.view.settings.deadline.max(PATIENCE);
        let good = matches!(&self.view.comparison, Some(Ok(comparison)) if comparison.lost == 0);
        let blocked = self.blocked();
        if good {
            self.position.blocked_since = None;
        }
        match self.view.comparison.clone() {
            None => self.wait("both control planes to say what they give the proxies", None),
            Some(Ok(comparison)) => {
                let lost = comparison.lost;
                // The first are those that are lost; the rest changes with every route.
                let lost_ones = comparison.examples.iter().filter(|e| e.starts_with("lost"));
                let examples = lost_ones.cloned().collect::<Vec<_>>().join("; ");
                self.position.comparison = Some(comparison);
                self.block(if lost > 0 { vec![is_lost(lost, examples)] } else { Vec::new() });
                if lost == 0 || self.is_acknowledged() {
                    return self.first_step();
                }
                if self.is_over(&blocked, deadline) {
                    let message = self.position.blockers.first().map_or(String::new(), |b| b.message.clone());
                    self.go_back(("ConfigurationLost".to_owned(), message));
                    return Outcome::Stays;
                }
                let until = self.after(&blocked, deadline);
                if self.is_over(&blocked, SETTLE) {
                    let ask = format!(
                        "{} lost: kubectl mesh upgrade status",
                        count(usize::try_from(lost).unwrap_or(0), "part")
                    );
                    self.asks = Some(ask.clone());
                    self.wait(ask, Some(until));
                } else {
                    self.wait("a difference that may be a moment's only", Some(until));
                }
            }
            Some(Err(why)) => {
                // An active control plane that is gone cannot be compared with; a fix for that must be able to roll out.
                if !self.view.from.ready {
                    self.block(vec![baseline_is_gone(&self.position.from)]);
                    if self.is_acknowledged() {
                        return self.first_step();
                    }
                    self.asks = Some(
                        "the active control plane cannot be asked: kubectl mesh upgrade status".to_owned(),
                    );
                }
                if self.is_over(&blocked, deadline) {
                    self.go_back(("NotComparable".to_owned(), why));
                    return Outcome::Stays;
                }
                let until = self.after(&blocked, deadline);
                self.wait(why, Some(until));
            }
        }
        Outcome::Stays
    }

    // Since when something stands in the way without a break: somebody may have been waited for all night before.
    pub(super) fn blocked(&mut self) -> Time {
        self.position.blocked_since.get_or_insert(Time(self.view.now)).clone()
    }

    fn first_step(&mut self) -> Outcome {
        if self.must_hold() || self.must_ask() {
            return Outcome::Stays;
        }
        if self.position.steps.is_empty() {
            self.enter(UpgradePhase::Bake);
        } else {
            self.enter(UpgradePhase::Shift);
            self.position.step = Some(1);
        }
        Outcome::Stays
    }

    pub(super) fn shift(&mut self) -> Outcome {
        let step = self.position.step.unwrap_or(1);
        self.share(self.position.percent());
        let Some(measured) = self.position.measured_since.clone() else {
            return self.gather();
        };
        // By its share, not by its place: the settings may have changed since it began.
        let asked = self.position.share.as_ref().map_or(0, |s| s.asked);
        let hold = self.view.settings.steps.iter().find(|s| s.0 == asked).map_or(Duration::ZERO, |s| s.1);
        self.judge(&measured, hold, &format!("step {step}"), Self::next_step)
    }

    /// Goes on to what is `next` when this has lasted, and been measured.
    pub(super) fn judge(
        &mut self,
        measured: &Time,
        hold: Duration,
        what: &str,
        next: fn(&mut Self) -> Outcome,
    ) -> Outcome {
        self.note_verdict();
        let held = self.is_over(measured, hold);
        if held && self.has_passed() {
            return next(self);
        }
        if !held {
            self.wait(format!("{what} to last {} s", hold.as_secs()), Some(self.after(measured, hold)));
            return Outcome::Stays;
        }
        let until = self.after(measured, self.view.settings.deadline);
        let why =
            self.position.verdict.as_ref().map_or_else(|| "no figures yet".to_owned(), |v| v.reason.clone());
        // Without a verdict nothing is decided that a person is to decide.
        if self.must_hold() || self.must_ask() {
            return Outcome::Stays;
        }
        if self.view.now < until {
            self.wait(format!("a verdict: {why}"), Some(until));
            return Outcome::Stays;
        }
        match self.view.settings.on_insufficient {
            OnInsufficient::Continue => next(self),
            OnInsufficient::RollBack => {
                self.go_back(("Insufficient".to_owned(), format!("no verdict in time: {why}")));
                Outcome::Stays
            }
            OnInsufficient::Wait => {
                if !self.must_agree() {
                    return next(self);
                }
                Outcome::Stays
            }
        }
    }

    // While somebody is waited for, only what changes the picture is worth a write.
    fn note_verdict(&mut self) {
        let waits = self.view.settings.held().is_some() || self.view.settings.approval == Approval::EveryStep;
        let held = self
            .position
            .measured_since
            .as_ref()
            .is_some_and(|m| self.is_over(m, self.view.settings.deadline));
        let same =
            self.position.verdict.as_ref().map(|v| v.result) == self.view.verdict.as_ref().map(|v| v.result);
        if !(waits && held && same) {
            self.position.verdict.clone_from(&self.view.verdict);
        } else if let Some(before) = self.view.position.and_then(|p| p.share.as_ref()) {
            self.position.share = Some(before.clone());
        }
    }

    fn next_step(&mut self) -> Outcome {
        if self.waves_come() {
            return self.first_wave();
        }
        if self.must_hold() || self.must_ask() {
            return Outcome::Stays;
        }
        let step = self.position.step.unwrap_or(1);
        let more = self.has_more_steps();
        self.enter(if more { UpgradePhase::Shift } else { UpgradePhase::Bake });
        self.position.step = more.then_some(step + 1);
        Outcome::Stays
    }

    fn has_more_steps(&self) -> bool {
        let step = self.position.step.unwrap_or(1);
        usize::try_from(step).is_ok_and(|s| s < self.position.steps.len())
    }

    /// After this step the nodes go over.
    pub(super) fn waves_come(&self) -> bool {
        self.position.phase == UpgradePhase::Shift && !self.has_more_steps() && self.view.nodes.have_waves()
    }

    // Until every Gateway has the pods that the step asks for.
    fn gather(&mut self) -> Outcome {
        if self.view.gateways.settled {
            self.position.blocked_since = None;
            // From then on all connections go to the new revision.
            if self.position.phase == UpgradePhase::Bake && self.must_hold() {
                return Outcome::Stays;
            }
            self.position.measured_since = Some(Time(self.view.now));
            self.recheck = Some(Duration::ZERO);
            return Outcome::Stays;
        }
        self.wait_for_gateways()
    }

    fn wait_for_gateways(&mut self) -> Outcome {
        let why = self.view.gateways.waiting.clone().unwrap_or_else(|| "gateways to follow".to_owned());
        self.wait_for(why, "ProxiesNotReady", "gateways")
    }

    // What has not followed in time sends it back.
    pub(super) fn wait_for(&mut self, why: String, cause: &str, who: &str) -> Outcome {
        let held = self.view.settings.held();
        if self.position.without_baseline || held.is_some() {
            let held = held.map_or_else(String::new, |held| format!("; {held}"));
            // Whoever resumes it may have mended what they lack.
            self.position.blocked_since = None;
            self.wait(why + &held, None);
            return Outcome::Stays;
        }
        let since = self.blocked();
        if self.is_over(&since, INSTALL) {
            let message = format!("{who} did not follow within {} s: {why}", INSTALL.as_secs());
            self.go_back((cause.to_owned(), message));
            return Outcome::Stays;
        }
        self.wait(why, Some(self.after(&since, INSTALL)));
        Outcome::Stays
    }

    pub(super) fn bake(&mut self) -> Outcome {
        self.share(100);
        let Some(measured) = self.position.measured_since.clone() else {
            return self.gather();
        };
        let hold = match self.position.strategy {
            Strategy::Canary => self.view.settings.bake,
            Strategy::InPlace => Duration::ZERO,
        };
        let nodes = self.view.nodes.forward.clone();
        if self.view.gateways.settled && nodes.is_none() {
            self.position.blocked_since = None;
        }
        if !self.is_over(&measured, hold) {
            self.wait(
                format!("the new revision to carry all traffic for {} s", hold.as_secs()),
                Some(self.after(&measured, hold)),
            );
        } else if !self.view.gateways.settled {
            return self.wait_for_gateways();
        } else if let Some(nodes) = nodes {
            // They have been given to it since the gateways' connections are.
            return self.wait_for(nodes, "NodesNotServed", "nodes");
        } else if !self.must_hold() && !self.must_ask() {
            self.enter(UpgradePhase::Promote);
        }
        Outcome::Stays
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what} is") } else { format!("{n} {what}s are") }
}

fn is_lost(lost: i32, examples: String) -> Blocker {
    Blocker {
        reason: "ConfigurationLost".to_owned(),
        message: format!(
            "{lost} part{} of the configuration would be lost: {examples}",
            if lost == 1 { "" } else { "s" }
        ),
        remedy: "change what the new version no longer serves, or accept it: kubectl mesh acknowledge"
            .to_owned(),
    }
}

fn baseline_is_gone(from: &str) -> Blocker {
    Blocker {
        reason: "BaselineUnavailable".to_owned(),
        message: format!(
            "the control plane of revision {from} does not answer, so nothing can be compared with it"
        ),
        remedy: "mend it, or go on without comparing: kubectl mesh acknowledge".to_owned(),
    }
}
