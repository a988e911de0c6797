//! A client that behaves as Envoy does, and the property that it ends with what the snapshot says.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::{tests::*, *};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Holds what it accepted, and wants endpoints for its clusters and routes for its listeners.
#[derive(Default)]
struct Client {
    held: BTreeMap<TypeUrl, BTreeMap<String, String>>,
    wanted: BTreeMap<TypeUrl, BTreeSet<String>>,
    /// Accepted as part of a rejected response: Envoy forgets to mention these when it reconnects.
    unlisted: BTreeSet<(TypeUrl, String)>,
    out: VecDeque<DeltaDiscoveryRequest>,
}

fn is_bad(resource: &WireResource) -> bool {
    resource.resource.as_ref().is_some_and(|any| any.value.windows(3).any(|part| part == b"bad"))
}

impl Client {
    fn connect(&mut self) {
        self.out.clear();
        for kind in [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route] {
            let names = self.wanted.get(&kind).cloned().unwrap_or_default();
            let wildcard = matches!(kind, TypeUrl::Cluster | TypeUrl::Listener);
            if names.is_empty() && !wildcard {
                continue;
            }
            let names = names.iter().map(String::as_str).collect::<Vec<_>>();
            let mut request = subscribe(kind, &names);
            let held = self.held.entry(kind).or_default().iter();
            let listed = held.filter(|(name, _)| !self.unlisted.contains(&(kind, (*name).clone())));
            request.initial_resource_versions = listed.map(|(n, v)| (n.clone(), v.clone())).collect();
            self.out.push_back(request);
        }
    }

    fn receive(&mut self, response: &DeltaDiscoveryResponse) {
        let kind = TypeUrl::parse(&response.type_url).unwrap();
        let names = response.resources.iter().map(|r| &r.name).chain(&response.removed_resources);
        let unique = names.clone().collect::<BTreeSet<_>>();
        assert_eq!(unique.len(), names.count(), "duplicate names in one response");
        assert!(kind != TypeUrl::Route || response.resources.len() <= 1, "several routes in one response");
        let wildcard = matches!(kind, TypeUrl::Cluster | TypeUrl::Listener);
        let bad = response.resources.iter().any(is_bad);
        let held = self.held.entry(kind).or_default();
        for name in &response.removed_resources {
            held.remove(name);
        }
        for resource in response.resources.iter().filter(|r| !is_bad(r)) {
            if wildcard || self.wanted.get(&kind).is_some_and(|wanted| wanted.contains(&resource.name)) {
                held.insert(resource.name.clone(), resource.version.clone());
                let key = (kind, resource.name.clone());
                if bad {
                    self.unlisted.insert(key)
                } else {
                    self.unlisted.remove(&key)
                };
            }
        }
        self.out.push_back(if bad { nack(response) } else { ack(response) });
        match kind {
            TypeUrl::Cluster => self.follow(kind, TypeUrl::Endpoint),
            TypeUrl::Listener => self.follow(kind, TypeUrl::Route),
            _ => {}
        }
    }

    fn follow(&mut self, from: TypeUrl, to: TypeUrl) {
        let now: BTreeSet<String> = self.held.entry(from).or_default().keys().cloned().collect();
        let before = self.wanted.insert(to, now.clone()).unwrap_or_default();
        self.held.entry(to).or_default().retain(|name, _| now.contains(name));
        if now == before {
            return;
        }
        let mut request = subscribe(to, &[]);
        request.resource_names_subscribe = now.difference(&before).cloned().collect();
        request.resource_names_unsubscribe = before.difference(&now).cloned().collect();
        self.out.push_back(request);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Publish(Vec<(usize, usize, u8)>),
    Server(u8),
    Client(u8),
    Reconnect,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let entry = (0..4usize, 0..NAMES.len(), 0..5u8);
    let step = prop_oneof![
        4 => prop::collection::vec(entry, 0..12).prop_map(Step::Publish),
        6 => (1..4u8).prop_map(Step::Server),
        6 => (1..4u8).prop_map(Step::Client),
        1 => Just(Step::Reconnect),
    ];
    prop::collection::vec(step, 1..40)
}

fn publish(entries: &[(usize, usize, u8)]) -> Snapshot {
    let kinds = [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route];
    let text = |version: u8| if version == 4 { "bad".to_owned() } else { version.to_string() };
    kinds.iter().enumerate().fold(Snapshot::default(), |snapshot, (index, kind)| {
        let mine = entries.iter().filter(|entry| entry.0 == index);
        snapshot.with(
            *kind,
            mine.map(|(_, name, version)| match kind {
                TypeUrl::Cluster => eds_cluster(NAMES[*name], &text(*version)),
                kind => resource(*kind, NAMES[*name], &text(*version)),
            }),
        )
    })
}

struct World {
    client: Client,
    session: DeltaSession,
    snapshot: Snapshot,
    wire: VecDeque<DeltaDiscoveryResponse>,
}

impl World {
    fn serve_one(&mut self) -> bool {
        let Some(request) = self.client.out.pop_front() else { return false };
        self.wire.extend(self.session.on_request(request).responses);
        true
    }

    fn receive_one(&mut self) -> bool {
        let Some(response) = self.wire.pop_front() else { return false };
        self.client.receive(&response);
        true
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish(entries) => {
                self.snapshot = publish(entries);
                self.wire.extend(self.session.on_snapshot(&self.snapshot).responses);
            }
            Step::Server(count) => (0..*count).for_each(|_| _ = self.serve_one()),
            Step::Client(count) => (0..*count).for_each(|_| _ = self.receive_one()),
            Step::Reconnect => {
                self.wire.clear();
                self.session = DeltaSession::new(self.session.maybe_sent());
                assert!(self.session.on_snapshot(&self.snapshot).responses.is_empty());
                self.client.connect();
            }
        }
    }

    fn check(&self) {
        for (kind, held) in &self.client.held {
            let wildcard = matches!(kind, TypeUrl::Cluster | TypeUrl::Listener);
            for name in held.keys() {
                assert!(self.snapshot.get(*kind, name).is_some(), "{kind} {name} lives on");
            }
            for resource in self.snapshot.resources(*kind).iter().flat_map(|all| all.iter()) {
                let wanted =
                    self.client.wanted.get(kind).is_some_and(|wanted| wanted.contains(&**resource.name()));
                if (wildcard || wanted) && !is_bad(&wire(resource)) {
                    let version = held.get(&**resource.name()).map(String::as_str);
                    assert_eq!(version, Some(&**resource.version()), "{kind} {}", resource.name());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_client_ends_with_the_snapshot(steps in steps()) {
        let mut world = World {
            client: Client::default(),
            session: DeltaSession::default(),
            snapshot: Snapshot::default(),
            wire: VecDeque::new(),
        };
        world.client.connect();
        for step in &steps {
            world.step(step);
        }
        let mut rounds = 0;
        while world.serve_one() | world.receive_one() {
            rounds += 1;
            prop_assert!(rounds < 1000, "the stream never comes to rest");
        }
        world.check();
    }
}
