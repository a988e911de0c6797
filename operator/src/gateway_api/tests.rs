use std::collections::BTreeMap;

use super::{Definition, Found, GROUP, REQUIRED, Unusable};

fn found(version: &str, ours: bool) -> Found {
    let definition = Definition {
        version: Some(version.to_owned()),
        channel: Some("standard".to_owned()),
        ours,
        established: true,
    };
    Found(REQUIRED.iter().map(|plural| (format!("{plural}.{GROUP}"), definition.clone())).collect())
}

#[test]
fn absent_definitions_are_installed() {
    let none = Found(BTreeMap::new());
    assert!(none.wants("gateways.gateway.networking.k8s.io"));
    assert!(matches!(none.usable(), Err(Unusable::Absent { .. })));
}

#[test]
fn nothing_is_ever_lowered() {
    for version in ["v1.7.0", "v1.7.3", "v2.0.0"] {
        assert!(!found(version, true).wants("gateways.gateway.networking.k8s.io"), "{version}");
        assert_eq!(found(version, true).usable(), Ok(()));
    }
    assert!(found("v1.6.1", true).wants("gateways.gateway.networking.k8s.io"));
    assert!(found("v1.7.0-rc.1", true).wants("gateways.gateway.networking.k8s.io"));
}

#[test]
fn what_somebody_else_installed_is_left_alone_and_an_old_one_is_reported() {
    let foreign = found("v1.4.0", false);
    assert!(!foreign.wants("gateways.gateway.networking.k8s.io"));
    let error = foreign.usable().unwrap_err();
    assert!(error.to_string().contains("v1.4.0") && error.to_string().contains("v1.7.0"), "{error}");
}
