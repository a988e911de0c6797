//! A Gateway that is not accepted: its status says so, and its proxies go on.

use std::sync::Arc;

use super::fixtures::*;
use crate::model::*;
use crate::{ControllerConfig, Resolver};

fn key() -> ObjectKey {
    ObjectKey::new("infra", "gw")
}

/// Three ways not to be accepted.
fn rejected(listeners: &[Listener]) -> [Gateway; 3] {
    let fine = || gateway(listeners.to_vec());
    let mut parameters = fine();
    parameters.infrastructure.parameters_ref = Some(ParametersRef {
        group: MESHWRIGHT_GROUP.to_owned(),
        kind: "GatewayParameters".to_owned(),
        namespace: None,
        name: "deleted".to_owned(),
    });
    let kind = AddressType::Other("example.com/x".to_owned());
    let addresses = vec![RequestedAddress { kind, value: "x".to_owned() }];
    let unsupported_fields = vec!["spec.allowedListeners".to_owned()];
    [parameters, Gateway { addresses, ..fine() }, Gateway { unsupported_fields, ..fine() }]
}

#[test]
fn a_gateway_that_is_not_accepted_serves_what_it_can() {
    let listeners = [listener("http", 80, None)];
    let mut world = world();
    add_route(&mut world, route("infra", "r", vec![rule("/", "v1")]));
    let mut resolver = Resolver::new(ControllerConfig::default());
    let accepted = resolver.resolve(&world);
    for rejected in rejected(&listeners) {
        add_gateway(&mut world, rejected);
        let resolution = run(&world);
        let status = gateway_status(&resolution);
        assert!(!state(&status.conditions, "Accepted").0);
        assert_eq!(state(&status.conditions, "Programmed"), (false, "Invalid"));
        let listener = listener_status(&resolution, "http");
        assert_eq!(state(&listener.conditions, "Accepted"), (true, "Accepted"));
        assert_eq!(state(&listener.conditions, "Programmed"), (false, "Pending"));
        // What is served counts, and says so: others act upon it, for example those who write DNS records.
        assert_eq!(listener.attached_routes, 1);
        let route = parent_status(&resolution, "infra", "r");
        assert_eq!(state(&route.conditions, "Accepted"), (true, "Accepted"));
        assert_eq!(config(&resolution), config(&accepted));
        let next = resolver.resolve(&world);
        assert!(Arc::ptr_eq(&next.gateways[&key()], &accepted.gateways[&key()]), "proxies notice nothing");
    }
    world.gateways.clear();
    assert!(resolver.resolve(&world).gateways.is_empty(), "one that is gone is gone");
}

#[test]
fn what_is_taken_back_is_taken_from_a_rejected_gateway_too() {
    let listeners = [https("https", None, &[("web", "cert")])];
    for rejected in rejected(&listeners) {
        let mut world = world();
        add_certificate(&mut world, "web", "cert");
        add_gateway(&mut world, rejected);
        let certificates = |world: &World| config_of(&run(world), "https").certificates.clone();
        grant(&mut world, "web", ("Gateway", "infra"), ("Secret", None));
        assert_eq!(certificates(&world), [ObjectKey::new("web", "cert")]);
        world.reference_grants.clear();
        assert!(certificates(&world).is_empty());
    }
}

#[test]
fn a_gateway_without_a_valid_listener_opens_no_port() {
    let mut world = world();
    let unknown = Listener { protocol: "INVALID".to_owned(), ..listener("http", 80, None) };
    for rejected in rejected(&[unknown]) {
        add_gateway(&mut world, rejected);
        assert!(config(&run(&world)).ports.is_empty());
    }
}

#[test]
fn a_listener_whose_guard_is_missing_keeps_its_hosts_and_serves_nobody() {
    let mut world = world();
    add_certificate(&mut world, "infra", "cert");
    let unguarded = |listener: Listener| Listener { missing_guard: Some("filters".to_owned()), ..listener };
    let listeners = vec![
        listener("any", 80, None),
        unguarded(listener("guarded", 80, Some("a.example.com"))),
        unguarded(https("https", None, &[("infra", "cert")])),
    ];
    let unsupported_fields = vec!["filters".to_owned()];
    add_gateway(&mut world, Gateway { unsupported_fields, ..gateway(listeners) });
    let hostnames = vec!["a.example.com".to_owned(), "b.example.com".to_owned()];
    add_route(&mut world, HttpRoute { hostnames, ..route("infra", "r", vec![rule("/", "v1")]) });
    let resolution = run(&world);
    for name in ["guarded", "https"] {
        let status = listener_status(&resolution, name);
        assert_eq!(state(&status.conditions, "Accepted"), (false, "UnsupportedValue"));
        assert_eq!(state(&status.conditions, "Programmed"), (false, "Invalid"));
        assert_eq!(status.attached_routes, 0);
    }
    let only = |host: &str, routes: &[&str]| {
        (host.to_owned(), routes.iter().map(|route| (*route).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(hosts(&resolution, "guarded"), [only("a.example.com", &[])]);
    assert_eq!(hosts(&resolution, "any"), [only("*", &[]), only("b.example.com", &["r/0"])]);
    assert!(config_of(&resolution, "https").certificates.is_empty());
}
