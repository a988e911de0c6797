//! A cluster whose endpoints have another name whenever its pods join the mesh or leave it, over both hops, in every order of arrival.

use std::collections::{BTreeSet, VecDeque};

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier};
use envoy_types::util::pack_any;
use meshwright_xds::{DeltaSession, MaybeSent};
use proptest::prelude::*;

use super::*;

const NAME: &str = "c";
const ENDPOINTS: [&str; 3] = ["c", "c?1", "c?2"];

/// Has one cluster and, as Envoy has, another version of it that waits for its endpoints.
#[derive(Default)]
struct Envoy {
    active: Option<String>,
    /// Of its endpoints.
    version: String,
    warming: Option<String>,
    asked: BTreeSet<String>,
    out: VecDeque<DeltaDiscoveryRequest>,
}

impl Envoy {
    fn started() -> Self {
        let out = WILDCARDS.iter().map(|kind| request(*kind)).collect();
        Self { out, ..Self::default() }
    }

    fn receive(&mut self, response: &DeltaDiscoveryResponse) {
        let kind = TypeUrl::parse(&response.type_url).unwrap();
        self.out.push_back(DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..request(kind) });
        for wire in &response.resources {
            match kind {
                TypeUrl::Cluster => {
                    let resource = Resource::new(wire.name.clone(), wire.resource.clone().unwrap());
                    self.warming = resource.endpoints().map(ToString::to_string);
                }
                _ if self.warming.as_ref() == Some(&wire.name) => {
                    self.active = self.warming.take();
                    self.version.clone_from(&wire.version);
                }
                _ if self.active.as_ref() == Some(&wire.name) => self.version.clone_from(&wire.version),
                _ => {}
            }
        }
        if kind == TypeUrl::Endpoint {
            let gone = response.removed_resources.iter().find(|name| self.warming.as_ref() == Some(name));
            assert_eq!(gone, None, "a cluster that warms hears that there are no such endpoints");
        }
        self.ask();
    }

    fn ask(&mut self) {
        let now: BTreeSet<_> = self.active.iter().chain(&self.warming).cloned().collect();
        let before = std::mem::replace(&mut self.asked, now.clone());
        if now != before {
            self.out.push_back(DeltaDiscoveryRequest {
                resource_names_subscribe: now.difference(&before).cloned().collect(),
                resource_names_unsubscribe: before.difference(&now).cloned().collect(),
                ..request(TypeUrl::Endpoint)
            });
        }
    }
}

struct World {
    source: DeltaSession,
    published: u64,
    down: VecDeque<DeltaDiscoveryResponse>,
    up: VecDeque<DeltaDiscoveryRequest>,
    state: State,
    session: DeltaSession,
    /// The generation that the session to Envoy has.
    seen: u64,
    wire: VecDeque<DeltaDiscoveryResponse>,
    envoy: Envoy,
}

impl World {
    fn new() -> Self {
        let mut state = State::default();
        let up = state.on_upstream_connected().into();
        Self {
            source: DeltaSession::new(MaybeSent::default()),
            published: 0,
            down: VecDeque::new(),
            up,
            state,
            session: DeltaSession::new(MaybeSent::default()),
            seen: 0,
            wire: VecDeque::new(),
            envoy: Envoy::started(),
        }
    }

    fn publish(&mut self, endpoints: &str) {
        self.published += 1;
        let mut snapshot = Snapshot::default()
            .with(TypeUrl::Cluster, [Resource::new(NAME, cluster(endpoints))])
            .with(TypeUrl::Endpoint, [self.assignment(endpoints)])
            .with(TypeUrl::Listener, []);
        snapshot.set_generation(self.published);
        self.down.extend(self.source.on_snapshot(&snapshot).responses);
    }

    fn assignment(&self, endpoints: &str) -> Resource {
        Resource::with_version(endpoints, self.published.to_string(), pack_any(request(TypeUrl::Endpoint)))
    }

    fn source_hears(&mut self) -> bool {
        let Some(request) = self.up.pop_front() else { return false };
        self.down.extend(self.source.on_request(request).responses);
        true
    }

    fn relay_hears(&mut self) -> bool {
        let Some(response) = self.down.pop_front() else { return false };
        self.up.extend(self.state.on_upstream(response));
        true
    }

    fn session_sees(&mut self) -> bool {
        let snapshot = self.state.snapshot().clone();
        if snapshot.generation() == self.seen {
            return false;
        }
        self.seen = snapshot.generation();
        let outcome = self.session.on_snapshot(&snapshot);
        self.wire.extend(outcome.responses);
        self.tell(outcome.events);
        true
    }

    fn envoy_speaks(&mut self) -> bool {
        let Some(request) = self.envoy.out.pop_front() else { return false };
        let outcome = self.session.on_request(request);
        self.wire.extend(outcome.responses);
        self.tell(outcome.events);
        true
    }

    fn tell(&mut self, events: Vec<Event>) {
        for event in events {
            self.up.extend(self.state.on_downstream(event));
        }
    }

    fn envoy_hears(&mut self) -> bool {
        let Some(response) = self.wire.pop_front() else { return false };
        self.envoy.receive(&response);
        true
    }

    fn rest(&mut self) {
        while self.source_hears()
            | self.relay_hears()
            | self.session_sees()
            | self.envoy_speaks()
            | self.envoy_hears()
        {}
    }
}

fn cluster(endpoints: &str) -> meshwright_xds::Any {
    let eds = cluster::EdsClusterConfig {
        eds_config: Some(ConfigSource {
            config_source_specifier: Some(ConfigSourceSpecifier::Ads(Default::default())),
            ..ConfigSource::default()
        }),
        service_name: endpoints.to_owned(),
    };
    let kind = cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds as i32);
    pack_any(Cluster {
        name: NAME.to_owned(),
        cluster_discovery_type: Some(kind),
        eds_cluster_config: Some(eds),
        ..Cluster::default()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_cluster_never_loses_its_endpoints_when_they_get_another_name(steps in prop::collection::vec(0..15usize, 1..120)) {
        let mut world = World::new();
        world.publish(ENDPOINTS[0]);
        world.rest();
        let mut last = ENDPOINTS[0];
        for step in steps {
            match step {
                0..3 => {
                    last = ENDPOINTS[step];
                    world.publish(last);
                }
                3..5 => _ = world.source_hears(),
                5..8 => _ = world.relay_hears(),
                8..10 => _ = world.session_sees(),
                10..12 => _ = world.envoy_speaks(),
                12..14 => _ = world.envoy_hears(),
                _ => world.rest(),
            }
        }
        world.rest();
        prop_assert_eq!(world.envoy.active.as_deref(), Some(last));
        prop_assert_eq!(world.envoy.warming, None);
        prop_assert_eq!(world.envoy.version, world.published.to_string());
    }
}
