use std::collections::BTreeMap;

use meshwright_api::GatewayApiChannel::{Experimental, Standard};

use super::{Definition, Found, GROUP, REQUIRED, Unusable};

const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";

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
    assert!(none.wants(GATEWAYS, Standard));
    assert!(matches!(none.usable(), Err(Unusable::Absent { .. })));
}

#[test]
fn nothing_is_ever_lowered() {
    for version in ["v1.7.0", "v1.7.3", "v2.0.0"] {
        assert!(!found(version, true).wants(GATEWAYS, Standard), "{version}");
        assert_eq!(found(version, true).usable(), Ok(()));
    }
    assert!(found("v1.6.1", true).wants(GATEWAYS, Standard));
    assert!(found("v1.7.0-rc.1", true).wants(GATEWAYS, Standard));
}

#[test]
fn what_somebody_else_installed_is_left_alone_and_an_old_one_is_reported() {
    let foreign = found("v1.4.0", false);
    assert!(!foreign.wants(GATEWAYS, Standard));
    let error = foreign.usable().unwrap_err();
    assert!(error.to_string().contains("v1.4.0") && error.to_string().contains("v1.7.0"), "{error}");
}

#[test]
fn our_own_definitions_are_widened_and_never_narrowed() {
    assert!(found("v1.7.0", true).wants(GATEWAYS, Experimental));
    assert!(!found("v1.7.1", true).wants(GATEWAYS, Experimental), "another release's are not lowered");
    assert!(!found("v1.7.0", false).wants(GATEWAYS, Experimental), "not ours");
    let mut wide = found("v1.7.0", true);
    wide.0.values_mut().for_each(|d| d.channel = Some("experimental".to_owned()));
    assert!(!wide.wants(GATEWAYS, Standard) && !wide.wants(GATEWAYS, Experimental));
}
