use std::sync::Arc;

use super::*;
use crate::model::{EndpointPort, Meta, Service, ServicePort, ServiceType};

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort { name: name.to_owned(), port: number, protocol: "TCP".to_owned(), app_protocol: None }
}

fn endpoint(address: &str, ready: bool, serving: bool, terminating: bool) -> SliceEndpoint {
    SliceEndpoint {
        addresses: vec![address.to_owned()],
        ready,
        serving,
        terminating,
        zone: Some("zone-a".to_owned()),
        node: None,
    }
}

fn slice(ports: &[(&str, u16)], endpoints: Vec<SliceEndpoint>) -> Arc<EndpointSlice> {
    let ports = ports.iter().map(|(name, port)| EndpointPort {
        name: (*name).to_owned(),
        port: Some(*port),
        protocol: "TCP".to_owned(),
    });
    Arc::new(EndpointSlice {
        service: ObjectKey::new("shop", "cart"),
        fqdn: false,
        ports: ports.collect(),
        endpoints,
    })
}

fn world(slices: Vec<Arc<EndpointSlice>>) -> World {
    let mut world = World::default();
    let key = ObjectKey::new("shop", "cart");
    let service = Service {
        meta: Meta::new("shop", "cart", 1, 0),
        kind: ServiceType::Cluster,
        headless: true,
        has_selector: false,
        balancing: Default::default(),
        cluster_ips: Vec::new(),
        ports: vec![port("http", 8080), port("admin", 9090)],
    };
    world.services.insert(key.clone(), Arc::new(service));
    let slices = slices.into_iter().enumerate().map(|(index, slice)| (format!("cart-{index}"), slice));
    world.endpoint_slices.insert(key, slices.collect());
    world
}

fn addresses(endpoints: &Endpoints) -> Vec<(String, u16, EndpointHealth)> {
    endpoints
        .zones
        .values()
        .flatten()
        .map(|found| (found.address.clone(), found.port, found.health))
        .collect()
}

#[test]
fn a_port_is_found_by_its_name_not_its_number() {
    let world =
        world(vec![slice(&[("http", 3000), ("admin", 8080)], vec![endpoint("10.0.0.1", true, true, false)])]);
    let key = ObjectKey::new("shop", "cart");
    assert_eq!(
        addresses(&endpoints(&world, &key, 8080)),
        [("10.0.0.1".to_owned(), 3000, EndpointHealth::Ready)]
    );
    assert_eq!(
        addresses(&endpoints(&world, &key, 9090)),
        [("10.0.0.1".to_owned(), 8080, EndpointHealth::Ready)]
    );
    assert!(endpoints(&world, &key, 3000).is_empty());
}

#[test]
fn terminating_pods_drain_while_they_serve_and_unready_ones_are_left_out() {
    let world = world(vec![slice(
        &[("http", 3000)],
        vec![
            endpoint("10.0.0.1", true, true, false),
            endpoint("10.0.0.2", false, true, true),
            endpoint("10.0.0.3", false, false, true),
            endpoint("10.0.0.4", false, false, false),
        ],
    )]);
    let found = endpoints(&world, &ObjectKey::new("shop", "cart"), 8080);
    assert_eq!(
        addresses(&found),
        [
            ("10.0.0.1".to_owned(), 3000, EndpointHealth::Ready),
            ("10.0.0.2".to_owned(), 3000, EndpointHealth::Draining)
        ]
    );
    assert!(found.has_ready());
}

#[test]
fn an_address_in_two_slices_counts_once_and_ready_wins() {
    let world = world(vec![
        slice(&[("http", 3000)], vec![endpoint("10.0.0.1", false, true, true)]),
        slice(&[("http", 3000)], vec![endpoint("10.0.0.1", true, true, false)]),
    ]);
    let found = endpoints(&world, &ObjectKey::new("shop", "cart"), 8080);
    assert_eq!(addresses(&found), [("10.0.0.1".to_owned(), 3000, EndpointHealth::Ready)]);
}

mod nearness {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Near;

    fn some() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
        proptest::collection::vec((0_u8..3, 0_u8..3, any::<bool>()), 0..8)
    }

    /// Endpoints on nodes `<zone>-<number>`; zone 0 has no name.
    fn spread(all: &[(u8, u8, bool)]) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for (index, (zone, node, ready)) in all.iter().enumerate() {
            let name = if *zone == 0 { String::new() } else { format!("z{zone}") };
            let health = if *ready { EndpointHealth::Ready } else { EndpointHealth::Draining };
            let (address, node) = (format!("10.0.0.{index}"), Some(format!("{zone}-{node}")));
            endpoints.zones.entry(name).or_default().push(Endpoint { address, port: 80, health, node });
        }
        endpoints
    }

    fn flat(endpoints: &Endpoints) -> Vec<(&String, &Endpoint)> {
        endpoints.zones.iter().flat_map(|(zone, all)| all.iter().map(move |one| (zone, one))).collect()
    }

    proptest! {
        #[test]
        fn a_client_gets_what_is_near_if_there_is_any_and_never_loses_the_last_ready_one(
            all in some(), zone in 1_u8..3, number in 0_u8..3,
        ) {
            let endpoints = spread(&all);
            let (node, zone) = (format!("{zone}-{number}"), format!("z{zone}"));
            let of = |near| endpoints.near(near, &node, Some(&zone)).unwrap_or_else(|| endpoints.clone());
            let ready = |wanted: &dyn Fn(&String, &Endpoint) -> bool| {
                flat(&endpoints).iter().any(|(of, one)| one.health == EndpointHealth::Ready && wanted(of, one))
            };
            let on_node = |_: &String, one: &Endpoint| one.node.as_ref() == Some(&node);
            let in_zone = |of: &String, _: &Endpoint| *of == zone;
            for near in [Near::Anywhere, Near::Zone, Near::Node, Near::NodeOnly] {
                let found = of(near);
                let all_of = |wanted: &dyn Fn(&String, &Endpoint) -> bool| -> Vec<(&String, &Endpoint)> {
                    flat(&endpoints).into_iter().filter(|(of, one)| wanted(of, one)).collect()
                };
                let everything = |_: &String, _: &Endpoint| true;
                let expected = match near {
                    Near::NodeOnly => all_of(&on_node),
                    Near::Node if ready(&on_node) => all_of(&on_node),
                    Near::Zone | Near::Node if ready(&in_zone) => all_of(&in_zone),
                    _ => all_of(&everything),
                };
                prop_assert_eq!(flat(&found), expected, "{:?}", near);
                prop_assert!(near == Near::NodeOnly || found.has_ready() == endpoints.has_ready());
            }
            prop_assert_eq!(endpoints.near(Near::Zone, &node, None), None, "nobody knows its zone");
        }
    }
}
