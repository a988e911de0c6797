//! An output that follows another says the same as one made from nothing.

use meshwright_core::config::{
    BackendProtocol, CompiledRule, Forward, ListenerConfig, PortConfig, PortProtocol, RouteEntry, RuleAction,
    VirtualHostConfig, WeightedBackend,
};
use meshwright_core::model::{
    EndpointPort, EndpointSlice, HttpRouteMatch, Meta, RouteKind, Service, ServicePort, ServiceType,
    SliceEndpoint,
};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn cluster(name: &str) -> ClusterRef {
    ClusterRef { service: ObjectKey::new("shop", name), port: 80, protocol: BackendProtocol::Http1 }
}

fn chosen(flags: &[bool]) -> impl Iterator<Item = ClusterRef> {
    NAMES.iter().zip(flags).filter(|(_, flag)| **flag).map(|(name, _)| cluster(name))
}

fn config(gateway: &ObjectKey, clusters: &[bool]) -> Arc<GatewayConfig> {
    let backend = |cluster| WeightedBackend {
        cluster: Some(cluster),
        weight: 1,
        request_headers: Default::default(),
        response_headers: Default::default(),
    };
    let backends = chosen(clusters).map(backend).collect();
    let action = RuleAction::Forward(Forward { backends, rewrite: None });
    let entry = RouteEntry {
        kind: RouteKind::Http,
        route: ObjectKey::new("shop", "all"),
        rule_index: 0,
        match_index: 0,
        matches: HttpRouteMatch::default(),
        rule: Arc::new(CompiledRule { action, ..CompiledRule::default() }),
    };
    let host = VirtualHostConfig { hostname: "*".to_owned(), routes: vec![Arc::new(entry)] };
    let listener = ListenerConfig {
        name: "http".to_owned(),
        hostname: "*".to_owned(),
        certificates: Vec::new(),
        virtual_hosts: vec![Arc::new(host)],
    };
    let ports = vec![PortConfig { port: 80, protocol: PortProtocol::Http, listeners: vec![listener] }];
    Arc::new(GatewayConfig { gateway: gateway.clone(), ports })
}

fn add(world: &mut World, name: &str, address: u8) {
    let key = ObjectKey::new("shop", name);
    let port = ServicePort { name: String::new(), port: 80, protocol: "TCP".to_owned(), app_protocol: None };
    let service = Service {
        meta: Meta::new("shop", name, 1, 0),
        kind: ServiceType::Cluster,
        headless: false,
        has_selector: true,
        balancing: Default::default(),
        cluster_ips: Vec::new(),
        ports: vec![port],
    };
    let endpoint = SliceEndpoint {
        addresses: vec![format!("10.0.0.{address}")],
        ready: true,
        serving: true,
        terminating: false,
        zone: None,
        node: None,
    };
    let slice = EndpointSlice {
        service: key.clone(),
        fqdn: false,
        ports: vec![EndpointPort { name: String::new(), port: Some(8080), protocol: "TCP".to_owned() }],
        endpoints: vec![endpoint],
    };
    world.services.insert(key.clone(), Arc::new(service));
    world.endpoint_slices.insert(key, [("s".to_owned(), Arc::new(slice))].into());
}

#[derive(Debug, Clone)]
enum Step {
    /// The clusters of each Gateway that there is, after a resolution.
    Resolved(Vec<Option<Vec<bool>>>),
    Moved(usize, u8),
    Kept(Vec<bool>),
}

fn step() -> impl Strategy<Value = Step> {
    let clusters = || vec(any::<bool>(), 4);
    prop_oneof![
        vec(proptest::option::of(clusters()), 2).prop_map(Step::Resolved),
        (0_usize..4, 0_u8..3).prop_map(|(index, address)| Step::Moved(index, address)),
        clusters().prop_map(Step::Kept),
    ]
}

proptest! {
    #[test]
    fn what_was_before_changes_nothing(steps in vec((step(), any::<bool>()), 1..16)) {
        let (mut world, mut kept, mut configs) = (World::default(), BTreeSet::new(), BTreeMap::new());
        NAMES.iter().for_each(|name| add(&mut world, name, 0));
        let (mut known, mut touched) = (Output::default(), BTreeSet::new());
        for (step, is_last_of_its_change) in steps {
            let mut structural = false;
            match step {
                Step::Resolved(gateways) => {
                    let keys = ["x", "y"].map(|name| ObjectKey::new("shop", name));
                    let all = keys.into_iter().zip(gateways);
                    let all = all.filter_map(|(key, clusters)| Some((config(&key, &clusters?), key)));
                    configs = all.map(|(config, key)| (key, config)).collect();
                    structural = true;
                }
                Step::Moved(index, address) => {
                    add(&mut world, NAMES[index], address);
                    touched.insert(ObjectKey::new("shop", NAMES[index]));
                }
                Step::Kept(flags) => {
                    let new: BTreeSet<_> = chosen(&flags).collect();
                    touched.extend(new.difference(&kept).map(|cluster: &ClusterRef| cluster.service.clone()));
                    kept = new;
                }
            }
            if !structural && !is_last_of_its_change {
                continue;
            }
            let anew = Output::default().resolved(configs.clone(), &world, &touched, &kept);
            if structural {
                known = known.resolved(configs.clone(), &world, &touched, &kept);
                prop_assert_eq!(&known.endpoints, &anew.endpoints);
            } else {
                known = known.with_endpoints(&world, &touched, &kept).unwrap_or(known);
                // What is kept no longer goes with the next resolution.
                prop_assert!(anew.endpoints.iter().all(|(cluster, found)| known.endpoints.get(cluster) == Some(found)));
            }
            touched.clear();
            let clusters = |output: &Output| {
                output.gateways.iter().map(|(key, one)| (key.clone(), one.clusters.clone())).collect::<Vec<_>>()
            };
            prop_assert_eq!(clusters(&known), clusters(&anew));
        }
    }
}
