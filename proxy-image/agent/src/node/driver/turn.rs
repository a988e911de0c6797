//! One look at everything, and what follows from it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use meshwright_proto::nodes::{NodeOrder, NodeReport};
use tokio::time::Instant;

use super::{Driver, Serving, TICK, namespaces_file};
use crate::node::{
    duty::{Duty, Named, Situation, duty},
    farewell::Word,
    keep::World,
    netns,
    rules::{self, Ports},
    store,
};

/// So long may a pod that cannot be captured keep the others from being reported, after a restart or a hand-over.
const SETTLED: Duration = Duration::from_secs(15);
/// After the deadline of an end, what has to be taken back takes this long at most.
const CLEARED: Duration = Duration::from_secs(10);

/// Copies of what others last said, so that a [`World`] can be made of them.
pub(super) struct Said {
    pub(super) order: Arc<NodeOrder>,
    certified: Arc<BTreeSet<String>>,
    opened: Arc<BTreeSet<String>>,
    listed: Option<BTreeSet<String>>,
    /// The order is what the control plane says now.
    live: bool,
}

impl Driver {
    /// Returns when to look again at the latest.
    pub(super) fn turn(&mut self, ending: bool) -> Instant {
        let now = Instant::now();
        if ending {
            self.ending_since.get_or_insert(now);
        }
        // Who has heard nothing yet knows of no member, and would let them all go.
        let unheard = self.outlets.heard.borrow().order.is_none();
        let waits = match self.word(now) {
            None => true,
            Some(word) => word == Word::Awaited && self.holds(),
        };
        if unheard && waits {
            return now + TICK;
        }
        if self.looked.is_none_or(|looked| now >= looked + TICK) {
            self.looked = Some(now);
            self.keep.forget_lost(netns::is_namespace, now);
        }
        let named = self.named(now);
        self.take_over(named, now);
        self.change_duty(named, now);
        let said = self.said();
        let tasks = self.keep.advance(self.world(&said), now);
        self.let_probes_through(rules::probes(&self.keep.probes(self.world(&said))), now);
        self.write_down();
        tasks.into_iter().for_each(|task| self.perform(task));
        self.search(self.keep.sought(self.world(&said)), now);
        self.admit(&said.order, now);
        self.settle(&said, now);
        self.tell(&said);
        self.serve_plugin(&said, now);
        self.metrics.set_stages(self.keep.stages());
        let admissions = self.admissions.wakes().filter(|_| self.serving.is_some());
        let wakes = self.keep.wakes().into_iter().chain(admissions);
        wakes.min().map_or(now + TICK, |time| time.min(now + TICK))
    }

    fn said(&mut self) -> Said {
        let outlets = &mut self.outlets;
        let heard = outlets.heard.borrow_and_update().clone();
        Said {
            order: heard.order.unwrap_or_default(),
            live: heard.live_since.is_some(),
            certified: outlets.certified.borrow_and_update().clone(),
            opened: self.opened.borrow_and_update().clone(),
            listed: outlets.listed.borrow_and_update().clone(),
        }
    }

    pub(super) fn world<'a>(&self, said: &'a Said) -> World<'a> {
        let leaves = self.duty == Duty::Leaves || self.duty == Duty::Left;
        // What was reported before everything had settled says nothing: the control plane keeps to what it heard before that.
        let counts = leaves || self.serving.as_ref().is_some_and(|serving| serving.settled);
        World {
            order: &said.order,
            certified: &said.certified,
            opened: &said.opened,
            listed: said.listed.as_ref().filter(|_| counts && said.live),
            serves: self.serving.is_some(),
            leaves,
        }
    }

    fn named(&mut self, now: Instant) -> Named {
        let heard = self.outlets.heard.borrow().clone();
        match heard.order {
            Some(order) => {
                let live = heard.live_since.is_some() || self.ending_since.is_some();
                self.naming.named(&order, live, &self.args.workload.revision, now)
            }
            None => Named::Unknown,
        }
    }

    fn take_over(&mut self, named: Named, now: Instant) {
        let held = self.hands.claims.held();
        let said = self.said();
        let prepared = self.keep.is_settled(self.world(&said)) && self.looked_once(&said);
        let revision = &self.args.workload.revision;
        let Some(takeover) = self.naming.takeover(named, held.as_ref(), revision, prepared, now) else {
            return;
        };
        match self.hands.claims.take(takeover.epoch, takeover.anew) {
            Ok(true) => {
                tracing::info!(epoch = takeover.epoch, before = ?held, "serves this node from now on")
            }
            Ok(false) => {}
            Err(e) => tracing::warn!(error = %format!("{e:#}"), "take this node over"),
        }
    }

    // Before its first look at the members nothing stands, and nothing is missed.
    fn looked_once(&self, said: &Said) -> bool {
        said.order.members.keys().all(|uid| self.keep.knows(uid))
    }

    fn change_duty(&mut self, named: Named, now: Instant) {
        let held = self.hands.claims.held();
        let ours = self.holds();
        let overdue = self.ending_since.filter(|since| now >= *since + self.args.drain_deadline);
        if overdue.is_some() && self.duty == Duty::Leaves {
            self.keep.give_up();
        }
        let given_up =
            overdue.is_some_and(|since| !ours || now >= since + self.args.drain_deadline + CLEARED);
        let word = self.word(now);
        // Who never heard a word has taken up nothing yet.
        if ours && word == Some(Word::Lost) && self.take_up(now) {
            self.plugin.begin(&self.hands.claims);
        }
        let cleared = if ours { self.keep.is_cleared() } else { self.connected == Some(0) };
        let next = duty(Situation {
            named,
            held: held.as_ref(),
            revision: &self.args.workload.revision,
            ending: word,
            cleared: cleared || given_up,
        });
        let lets_go = named == (Named::Nobody { meant: true }) || word == Some(Word::Lost);
        let before = std::mem::replace(&mut self.duty, next);
        if before != next {
            tracing::info!(?before, after = ?next, "duty");
        }
        match next {
            Duty::Serves(epoch) => {
                self.metrics.epoch.set(epoch);
                self.take_up(now);
                self.serving.as_mut().into_iter().for_each(|serving| serving.epoch = epoch);
                self.plugin.begin(&self.hands.claims);
            }
            // Rules are taken back by who set them.
            Duty::Leaves if ours => self.plugin.uninstall(&self.hands.claims),
            Duty::Left if ours && lets_go => self.give_up_node(),
            _ => self.stand_back(),
        }
        if next == Duty::Leaves && !ours {
            self.count(now);
        }
    }

    /// We are who acts on the node.
    fn holds(&self) -> bool {
        self.hands.claims.held().is_some_and(|held| held.revision == self.args.workload.revision)
    }

    /// What the control plane's word is worth, once we were told to end.
    fn word(&mut self, now: Instant) -> Option<Word> {
        let live = self.outlets.heard.borrow().live_since.is_some();
        self.ending_since.map(|_| self.farewell.word(live, now))
    }

    /// What whoever acted before us has redirected is ours from now on. Returns whether it was not yet.
    fn take_up(&mut self, now: Instant) -> bool {
        if self.serving.is_some() {
            return false;
        }
        let epoch = self.hands.claims.held().map_or(0, |held| held.epoch);
        self.serving = Some(Serving { since: now, settled: false, epoch });
        let redirected: store::AllRedirected = store::read_json(&self.redirected_file());
        self.keep.restore(&redirected, now);
        self.restore_admissions(&redirected);
        self.stored.redirected = redirected;
        true
    }

    fn stand_back(&mut self) {
        self.metrics.epoch.set(0);
        if self.serving.take().is_some() {
            self.plugin.end();
            self.stored.redirected.clear();
            self.stored.probes = None;
        }
    }

    fn give_up_node(&mut self) {
        self.plugin.uninstall(&self.hands.claims);
        warn_of(self.hands.probes(&rules::forget_probes()), "forget the kubelet's probes");
        if let Err(e) = store::remove(&self.redirected_file()) {
            tracing::warn!(error = %e, "forget what was redirected");
        }
        self.forget_admissions();
        match self.hands.claims.give_up() {
            Ok(()) => tracing::info!("this node is as it was before"),
            Err(e) => tracing::warn!(error = %format!("{e:#}"), "give this node up"),
        }
        self.stand_back();
    }

    fn redirected_file(&self) -> std::path::PathBuf {
        self.args.paths.node_dir.join("redirected.json")
    }

    /// Before anything is done: after a crash it is known where something may have been done.
    fn write_down(&mut self) {
        if self.serving.is_some() {
            let redirected = self.keep.redirected();
            if redirected != self.stored.redirected {
                let written =
                    self.hands.claims.acting(|| store::write_json(&self.redirected_file(), &redirected));
                warn_of(written, "write down what is redirected");
                self.stored.redirected = redirected;
            }
        }
        let namespaces = self.keep.namespaces();
        if namespaces != self.stored.namespaces {
            warn_of(
                store::write_json(&namespaces_file(&self.args), &namespaces),
                "write down where envoy listens",
            );
            self.relay.set_namespaces(namespaces.clone());
            self.stored.namespaces = namespaces;
        }
    }

    fn settle(&mut self, said: &Said, now: Instant) {
        let settled = self.keep.is_settled(self.world(said));
        if let Some(serving) = &mut self.serving {
            serving.settled |= settled || now >= serving.since + SETTLED;
        }
    }

    /// What members wait for, with what Envoy says of their listeners.
    fn awaiting(&self, said: &Said) -> HashMap<String, String> {
        let mut awaiting = self.keep.awaiting(self.world(said));
        for (uid, why) in &mut awaiting {
            if let Some(refusal) = self.relay.refusal(uid) {
                *why = refused(&refusal, self.hands.ports);
            }
        }
        awaiting
    }

    fn tell(&mut self, said: &Said) {
        let settled = self.serving.as_ref().is_some_and(|serving| serving.settled);
        let (serving_epoch, captured) = match self.duty {
            Duty::Serves(epoch) if settled => (epoch, self.keep.captured(self.world(said))),
            _ => (0, Vec::new()),
        };
        let report = NodeReport {
            node: self.args.place.node_name.clone(),
            revision: self.args.workload.revision.clone(),
            serving_epoch,
            captured,
            callers: self.admissions.asks(),
            prepared: self.keep.prepared(self.world(said)),
            awaiting: self.awaiting(said),
        };
        self.outlets.report.send_if_modified(|known| {
            let changed = *known != report;
            *known = report;
            changed
        });
        let wanted = self.keep.identities();
        self.outlets.wanted.send_if_modified(|known| {
            let changed = *known != wanted;
            *known = wanted;
            changed
        });
    }
}

fn warn_of(outcome: anyhow::Result<()>, what: &str) {
    if let Err(e) = outcome {
        tracing::warn!(error = %format!("{e:#}"), "{what}");
    }
}

/// Why Envoy does not listen in a pod, with the remedy where we know one.
fn refused(refusal: &str, ports: Ports) -> String {
    let Ports { outbound, inbound } = ports;
    match refusal.contains("in use") {
        true => format!(
            "something in the pod listens on port {outbound} or {inbound}, which the mesh needs there: give it another port, \
             and create the pod anew"
        ),
        false => format!("envoy refuses to listen in it: {refusal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_has_a_remedy() {
        let ports = Ports { outbound: 15101, inbound: 15108 };
        let taken = refused("error adding listener: cannot bind '[::]:15108': Address already in use", ports);
        assert!(taken.contains("15101 or 15108") && taken.contains("another port"), "{taken}");
        assert!(taken.len() <= 200, "the control plane cuts it");
        assert!(refused("no such file", ports).ends_with("no such file"));
    }
}
