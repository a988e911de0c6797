//! The server's side of one delta ADS stream as a state machine without I/O.

mod kind;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource as WireResource,
};

use crate::types::{Resource, Snapshot, TypeUrl};
use kind::{Change, InFlight, Kind};

/// What a stream has to say and to report after an input.
#[derive(Debug, Default)]
#[must_use]
pub struct Outcome {
    /// To be sent in this order.
    pub responses: Vec<DeltaDiscoveryResponse>,
    /// For the owner of the stream.
    pub events: Vec<Event>,
}

/// A name and a version.
pub type Versioned = (Arc<str>, Arc<str>);

/// What happened on a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The client took a response.
    Ack {
        /// The type.
        kind: TypeUrl,
        /// What it has now.
        resources: Vec<Versioned>,
        /// What it no longer has.
        removed: Vec<Arc<str>>,
    },
    /// The client refused a resource; it stays refused until its content changes. Responses with several resources
    /// are split first, so this names the culprit alone (or nothing, if a response with removals only was refused).
    Nack {
        /// The type.
        kind: TypeUrl,
        /// What was refused.
        resources: Vec<Versioned>,
        /// The client's words.
        message: String,
    },
    /// The client asked for other resources than before.
    Subscription {
        /// The type.
        kind: TypeUrl,
        /// Whether it wants everything.
        wildcard: bool,
        /// Names it asked for, also those it had asked for before.
        subscribed: Vec<Arc<str>>,
        /// Names it no longer wants.
        unsubscribed: Vec<Arc<str>>,
        /// Names of which it had something when the stream began; with the first request only.
        held: Vec<Arc<str>>,
    },
    /// Every response of this type up to this snapshot was ACKed or NACKed, or there was nothing to say.
    Settled {
        /// The type.
        kind: TypeUrl,
        /// [`Snapshot::generation`].
        generation: u64,
    },
    /// The client asked for a type that we do not serve; there is no answer to that in the protocol.
    UnknownType(String),
    /// The stream has ended; sent by [`crate::server`], always last.
    Closed {
        /// For the same client's next stream.
        maybe_sent: MaybeSent,
    },
}

/// Names a client may hold although it will not say so: Envoy leaves resources of a partly rejected response out of
/// `initial_resource_versions` when it reconnects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MaybeSent(BTreeMap<TypeUrl, BTreeSet<Arc<str>>>);

/// The server's side of one delta ADS stream.
#[derive(Debug, Default)]
pub struct DeltaSession {
    snapshot: Snapshot,
    kinds: BTreeMap<TypeUrl, Kind>,
    maybe_sent: MaybeSent,
    /// Endpoints that the snapshot did not have when their cluster was sent, with that cluster's name. A publisher
    /// that gets its types one after the other, as a relay does, publishes them one after the other too.
    owed: BTreeMap<Arc<str>, Arc<str>>,
    nonce: u64,
}

impl DeltaSession {
    /// `maybe_sent` is what the same client's last stream left, or the default.
    pub fn new(maybe_sent: MaybeSent) -> Self {
        Self { maybe_sent, ..Self::default() }
    }

    /// Names the client may hold, for its next stream.
    pub fn maybe_sent(&self) -> MaybeSent {
        let mut all = self.maybe_sent.clone();
        for (kind, state) in &self.kinds {
            all.0.insert(*kind, state.maybe_held());
        }
        all
    }

    /// Takes new configuration.
    pub fn on_snapshot(&mut self, snapshot: &Snapshot) -> Outcome {
        for (kind, state) in &mut self.kinds {
            let (old, new) = (self.snapshot.resources(*kind), snapshot.resources(*kind));
            let same = match (old, new) {
                (Some(old), Some(new)) => Arc::ptr_eq(old, new),
                (None, None) => true,
                _ => false,
            };
            state.dirty |= !same;
            state.evaluated = snapshot.generation();
        }
        self.snapshot = snapshot.clone();
        let mut outcome = Outcome { responses: self.advance(), events: Vec::new() };
        self.report_settled(&mut outcome.events);
        outcome
    }

    /// Takes a request: subscriptions, and the answer to an earlier response.
    pub fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(kind) = TypeUrl::parse(&request.type_url) else {
            outcome.events.push(Event::UnknownType(request.type_url));
            return outcome;
        };
        let generation = self.snapshot.generation();
        let state = self.kinds.entry(kind).or_default();
        state.evaluated = generation;
        // Subscriptions count whatever the nonce says: they are not part of the answer.
        if !request.response_nonce.is_empty() {
            let error = request.error_detail.map(|status| status.message);
            outcome.events.extend(state.answer(kind, &request.response_nonce, error));
        }
        let mut held = Vec::new();
        if !state.seen {
            held.extend(request.initial_resource_versions.keys().map(|name| Arc::from(name.as_str())));
            let maybe = self.maybe_sent.0.remove(&kind).unwrap_or_default();
            state.first_request(
                kind,
                &request.resource_names_subscribe,
                request.initial_resource_versions,
                maybe,
            );
        }
        let changed = state.subscribe(&request.resource_names_subscribe)
            | state.unsubscribe(&request.resource_names_unsubscribe);
        if changed || !state.announced {
            state.announced = true;
            outcome.events.push(Event::Subscription {
                kind,
                wildcard: state.wildcard,
                subscribed: names(request.resource_names_subscribe),
                unsubscribed: names(request.resource_names_unsubscribe),
                held,
            });
        }
        outcome.responses = self.advance();
        self.report_settled(&mut outcome.events);
        outcome
    }

    // Sends what is due, in the order that never names something before it exists.
    fn advance(&mut self) -> Vec<DeltaDiscoveryResponse> {
        let mut out = Vec::new();
        let mut removals = Vec::new();
        let mut unsolicited = Vec::new();
        for kind in TypeUrl::ALL.iter().copied() {
            let Some(state) = self.kinds.get_mut(&kind) else { continue };
            let mut extra = Vec::new();
            if kind == TypeUrl::Endpoint {
                extra.append(&mut unsolicited);
                extra.extend(pay(&mut self.owed, &state.names, &self.snapshot));
            }
            if !state.dirty && extra.is_empty() {
                continue;
            }
            let first = !state.answered;
            let mut batches = state.due(self.snapshot.resources(kind).map(Arc::as_ref));
            batches.add_updates(extra);
            for batch in batches.split(kind) {
                if kind == TypeUrl::Cluster {
                    unsolicited.extend(self.follow(&batch.updates, first));
                }
                out.push(self.respond(kind, batch));
            }
            if !batches.removals.is_empty() {
                removals.push((kind, batches.removals));
            }
        }
        // Routes before the clusters they name, clusters last.
        removals.sort_by_key(|(kind, _)| matches!(kind, TypeUrl::Cluster | TypeUrl::Endpoint));
        for (kind, removals) in removals {
            let before = self.kinds.get(&kind).and_then(|state| state.sent_through);
            out.push(self.respond(kind, Change { updates: Vec::new(), removals, before }));
        }
        for state in self.kinds.values_mut().filter(|state| state.seen) {
            state.sent_through = Some(self.snapshot.generation());
        }
        out
    }

    // Envoy does not ask for endpoints again when a cluster changes, and warms the cluster for 15 s without them.
    // A new cluster's endpoints go along unasked, so that a route may use it at once; not with the first answer of a
    // stream, when Envoy may not start the clusters until later and would drop them.
    fn follow(&mut self, clusters: &[Arc<Resource>], first: bool) -> Vec<Arc<Resource>> {
        let endpoints = self.kinds.entry(TypeUrl::Endpoint).or_default();
        let mut unsolicited = Vec::new();
        for cluster in clusters {
            let Some(name) = cluster.endpoints() else { continue };
            if endpoints.names.contains(name) {
                endpoints.force(name);
                continue;
            }
            if first {
                continue;
            }
            if let Some(resource) = self.snapshot.get(TypeUrl::Endpoint, name) {
                unsolicited.push(resource.clone());
            } else {
                self.owed.insert(name.clone(), cluster.name().clone());
            }
        }
        unsolicited
    }

    fn respond(&mut self, kind: TypeUrl, change: Change) -> DeltaDiscoveryResponse {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let state = self.kinds.entry(kind).or_default();
        let sent = InFlight {
            nonce: nonce.clone(),
            before: change.before,
            resources: change.updates.iter().map(|r| (r.name().clone(), r.version().clone())).collect(),
            removed: change.removals.clone(),
        };
        state.sent(sent);
        DeltaDiscoveryResponse {
            type_url: kind.as_str().to_owned(),
            nonce,
            resources: change.updates.iter().map(|resource| wire(resource)).collect(),
            removed_resources: change.removals.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn report_settled(&mut self, events: &mut Vec<Event>) {
        for (kind, state) in &mut self.kinds {
            if let Some(generation) = state.newly_settled() {
                events.push(Event::Settled { kind: *kind, generation });
            }
        }
    }
}

// Takes out what is there now, and what is owed no longer: the client asks itself, or the cluster is gone.
fn pay(
    owed: &mut BTreeMap<Arc<str>, Arc<str>>,
    asked: &BTreeSet<Arc<str>>,
    snapshot: &Snapshot,
) -> Vec<Arc<Resource>> {
    let mut paid = Vec::new();
    owed.retain(|name, cluster| {
        let cluster = snapshot.get(TypeUrl::Cluster, cluster);
        if asked.contains(name) || cluster.and_then(|cluster| cluster.endpoints()) != Some(name) {
            return false;
        }
        let present = snapshot.get(TypeUrl::Endpoint, name);
        paid.extend(present.cloned());
        present.is_none()
    });
    paid
}

fn names(names: Vec<String>) -> Vec<Arc<str>> {
    names.into_iter().filter(|name| name != "*").map(Arc::from).collect()
}

fn wire(resource: &Resource) -> WireResource {
    WireResource {
        name: resource.name().to_string(),
        version: resource.version().to_string(),
        resource: Some(resource.body().clone()),
        ..WireResource::default()
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
