//! Whose connections pods take, and what becomes of those that are there when that changes: pure.
//!
//! The proxy decides once for each connection. So when rules change, who is connected is looked up (by address: the kernel knows no
//! certificates), and who may not be any more on some port is cut off, on all of them: which port it is the kernel does not know either. It is done
//! at once, and again every few seconds until the proxy has said that it has the new rules. Who nobody knows is taken for one who may not be: it
//! connects anew and shows its certificate. Rules that the proxy refuses are not in force: then nobody is cut off until it takes some.
//!
//! A port at which rules look at requests from now on is another way through the proxy, which is chosen once for each connection, too. Whoever is
//! connected connects anew, once: when the proxy has the rules.
//!
//! Under which rules there may be connections is written down, for the next process and for who serves the node next.

mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use meshwright_proto::nodes::{Admission, NodeOrder};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::claim::Held;

use refused::is_refused;

/// Between looks. Nobody knows how far the other proxy of this node is, which may still have connections: so there are two at least.
const AGAIN: Duration = Duration::from_secs(3);
/// So long may the control plane take to say who callers are.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of more rules than these one after the other nobody keeps account: everybody may be connected.
const MOST: usize = 8;

/// By uid, rules under which connections may have been taken; where a pod is not named, nobody was refused.
pub type Stored = BTreeMap<String, Vec<Admission>>;

/// What is written down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Who served the node then.
    pub by: Held,
    /// Pods' rules.
    pub admitted: Stored,
}

/// What to do in a pod's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// See from where it is connected.
    Look,
    /// End what is connected from there.
    End(BTreeSet<IpAddr>),
}

/// What the rest of the world says at one moment.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The control plane's last word.
    pub order: &'a NodeOrder,
    /// Pods that take mutual TLS here.
    pub captured: &'a BTreeSet<String>,
    /// Whether a pod is still here.
    pub is_here: &'a dyn Fn(&str) -> bool,
    /// Whether the proxy has a pod's rules, in this version.
    pub has_taken: &'a dyn Fn(&str, &str) -> bool,
    /// Whether it does not take them, in this version.
    pub has_refused: &'a dyn Fn(&str, &str) -> bool,
}

#[derive(Debug)]
struct Change {
    /// Under one of these connections may have been taken.
    before: Vec<Admission>,
    due: Instant,
    looked: bool,
    under_way: bool,
    /// The proxy goes by the rules from before, and does not take the new ones.
    rests: bool,
    /// The proxy had the new rules before this look began, which is not the first one.
    is_last: bool,
    /// From where it is connected, once that is known, and since when.
    callers: Option<(BTreeSet<IpAddr>, Instant)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Admissions {
    known: BTreeMap<String, Admission>,
    changes: BTreeMap<String, Change>,
    restored: Stored,
    unsaved: bool,
    /// What was last asked for, to be written down.
    written: Option<Written>,
    wakes: Option<Instant>,
}

impl Admissions {
    /// Takes up what a process before us wrote down, of the pods that were captured then. Of those that come from now on nobody can be
    /// connected. Where nothing is known of before, as after a release that wrote nothing down, who is connected is taken to be so by right: to
    /// cut them all off would be worse.
    pub fn restore<'a>(&mut self, stored: Option<Stored>, captured: impl Iterator<Item = &'a String>) {
        *self = Self::default();
        if let Some(mut stored) = stored {
            let mut before = |uid: &String| stored.remove(uid).unwrap_or_else(|| vec![Admission::default()]);
            self.restored = captured.map(|uid| (uid.clone(), before(uid))).collect();
        }
    }

    /// What to do now.
    pub fn advance(&mut self, scene: Scene<'_>, now: Instant) -> Vec<(String, Act)> {
        let Scene { order, captured, is_here, .. } = scene;
        let count = self.known.len() + self.restored.len();
        self.known.retain(|uid, _| is_here(uid));
        self.restored.retain(|uid, _| is_here(uid));
        self.changes.retain(|uid, _| is_here(uid));
        self.unsaved |= count != self.known.len() + self.restored.len();
        for uid in captured {
            let policy = order.policies.get(uid);
            let wanted = policy.and_then(|policy| policy.admission.as_ref());
            let is_known = self.known.get(uid).is_some_and(|known| match wanted {
                Some(wanted) => known == wanted,
                None => *known == Admission::default(),
            });
            if !is_known {
                self.want(uid, wanted.cloned().unwrap_or_default(), now);
            }
        }
        let (known, mut acts) = (&self.known, Vec::new());
        for (uid, change) in self.changes.iter_mut().filter(|(uid, _)| captured.contains(*uid)) {
            let Some(after) = known.get(uid) else { continue };
            let version = order.policies.get(uid).map_or("", |policy| &policy.version);
            let is_taken = version.is_empty() || (scene.has_taken)(uid, version);
            change.rests = !is_taken && (scene.has_refused)(uid, version);
            if let Some(act) = change.act(after, order, is_taken, now) {
                acts.push((uid.clone(), act));
            }
        }
        // Of a pod that is not captured nothing is due, however long that takes.
        let captured = self.changes.iter().filter(|(uid, _)| captured.contains(*uid));
        self.wakes = captured.filter_map(|(_, change)| change.wakes()).min();
        acts
    }

    fn want(&mut self, uid: &str, wanted: Admission, now: Instant) {
        let known = self.known.insert(uid.to_owned(), wanted.clone());
        let pending = self.changes.remove(uid).map(|change| change.before).unwrap_or_default();
        let mut before = self.restored.remove(uid).unwrap_or_default();
        for one in pending.into_iter().chain(known) {
            if !before.contains(&one) {
                before.push(one);
            }
        }
        if before.len() > MOST {
            before = vec![Admission::default()];
        }
        self.unsaved = true;
        if before.iter().any(|one| *one != wanted) {
            let (looked, under_way, rests, is_last) = (false, false, false, false);
            let change = Change { before, due: now, looked, under_way, rests, is_last, callers: None };
            self.changes.insert(uid.to_owned(), change);
        }
    }

    /// What is to be written down by who serves now, if that was not what was last asked for.
    pub fn unsaved(&mut self, by: &Held) -> Option<Written> {
        let is_by = self.written.as_ref().is_some_and(|written| written.by == *by);
        if !std::mem::take(&mut self.unsaved) && is_by {
            return None;
        }
        let mut stored = self.restored.clone();
        for (uid, known) in &self.known {
            let before = self.changes.get(uid).map(|change| change.before.clone()).unwrap_or_default();
            stored.insert(uid.clone(), before.into_iter().chain([known.clone()]).collect());
        }
        stored.retain(|_, all| all.iter().any(|one| *one != Admission::default()));
        let written = Some(Written { by: by.clone(), admitted: stored });
        // Most pods come and go without rules, and to write takes the disk's time.
        if self.written == written {
            return None;
        }
        self.written.clone_from(&written);
        written
    }

    /// What was to be written down was not.
    pub fn is_unsaved(&mut self) {
        self.written = None;
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
    pub fn ended(&mut self, uid: &str, is_done: bool, now: Instant) {
        let Some(change) = self.changes.get_mut(uid) else { return };
        // What failed would fail at once again.
        (change.under_way, change.callers, change.due) = (false, None, now + AGAIN);
        change.looked |= is_done;
        if is_done && change.is_last {
            self.changes.remove(uid);
            self.unsaved = true;
        }
    }

    /// When to look again after the last time, if nothing happens.
    pub fn wakes(&self) -> Option<Instant> {
        self.wakes
    }
}

impl Change {
    fn wakes(&self) -> Option<Instant> {
        let wakes = self.callers.as_ref().map_or(self.due, |(_, since)| *since + PATIENCE);
        (!self.under_way && !self.rests).then_some(wakes)
    }

    fn act(&mut self, after: &Admission, order: &NodeOrder, is_taken: bool, now: Instant) -> Option<Act> {
        if self.under_way {
            return None;
        }
        if self.rests {
            self.callers = None;
            return None;
        }
        let act = match &self.callers {
            None if now >= self.due => {
                self.is_last = self.looked && is_taken;
                Act::Look
            }
            None => return None,
            Some((callers, since)) => {
                let who = |caller: &IpAddr| order.callers.get(&caller.to_string());
                if callers.iter().any(|caller| who(caller).is_none()) && now < *since + PATIENCE {
                    return None;
                }
                let refused = callers.iter().filter(|caller| {
                    let id = who(caller).filter(|id| !id.is_empty()).map(String::as_str);
                    self.before.iter().any(|before| is_refused(before, after, id, self.is_last))
                });
                Act::End(refused.copied().collect())
            }
        };
        self.under_way = true;
        Some(act)
    }
}

#[cfg(test)]
mod tests;
