//! Whose connections pods take, and what becomes of those that are there when that changes: pure.
//!
//! The proxy decides once for each connection. So when rules change, who is connected is looked up (by address: the kernel knows no
//! certificates), and who may not be any more on some port is cut off, on all of them: which port it is the kernel does not know either. It is done
//! twice, because the proxy may have taken up the new rules a moment later. Who nobody knows is taken for one who may not be: it connects anew
//! and shows its certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use meshwright_proto::nodes::{Admission, CallerRule, NodeOrder};
use tokio::time::Instant;

/// The second look, when every proxy has the new rules.
const AGAIN: Duration = Duration::from_secs(3);
/// So long may the control plane take to say who callers are.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to do in a pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// See from where it is connected.
    Look,
    /// End what is connected from there.
    End(BTreeSet<IpAddr>),
}

#[derive(Debug)]
struct Change {
    before: Admission,
    since: Instant,
    looks: u8,
    under_way: bool,
    /// From where it is connected, once that is known, and since when.
    callers: Option<(BTreeSet<IpAddr>, Instant)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Admissions {
    known: BTreeMap<String, Admission>,
    changes: BTreeMap<String, Change>,
}

impl Admissions {
    /// What to do now, for these pods. What is seen for the first time was so before: the process before us has done what was to be done.
    pub fn advance<'a>(
        &mut self,
        order: &NodeOrder,
        pods: impl Iterator<Item = &'a String>,
        now: Instant,
    ) -> Vec<(String, Act)> {
        let pods: BTreeSet<&String> = pods.collect();
        self.known.retain(|uid, _| pods.contains(uid));
        self.changes.retain(|uid, _| pods.contains(uid));
        for uid in pods {
            let wanted =
                order.policies.get(uid).and_then(|policy| policy.admission.clone()).unwrap_or_default();
            let before = self.known.insert(uid.clone(), wanted.clone());
            if let Some(before) = before.filter(|before| *before != wanted) {
                // Of several changes the first counts that was not carried out yet.
                let before = self.changes.remove(uid).map_or(before, |change| change.before);
                let change = Change { before, since: now, looks: 0, under_way: false, callers: None };
                self.changes.insert(uid.clone(), change);
            }
        }
        let (known, mut acts) = (&self.known, Vec::new());
        for (uid, change) in &mut self.changes {
            let Some(after) = known.get(uid) else { continue };
            if let Some(act) = change.act(after, order, now) {
                acts.push((uid.clone(), act));
            }
        }
        acts
    }

    /// Addresses of which the control plane is to say who has them.
    pub fn asks(&self) -> Vec<String> {
        let callers = self.changes.values().filter_map(|change| change.callers.as_ref());
        let all: BTreeSet<String> = callers.flat_map(|(all, _)| all).map(ToString::to_string).collect();
        all.into_iter().collect()
    }

    /// From there a pod is connected.
    pub fn looked(&mut self, uid: &str, callers: BTreeSet<IpAddr>, now: Instant) {
        if let Some(change) = self.changes.get_mut(uid) {
            (change.under_way, change.callers) = (false, Some((callers, now)));
        }
    }

    /// What was to be ended has been, or could not be.
    pub fn ended(&mut self, uid: &str, is_done: bool) {
        let Some(change) = self.changes.get_mut(uid) else { return };
        (change.under_way, change.callers) = (false, None);
        change.looks += u8::from(is_done);
        if change.looks == 2 {
            self.changes.remove(uid);
        }
    }

    /// When to look again, if nothing happens.
    pub fn wakes(&self) -> Option<Instant> {
        let times = self.changes.values().filter(|change| !change.under_way);
        times.map(|change| change.callers.as_ref().map_or(change.due(), |(_, since)| *since + PATIENCE)).min()
    }
}

impl Change {
    fn due(&self) -> Instant {
        if self.looks == 0 { self.since } else { self.since + AGAIN }
    }

    fn act(&mut self, after: &Admission, order: &NodeOrder, now: Instant) -> Option<Act> {
        if self.under_way {
            return None;
        }
        let act = match &self.callers {
            None if now >= self.due() => Act::Look,
            None => return None,
            Some((callers, since)) => {
                let who = |caller: &IpAddr| order.callers.get(&caller.to_string());
                if callers.iter().any(|caller| who(caller).is_none()) && now < *since + PATIENCE {
                    return None;
                }
                let refused = callers.iter().filter(|caller| {
                    let id = who(caller).filter(|id| !id.is_empty());
                    is_refused(&self.before, after, id.map(String::as_str))
                });
                Act::End(refused.copied().collect())
            }
        };
        self.under_way = true;
        Some(act)
    }
}

/// Whether a caller may not call some port that it could call before.
fn is_refused(before: &Admission, after: &Admission, id: Option<&str>) -> bool {
    let rules = [before, after].into_iter().flat_map(|one| one.allow.iter().chain(&one.deny));
    // And any port that no rule names.
    let mut ports: BTreeSet<u32> = rules.flat_map(|rule| rule.ports.iter().copied()).collect();
    ports.insert(0);
    ports.iter().any(|port| admits(before, id, *port, true) && !admits(after, id, *port, false))
}

/// `unknown`: what is so for somebody of whom it cannot be said.
fn admits(admission: &Admission, id: Option<&str>, port: u32, unknown: bool) -> bool {
    let matches = |rule: &CallerRule, unclear: bool| {
        (rule.ports.is_empty() || rule.ports.contains(&port)) && is_about(rule, id).unwrap_or(unclear)
    };
    !admission.deny.iter().any(|rule| matches(rule, !unknown))
        && (!admission.limited || admission.allow.iter().any(|rule| matches(rule, unknown)))
}

/// None where that depends on who it is.
fn is_about(rule: &CallerRule, id: Option<&str>) -> Option<bool> {
    if rule.everybody {
        return Some(true);
    }
    if rule.ids.is_empty() && rule.below.is_empty() {
        return Some(false);
    }
    let id = id?;
    let below = |prefix: &String| id.starts_with(prefix.as_str());
    Some(rule.ids.iter().any(|one| one == id) || rule.below.iter().any(below))
}

#[cfg(test)]
mod tests;
