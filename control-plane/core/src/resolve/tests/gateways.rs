//! Statuses of classes, Gateways and listeners.

use std::sync::Arc;

use super::fixtures::*;
use crate::features::SUPPORTED_FEATURES;
use crate::model::*;

fn bad_kind(kind: &str) -> RouteGroupKind {
    RouteGroupKind { group: GATEWAY_GROUP.to_owned(), kind: kind.to_owned() }
}

#[test]
fn our_class_is_accepted_and_others_are_left_alone() {
    let mut world = world();
    let other = GatewayClass {
        meta: Meta::new("", "other", 1, 0),
        controller_name: "example.com/other".to_owned(),
        parameters_ref: None,
    };
    world.gateway_classes.insert("other".to_owned(), Arc::new(other));
    let resolution = run(&world);
    let status = &resolution.statuses.gateway_classes["meshwright"];
    assert_eq!(state(&status.conditions, "Accepted"), (true, "Accepted"));
    assert_eq!(state(&status.conditions, "SupportedVersion"), (true, "SupportedVersion"));
    assert_eq!(status.supported_features, SUPPORTED_FEATURES);
    assert_eq!(resolution.statuses.gateway_classes.len(), 1);
}

#[test]
fn a_ready_gateway_is_accepted_and_programmed_with_its_addresses() {
    let resolution = run(&world());
    let status = gateway_status(&resolution);
    assert_eq!(state(&status.conditions, "Accepted"), (true, "Accepted"));
    assert_eq!(state(&status.conditions, "Programmed"), (true, "Programmed"));
    assert_eq!(status.addresses.len(), 1);
    assert!(status.conditions.iter().all(|condition| condition.observed_generation == 3));
}

#[test]
fn what_is_missing_below_a_gateway_shows_in_programmed() {
    let key = ObjectKey::new("infra", "gw");
    let with = |observed: GatewayObservation| {
        let mut world = world();
        world.gateway_observations.insert(key.clone(), Arc::new(observed));
        state(&gateway_status(&run(&world)).conditions, "Programmed")
    };
    let deployment = |deployment| GatewayObservation { deployment, ..GatewayObservation::default() };
    assert_eq!(with(deployment(DeploymentState::Progressing)), (false, "Pending"));
    assert_eq!(
        with(deployment(DeploymentState::Failed("exceeded quota".to_owned()))),
        (false, "NoResources")
    );
    assert_eq!(with(deployment(DeploymentState::Ready { ready: 1 })), (false, "AddressNotAssigned"));
    let mut rejected = world();
    rejected.rejections.insert(ObjectId { kind: ObjectKind::Gateway, key }, "bad filter".to_owned());
    assert_eq!(state(&gateway_status(&run(&rejected)).conditions, "Programmed"), (false, "Invalid"));
}

#[test]
fn an_unknown_parameters_ref_refuses_the_gateway_until_it_exists() {
    let mut world = world();
    let reference = ParametersRef {
        group: "meshwright.io".to_owned(),
        kind: "GatewayParameters".to_owned(),
        namespace: None,
        name: "large".to_owned(),
    };
    let infrastructure = Infrastructure { parameters_ref: Some(reference), ..Infrastructure::default() };
    add_gateway(&mut world, Gateway { infrastructure, ..gateway(vec![listener("http", 80, None)]) });
    let resolution = run(&world);
    assert_eq!(state(&gateway_status(&resolution).conditions, "Accepted"), (false, "InvalidParameters"));
    let parameters = GatewayParameters { meta: Meta::new("infra", "large", 1, 0) };
    world.gateway_parameters.insert(parameters.meta.key.clone(), Arc::new(parameters));
    assert_eq!(state(&gateway_status(&run(&world)).conditions, "Accepted"), (true, "Accepted"));
}

#[test]
fn an_unsupported_protocol_spoils_its_listener_and_the_gateway_only_if_alone() {
    let mut world = world();
    let invalid = Listener { protocol: "INVALID".to_owned(), ..listener("invalid", 1111, None) };
    add_gateway(&mut world, gateway(vec![invalid.clone()]));
    let resolution = run(&world);
    assert_eq!(state(&gateway_status(&resolution).conditions, "Accepted"), (false, "ListenersNotValid"));
    add_gateway(&mut world, gateway(vec![listener("http", 80, None), invalid]));
    let resolution = run(&world);
    assert_eq!(state(&gateway_status(&resolution).conditions, "Accepted"), (true, "ListenersNotValid"));
    let status = listener_status(&resolution, "invalid");
    assert_eq!(state(&status.conditions, "Accepted"), (false, "UnsupportedProtocol"));
    assert!(status.supported_kinds.is_empty());
    assert_eq!(state(&listener_status(&resolution, "http").conditions, "Accepted"), (true, "Accepted"));
}

#[test]
fn unknown_route_kinds_are_reported_and_the_known_ones_kept() {
    let mut world = world();
    let only = Listener { allowed_kinds: vec![bad_kind("InvalidRoute")], ..listener("only", 80, None) };
    let mixed = Listener {
        allowed_kinds: vec![bad_kind("InvalidRoute"), bad_kind("HTTPRoute")],
        ..listener("mixed", 81, None)
    };
    add_gateway(&mut world, gateway(vec![only, mixed]));
    let resolution = run(&world);
    for (name, kinds) in [("only", 0), ("mixed", 1)] {
        let status = listener_status(&resolution, name);
        assert_eq!(state(&status.conditions, "ResolvedRefs"), (false, "InvalidRouteKinds"), "{name}");
        assert_eq!(status.supported_kinds.len(), kinds, "{name}");
    }
}

#[test]
fn listeners_that_cannot_be_told_apart_all_lose() {
    let mut world = world();
    add_gateway(
        &mut world,
        gateway(vec![
            listener("a", 80, Some("example.com")),
            listener("b", 80, Some("Example.com")),
            listener("c", 80, Some("example.org")),
            listener("d", 443, None),
            https("e", None, &[]),
        ]),
    );
    let resolution = run(&world);
    let conflict = |name| state(&listener_status(&resolution, name).conditions, "Conflicted");
    assert_eq!(conflict("a"), (true, "HostnameConflict"));
    assert_eq!(conflict("b"), (true, "HostnameConflict"));
    assert_eq!(conflict("c"), (false, "NoConflicts"));
    assert_eq!(conflict("d"), (true, "ProtocolConflict"));
    assert_eq!(conflict("e"), (true, "ProtocolConflict"));
    assert_eq!(config(&resolution).ports.len(), 1);
}

#[test]
fn a_bad_certificate_unprograms_the_listener_but_not_the_gateway() {
    let mut world = world();
    add_gateway(&mut world, gateway(vec![https("https", None, &[("infra", "absent")])]));
    add_route(&mut world, route("infra", "r", vec![rule("/", "v1")]));
    let check = |world: &World| {
        let resolution = run(world);
        assert_eq!(state(&gateway_status(&resolution).conditions, "Programmed"), (true, "Programmed"));
        let status = listener_status(&resolution, "https");
        assert_eq!(state(&status.conditions, "Programmed"), (false, "Invalid"));
        // Routes attach all the same, and count.
        assert_eq!(status.attached_routes, 1);
        state(&status.conditions, "ResolvedRefs")
    };
    assert_eq!(check(&world), (false, "InvalidCertificateRef"));
    let malformed = SecretState::Malformed("no PEM".to_owned());
    world.secrets.insert(ObjectKey::new("infra", "absent"), Arc::new(malformed));
    assert_eq!(check(&world), (false, "InvalidCertificateRef"));
    add_certificate(&mut world, "infra", "absent");
    let resolution = run(&world);
    assert_eq!(state(&listener_status(&resolution, "https").conditions, "Programmed"), (true, "Programmed"));
}

#[test]
fn a_certificate_elsewhere_needs_a_grant_that_fits_and_is_not_read_without() {
    let mut world = world();
    add_certificate(&mut world, "web", "cert");
    add_gateway(&mut world, gateway(vec![https("https", None, &[("web", "cert")])]));
    let refs = |world: &World| state(&listener_status(&run(world), "https").conditions, "ResolvedRefs");
    // Wrong in one way each.
    grant(&mut world, "infra", ("Gateway", "infra"), ("Secret", None));
    grant(&mut world, "web", ("HTTPRoute", "infra"), ("Secret", None));
    grant(&mut world, "web", ("Gateway", "elsewhere"), ("Secret", None));
    grant(&mut world, "web", ("Gateway", "infra"), ("Service", None));
    grant(&mut world, "web", ("Gateway", "infra"), ("Secret", Some("other")));
    assert_eq!(refs(&world), (false, "RefNotPermitted"));
    assert!(run(&world).secrets.is_empty());
    grant(&mut world, "web", ("Gateway", "infra"), ("Secret", Some("cert")));
    assert_eq!(refs(&world), (true, "ResolvedRefs"));
    assert_eq!(run(&world).secrets, [ObjectKey::new("web", "cert")].into());
}

#[test]
fn a_secret_that_was_not_read_yet_is_not_one_that_is_missing() {
    let mut world = world();
    add_gateway(&mut world, gateway(vec![https("https", None, &[("infra", "cert"), ("web", "foreign")])]));
    let (key, secret) = (ObjectKey::new("infra", "gw"), ObjectKey::new("infra", "cert"));
    let undecided = run(&world).undecided;
    assert_eq!(undecided[&key], [secret.clone()].into(), "what may not be read is not waited for");
    for known in [SecretState::Missing, SecretState::Unreadable(String::new())] {
        world.secrets.insert(secret.clone(), Arc::new(known));
        assert!(run(&world).undecided.is_empty());
    }
}

#[test]
fn addresses_of_other_types_or_owners_are_refused() {
    let with = |kind: AddressType, value: &str| {
        let mut world = world();
        let addresses = vec![RequestedAddress { kind, value: value.to_owned() }];
        add_gateway(&mut world, Gateway { addresses, ..gateway(vec![listener("http", 80, None)]) });
        let resolution = run(&world);
        let conditions = &gateway_status(&resolution).conditions;
        (state(conditions, "Accepted"), state(conditions, "Programmed"))
    };
    let fine = ((true, "Accepted"), (true, "Programmed"));
    assert_eq!(with(AddressType::IpAddress, ""), fine);
    assert_eq!(with(AddressType::IpAddress, "192.0.2.1"), fine);
    assert_eq!(with(AddressType::IpAddress, "192.0.2.9").1, (false, "AddressNotUsable"));
    assert_eq!(with(AddressType::Other("example.com/x".to_owned()), "x").0, (false, "UnsupportedAddress"));
}
