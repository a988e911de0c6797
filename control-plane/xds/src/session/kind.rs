//! One resource type of a session: what the client wants, what it has, what it was sent and what it refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use super::{Event, Versioned};
use crate::types::{Resource, Resources, TypeUrl};

#[derive(Clone, Debug, PartialEq)]
enum Held {
    /// Sent, or reported by the client.
    Version(Arc<str>),
    /// The client may or may not have some version, or asked to be told again.
    Maybe,
    /// The client was told that it does not exist.
    Absent,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub nonce: String,
    /// While this is unanswered, only snapshots up to this one are settled. Not simply the snapshot before: those
    /// in between may have been merged.
    pub before: Option<u64>,
    pub resources: Vec<Versioned>,
    pub removed: Vec<Arc<str>>,
}

/// What to send. Duplicates are impossible: `updates` and `removals` come from one pass over the names.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub updates: Vec<Arc<Resource>>,
    pub removals: Vec<Arc<str>>,
    /// See [`InFlight::before`].
    pub before: Option<u64>,
}

/// Half of a rejected response.
#[derive(Debug)]
struct Retry {
    resources: Vec<Versioned>,
    before: Option<u64>,
}

/// What is due for a type: responses to send now, and removals that wait until all updates are out.
#[derive(Debug, Default)]
pub(super) struct Due {
    retries: Vec<Change>,
    now: Change,
    empty: bool,
    pub removals: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Kind {
    pub seen: bool,
    pub announced: bool,
    pub answered: bool,
    pub dirty: bool,
    pub wildcard: bool,
    pub names: BTreeSet<Arc<str>>,
    pub evaluated: u64,
    /// The last snapshot of which everything was sent.
    pub sent_through: Option<u64>,
    held: BTreeMap<Arc<str>, Held>,
    rejected: BTreeMap<Arc<str>, Arc<str>>,
    retries: Vec<Retry>,
    in_flight: VecDeque<InFlight>,
    settled: Option<u64>,
}

impl Kind {
    pub fn first_request(
        &mut self,
        kind: TypeUrl,
        subscribe: &[String],
        initial: HashMap<String, String>,
        maybe: BTreeSet<Arc<str>>,
    ) {
        self.seen = true;
        self.dirty = true;
        self.wildcard = kind.legacy_wildcard() && subscribe.is_empty();
        self.answered |= !initial.is_empty();
        self.held.extend(maybe.into_iter().map(|name| (name, Held::Maybe)));
        let initial = initial.into_iter().map(|(name, version)| (name.into(), Held::Version(version.into())));
        self.held.extend(initial);
        // Names in this first request that the client already holds need no answer.
        for name in subscribe.iter().filter(|name| *name != "*") {
            if matches!(self.held.get(name.as_str()), Some(Held::Version(_))) {
                self.names.insert(name.as_str().into());
            }
        }
    }

    pub fn subscribe(&mut self, names: &[String]) -> bool {
        for name in names {
            if name == "*" {
                self.dirty |= !self.wildcard;
                self.wildcard = true;
                continue;
            }
            let name: Arc<str> = name.as_str().into();
            let reconnected = !self.announced && self.names.contains(&name);
            self.names.insert(name.clone());
            if !reconnected {
                // Also if it seems to have it: the client may have dropped it in the meantime.
                self.force(&name);
            }
        }
        !names.is_empty()
    }

    pub fn unsubscribe(&mut self, names: &[String]) -> bool {
        let mut changed = false;
        for name in names {
            if name == "*" {
                changed |= std::mem::take(&mut self.wildcard);
                self.held.retain(|name, _| self.names.contains(name));
            } else if self.names.remove(name.as_str()) {
                changed = true;
                if self.wildcard {
                    self.force(&name.as_str().into());
                } else {
                    self.held.remove(name.as_str());
                    self.rejected.remove(name.as_str());
                }
            }
        }
        changed
    }

    /// Makes the next pass say something about this name whatever the client has.
    pub fn force(&mut self, name: &Arc<str>) {
        self.held.insert(name.clone(), Held::Maybe);
        self.rejected.remove(name);
        self.dirty = true;
    }

    pub fn answer(&mut self, kind: TypeUrl, nonce: &str, error: Option<String>) -> Option<Event> {
        let position = self.in_flight.iter().position(|sent| sent.nonce == nonce)?;
        let sent = self.in_flight.remove(position)?;
        let Some(message) = error else {
            return Some(Event::Ack { kind, resources: sent.resources, removed: sent.removed });
        };
        if sent.resources.is_empty() {
            return Some(Event::Nack { kind, resources: Vec::new(), message });
        }
        // Whether the removals that came along were carried out is unknown.
        self.dirty = true;
        self.held.extend(sent.removed.into_iter().map(|name| (name, Held::Maybe)));
        if let [(name, version)] = sent.resources.as_slice() {
            // A newer version may be on its way already; that one is judged by itself.
            if matches!(self.held.get(name), Some(Held::Version(held)) if held == version) {
                self.held.insert(name.clone(), Held::Maybe);
                self.rejected.insert(name.clone(), version.clone());
            }
            return Some(Event::Nack { kind, resources: sent.resources, message });
        }
        let middle = sent.resources.len() / 2;
        let (left, right) = sent.resources.split_at(middle);
        let half = |part: &[Versioned]| Retry { resources: part.to_vec(), before: sent.before };
        self.retries.extend([half(left), half(right)]);
        None
    }

    /// One pass over everything the client wants or may have.
    pub fn due(&mut self, resources: Option<&Resources>) -> Due {
        self.dirty = false;
        let none = Resources::default();
        let resources = resources.unwrap_or(&none);
        let mut due = Due { retries: self.take_retries(resources), ..Due::default() };
        due.now.before = self.sent_through;
        if !self.seen {
            return due;
        }
        let mut wanted: BTreeSet<&Arc<str>> = self.names.iter().collect();
        if self.wildcard {
            wanted.extend(resources.present.keys());
            wanted.extend(self.held.keys());
        }
        for name in wanted {
            let held = self.held.get(name);
            if let Some(resource) = resources.present.get(name) {
                let version = resource.version();
                let has = matches!(held, Some(Held::Version(held)) if held == version);
                if !has && self.rejected.get(name) != Some(version) {
                    due.now.updates.push(resource.clone());
                }
            } else if resources.is_absent(name) && held != Some(&Held::Absent) {
                // An answer to a question goes out now, a removal waits for what replaces it.
                let asked = self.names.contains(name) && !matches!(held, Some(Held::Version(_)));
                if asked { due.now.removals.push(name.clone()) } else { due.removals.push(name.clone()) }
            }
        }
        due.empty = self.wildcard && !self.answered && !resources.partial;
        due
    }

    // Halves of rejected responses, as far as their content is still current.
    fn take_retries(&mut self, resources: &Resources) -> Vec<Change> {
        let current = |(name, version): &Versioned| {
            let held = matches!(self.held.get(name), Some(Held::Version(held)) if held == version);
            resources.get(name).filter(|resource| held && resource.version() == version).cloned()
        };
        let change = |retry: &Retry| Change {
            updates: retry.resources.iter().filter_map(current).collect(),
            removals: Vec::new(),
            before: retry.before,
        };
        let retries = self.retries.iter().map(change).filter(|change| !change.updates.is_empty()).collect();
        self.retries.clear();
        retries
    }

    pub fn sent(&mut self, sent: InFlight) {
        self.answered = true;
        for (name, version) in &sent.resources {
            if !self.wildcard && !self.names.contains(name) {
                continue; // unsolicited endpoints; the client will still ask for them
            }
            self.held.insert(name.clone(), Held::Version(version.clone()));
            self.rejected.remove(name);
        }
        for name in &sent.removed {
            self.rejected.remove(name);
            if self.names.contains(name) {
                self.held.insert(name.clone(), Held::Absent);
            } else {
                self.held.remove(name);
            }
        }
        self.in_flight.push_back(sent);
    }

    pub fn maybe_held(&self) -> BTreeSet<Arc<str>> {
        let held = self.held.iter().filter(|(_, held)| **held != Held::Absent).map(|(name, _)| name.clone());
        held.chain(self.in_flight.iter().flat_map(|sent| sent.removed.iter().cloned())).collect()
    }

    pub fn newly_settled(&mut self) -> Option<u64> {
        if !self.seen {
            return None;
        }
        let unanswered = self.in_flight.iter().map(|sent| sent.before).min();
        let settled = unanswered.unwrap_or(Some(self.evaluated))?;
        if self.settled.is_some_and(|before| before >= settled) {
            return None;
        }
        self.settled = Some(settled);
        Some(settled)
    }
}

impl Due {
    pub fn add_updates(&mut self, extra: Vec<Arc<Resource>>) {
        for resource in extra {
            if !self.now.updates.iter().any(|known| known.name() == resource.name()) {
                self.now.updates.push(resource);
            }
        }
    }

    /// The responses to send now.
    pub fn split(&mut self, kind: TypeUrl) -> Vec<Change> {
        let mut batches = std::mem::take(&mut self.retries);
        let mut now = std::mem::take(&mut self.now);
        if kind == TypeUrl::Listener {
            // In the same response, because Envoy removes first and the new listener may need the old one's port.
            now.removals.append(&mut self.removals);
        }
        if kind == TypeUrl::Route {
            // Which good ones survive beside a bad one is luck in Envoy; alone, each is judged by itself.
            let before = now.before;
            let alone = |update| Change { updates: vec![update], removals: Vec::new(), before };
            batches.extend(now.updates.drain(..).map(alone));
        }
        // Before its first answer a wildcard client waits, also for nothing.
        let owed = self.empty && batches.is_empty();
        if owed || !now.updates.is_empty() || !now.removals.is_empty() {
            batches.push(now);
        }
        batches
    }
}
