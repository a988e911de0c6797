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
