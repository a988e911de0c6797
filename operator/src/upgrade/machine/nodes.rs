//! Phase ShiftNodes: the nodes go over one wave after the other, and each wave is measured.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use meshwright_api::{NODE_WAVES, NODES_STEP, UpgradePhase};

use super::{Going, Outcome, Waves};

impl Going<'_> {
    pub(super) fn shift_nodes(&mut self) -> Outcome {
        self.share(self.position.percent());
        let Some(waves) = self.view.nodes.waves.clone().filter(|_| self.view.nodes.have_waves()) else {
            // Nobody serves a node any more: there is nothing to move, nor to measure.
            return self.after_waves();
        };
        let nodes = self.position.nodes.get_or_insert_default();
        if waves.served > nodes.served {
            // Where nodes come and go some are always late; each has its own time.
            self.position.blocked_since = None;
        }
        (nodes.served, nodes.of) = (waves.served, waves.able);
        nodes.passed_over.clone_from(&waves.passed_over);
        let is_chosen = nodes.canary.is_some() && (waves.canary_is_there || waves.served > 0);
        if !is_chosen {
            return self.choose(&waves);
        }
        if self.position.measured_since.is_some() && waves.served == 0 {
            // What was measured is gone: nothing is known of the wave.
            self.position.measured_since = None;
        }
        let Some(measured) = self.position.measured_since.clone() else {
            return self.gather_nodes(waves.waiting);
        };
        self.position.blocked_since = None;
        let hold = self.view.settings.steps.last().map_or_else(Default::default, |(_, hold)| *hold);
        let wave = self.position.step.unwrap_or(1);
        self.judge(&measured, hold, &format!("wave {wave} of the nodes"), Self::next_wave)
    }

    // One node goes first, alone.
    fn choose(&mut self, waves: &Waves) -> Outcome {
        if self.must_hold() {
            // As with gateways: whoever resumes it may have mended what they lack.
            self.position.blocked_since = None;
            return Outcome::Stays;
        }
        let Some(canary) = waves.candidate.clone() else {
            let why = format!("a node whose proxy of revision {} is ready, to begin with", self.position.to);
            return self.wait_for(why, "NodesNotServed", "nodes");
        };
        self.told.push(("CanaryNode", format!("node {canary} goes first to revision {}", self.position.to)));
        let nodes = self.position.nodes.get_or_insert_default();
        (nodes.canary, nodes.asked) = (Some(canary), Some(1));
        // Where the one before is gone it begins anew, and so does what was agreed to.
        let first = format!("{NODES_STEP}1");
        self.position.approvals.retain(|a| !a.step.starts_with(NODES_STEP) || a.step.starts_with(&first));
        self.position.step = Some(1);
        (self.position.measured_since, self.position.blocked_since) = (None, None);
        self.recheck = Some(std::time::Duration::ZERO);
        Outcome::Stays
    }

    fn gather_nodes(&mut self, waiting: Option<String>) -> Outcome {
        if let Some(waiting) = waiting {
            return self.wait_for(waiting, "NodesNotServed", "nodes");
        }
        self.position.blocked_since = None;
        self.position.measured_since = Some(Time(self.view.now));
        self.recheck = Some(std::time::Duration::ZERO);
        Outcome::Stays
    }

    /// The first wave, once the gateways' steps are over.
    pub(super) fn first_wave(&mut self) -> Outcome {
        if self.must_hold() || self.must_ask() {
            return Outcome::Stays;
        }
        self.enter(UpgradePhase::ShiftNodes);
        self.position.step = Some(1);
        Outcome::Stays
    }

    fn next_wave(&mut self) -> Outcome {
        let Some((wave, asked)) = self.wave_after() else { return self.after_waves() };
        if self.must_hold() || self.must_ask() {
            return Outcome::Stays;
        }
        self.enter(UpgradePhase::ShiftNodes);
        self.position.step = Some(wave);
        self.position.nodes.get_or_insert_default().asked = asked;
        Outcome::Stays
    }

    /// The gateways' turn again.
    pub(super) fn after_waves(&mut self) -> Outcome {
        self.position.blocked_since = None;
        if !self.must_hold() && !self.must_ask() {
            self.enter(UpgradePhase::Bake);
        }
        Outcome::Stays
    }

    /// The next wave that asks for more nodes than this one: its number, and how many; none is all of them.
    fn wave_after(&self) -> Option<(i32, Option<i32>)> {
        let able = self.view.nodes.waves.as_ref()?.able;
        let has = self.position.nodes.as_ref().map_or(Some(0), |n| n.asked)?;
        let wave = usize::try_from(self.position.step.unwrap_or(1)).unwrap_or(1);
        let later = (1..).zip(NODE_WAVES).skip(wave);
        let asks = later.map(|(wave, percent)| (wave, (able * percent + 99) / 100));
        let (wave, asked) = asks.into_iter().find(|(_, asked)| *asked > has)?;
        let is_last = usize::try_from(wave).is_ok_and(|w| w == NODE_WAVES.len());
        Some((wave, (!is_last).then_some(asked)))
    }

    /// How approvals name what comes after this wave.
    pub(super) fn awaited_of_nodes(&self) -> String {
        match self.wave_after() {
            Some((wave, _)) => format!("{NODES_STEP}{wave}"),
            None => (self.position.steps.len() + 1).to_string(),
        }
    }
}
