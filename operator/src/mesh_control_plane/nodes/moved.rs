//! Phase ShiftNodes: which nodes went over and when, and what becomes of who calls whom there. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use meshwright_api::{NODE_WAVES, UpgradeStatus, Verdict, VerdictResult};
use meshwright_decisions::{
    analysis,
    pairs::{self, PAST, Result, Wave},
};

use super::{There, list};
use crate::inspection::pairs::Told;

/// One word for a bad verdict.
pub const CAUSE: &str = "CallsFailed";

/// So many nodes of a wave are looked at, those with most pods; and so many of the earlier ones, and of those that have not gone over. A node
/// tells of up to fifty pairs, half an hour of which takes about 100 kB.
const OF_WAVE: usize = 16;
const OF_OTHERS: usize = 8;

/// Nodes that are looked at. When each went over: in Unix seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moved {
    /// Those of this wave.
    pub wave: BTreeMap<String, i64>,
    /// Those of earlier waves.
    pub earlier: BTreeMap<String, i64>,
    /// Some that have not gone over.
    pub others: BTreeSet<String>,
}

impl Moved {
    /// By the MeshNodes: an epoch is the time at which the node was given.
    pub fn of(there: &There, p: &UpgradeStatus) -> Self {
        let mut nodes: Vec<&str> = there.ready().collect();
        nodes.sort_by_key(|node| (std::cmp::Reverse(there.mesh_pods(node)), *node));
        let (mut moved, since) = (Self::default(), p.since.0.as_second());
        for node in nodes {
            let Some(mesh_node) = there.mesh_nodes.get(node) else { continue };
            let (name, at) = (node.to_owned(), mesh_node.spec.epoch);
            // One that is about to go over is neither here nor there.
            if there.is_served(node, &p.from) && moved.others.len() < OF_OTHERS {
                moved.others.insert(name);
            } else if there.is_served(node, &p.to) {
                let (side, most) =
                    if at >= since { (&mut moved.wave, OF_WAVE) } else { (&mut moved.earlier, OF_OTHERS) };
                if side.len() < most {
                    side.insert(name, at);
                }
            }
        }
        moved
    }

    /// Names of all of them.
    pub fn names(&self) -> BTreeSet<String> {
        self.wave.keys().chain(self.earlier.keys()).chain(&self.others).cloned().collect()
    }

    /// From when on there is something to be told, in Unix seconds; none where no node has gone over.
    pub fn since(&self) -> Option<i64> {
        Some(self.wave.values().chain(self.earlier.values()).min()? - PAST)
    }

    /// What is to be said of the wave: bad if anything got worse on any node that went over, good if its own nodes had enough to do. While it
    /// is not served by the new revision only what is bad counts.
    pub fn judge(
        &self,
        told: &Told,
        p: &UpgradeStatus,
        settings: &analysis::Settings,
        now: Timestamp,
    ) -> Option<Verdict> {
        let judge = |moved: &BTreeMap<String, i64>| {
            let series = told.series(&p.to, moved, &self.others);
            let wave = Wave {
                moved: moved.clone(),
                now: now.as_second(),
                // Each is judged by itself, and together with those before it.
                waves: 2 * NODE_WAVES.len(),
                max_error_increase: settings.max_error_increase,
                min_requests: settings.min_requests,
            };
            verdict(pairs::judge(&series, &wave))
        };
        let all: BTreeMap<_, _> =
            self.earlier.iter().chain(&self.wave).map(|(node, at)| (node.clone(), *at)).collect();
        let together = judge(&all);
        if together.result == VerdictResult::Fail {
            return Some(together);
        }
        p.measured_since.as_ref()?;
        let of_wave = if self.wave.is_empty() { &all } else { &self.wave };
        let own = judge(of_wave);
        match self.unknown(told, of_wave, &p.to) {
            Some(why) if own.result == VerdictResult::Pass => {
                Some(Verdict { result: VerdictResult::Insufficient, reason: why, ..own })
            }
            _ => Some(own),
        }
    }

    // Silence is not good news.
    fn unknown(&self, told: &Told, wave: &BTreeMap<String, i64>, to: &str) -> Option<String> {
        if let Some((pod, why)) = told.unheard.first_key_value() {
            return Some(format!("control-plane pod {pod} does not tell of its nodes: {why}"));
        }
        let is_silent = |(node, at): &(&String, &i64)| told.reported(node, to).is_none_or(|told| told < **at);
        let silent: Vec<String> = wave.iter().filter(is_silent).map(|(node, _)| node.clone()).collect();
        let names = list(&silent);
        (!silent.is_empty()).then(|| format!("node proxies to report since they went over: {names}"))
    }
}

fn verdict(judged: pairs::Verdict) -> Verdict {
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Verdict {
        result: match judged.result {
            Result::Pass => VerdictResult::Pass,
            Result::Fail => VerdictResult::Fail,
            Result::Insufficient => VerdictResult::Insufficient,
        },
        reason: judged.reason,
        canary_requests: count(judged.after),
        baseline_requests: count(judged.before),
    }
}
