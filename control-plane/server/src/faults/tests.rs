use std::process::Command;

use envoy_types::pb::envoy::config::bootstrap::v3::{Bootstrap, bootstrap::StaticResources};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use meshwright_proto::inspection::RenderedGateway;

use super::*;
use crate::ads::Registry;
use crate::inspection::render;
use crate::metrics::Metrics;
use crate::nacks::Nacks;
use crate::snapshots::Translator;
use crate::snapshots::tests::output;

/// The snapshot of a Gateway with one port and two routes, and what it was made from.
fn made() -> crate::ads::Published {
    let registry = Registry::default();
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    let mut translator = Translator::new(registry.clone(), Nacks::new(registry.clone()), metrics);
    let output = Arc::new(output(&["a", "b"], &[], "10.0.0.1"));
    translator.publish(output.clone());
    let (key, gateway) = output.gateways.first_key_value().unwrap();
    let snapshot = registry.subscribe(key).borrow().clone();
    (key.clone(), snapshot, gateway.config.clone())
}

fn with(fault: Option<Fault>) -> Arc<Snapshot> {
    distorted(fault, made().1)
}

fn rendered(fault: Option<Fault>) -> RenderedGateway {
    let (key, snapshot, config) = made();
    render(&[(key, distorted(fault, snapshot), config)]).remove(0)
}

fn decoded<T: Message + Default>(snapshot: &Snapshot, kind: TypeUrl) -> T {
    T::decode(snapshot.get(kind, "shop/edge/80").unwrap().body().value.as_slice()).unwrap()
}

/// The first HTTP filter of the port.
fn first_filter(fault: Fault) -> (String, HttpFault) {
    let listener: Listener = decoded(&with(Some(fault)), TypeUrl::Listener);
    let Some(filter::ConfigType::TypedConfig(any)) = &listener.filter_chains[0].filters[0].config_type else {
        panic!("no config")
    };
    let manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
    assert_eq!(manager.http_filters.len(), 2, "the router is still there");
    let Some(http_filter::ConfigType::TypedConfig(any)) = &manager.http_filters[0].config_type else {
        panic!("no config")
    };
    (any.type_url.clone(), HttpFault::decode(any.value.as_slice()).unwrap())
}

/// Names of parts of which the fault changed or took something.
fn touched(fault: Fault) -> Vec<String> {
    let bad = rendered(Some(fault)).parts;
    rendered(None).parts.into_iter().filter(|part| !bad.contains(part)).map(|part| part.name).collect()
}

#[test]
fn each_fault_has_a_name_and_other_names_have_none() {
    for (name, fault) in NAMES {
        assert_eq!(parse(name), Some(fault));
    }
    assert_eq!(parse("none"), None);
}

#[test]
fn without_a_fault_nothing_is_changed() {
    let (_, snapshot, _) = made();
    assert!(Arc::ptr_eq(&distorted(None, snapshot.clone()), &snapshot));
    assert!(Arc::ptr_eq(&distorted(Some(Fault::Leak), snapshot.clone()), &snapshot));
    assert!(certificates(None).is_ok() && certificates(Some(Fault::Slow)).is_ok());
}

#[test]
fn a_rejected_listener_has_a_port_that_there_is_not() {
    let listener: Listener = decoded(&with(Some(Fault::RejectedConfiguration)), TypeUrl::Listener);
    let Some(address::Address::SocketAddress(socket)) = listener.address.unwrap().address else {
        panic!("no address")
    };
    assert_eq!(socket.port_specifier, Some(socket_address::PortSpecifier::PortValue(70_000)));
}

#[test]
fn a_lost_route_is_the_last_one_and_the_comparison_shows_it() {
    let table =
        |fault| decoded::<RouteConfiguration>(&with(fault), TypeUrl::Route).virtual_hosts[0].routes.len();
    assert_eq!((table(None), table(Some(Fault::LostRoute))), (2, 1));
    let names = |fault| rendered(fault).parts.into_iter().map(|part| part.name).collect::<Vec<_>>();
    let (good, bad) = (names(None), names(Some(Fault::LostRoute)));
    let lost: Vec<_> = good.iter().filter(|name| !bad.contains(name)).collect();
    assert_eq!(lost, ["shop/edge/80 * PathPrefix / #2"]);
    assert_eq!(touched(Fault::LostRoute), ["shop/edge/80 *", "shop/edge/80 * PathPrefix / #2"]);
}

#[test]
fn faults_of_requests_are_the_first_filter_of_each_chain() {
    let (kind, errors) = first_filter(Fault::Errors);
    assert!(kind.ends_with("envoy.extensions.filters.http.fault.v3.HTTPFault"), "{kind}");
    let abort = errors.abort.unwrap();
    assert_eq!(
        (abort.error_type, abort.percentage),
        (Some(fault_abort::ErrorType::HttpStatus(503)), percent(2))
    );
    let (_, slow) = first_filter(Fault::Slow);
    let Some(fault_delay::FaultDelaySecifier::FixedDelay(delay)) = slow.delay.unwrap().fault_delay_secifier
    else {
        panic!("no delay")
    };
    assert_eq!((delay.seconds, delay.nanos, slow.delay.unwrap().percentage), (0, 100_000_000, percent(100)));
    assert_eq!(touched(Fault::Errors), ["shop/edge/80"], "a listener that is another, not one that is lost");
}

#[test]
fn no_certificate_is_signed() {
    let refused = certificates(Some(Fault::RefusedCertificates)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_silent_stream_hears_nothing_and_does_not_end() {
    let snapshots = watch::Sender::new(made().1);
    let mut silent = heard(Some(Fault::SilentXds), snapshots.subscribe());
    assert!(silent.borrow_and_update().resources(TypeUrl::Cluster).unwrap().is_partial());
    assert!(silent.has_changed().is_ok(), "somebody could still publish");
    let usual = heard(None, snapshots.subscribe());
    assert!(usual.borrow().get(TypeUrl::Listener, "shop/edge/80").is_some());
}

#[tokio::test(start_paused = true)]
async fn memory_is_lost_bit_by_bit() {
    let task = tokio::spawn(leak());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!task.is_finished());
    task.abort();
}

/// What Envoy says of the distorted listener; None without a binary.
fn validated(fault: Option<Fault>) -> Option<(bool, String)> {
    let envoy = std::env::var_os("ENVOY_BIN")?;
    let mut listener: Listener = decoded(&with(fault), TypeUrl::Listener);
    let Some(filter::ConfigType::TypedConfig(any)) = &mut listener.filter_chains[0].filters[0].config_type
    else {
        panic!("no config")
    };
    let mut manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
    // There is nobody to ask for routes.
    manager.route_specifier = Some(RouteSpecifier::RouteConfig(RouteConfiguration::default()));
    *any = pack_any(manager);
    let bootstrap = Bootstrap {
        static_resources: Some(StaticResources { listeners: vec![listener], ..StaticResources::default() }),
        ..Bootstrap::default()
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bootstrap.pb");
    std::fs::write(&file, bootstrap.encode_to_vec()).unwrap();
    let run = Command::new(envoy).args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
    Some((run.status.success(), String::from_utf8_lossy(&run.stderr).into_owned()))
}

#[test]
fn envoy_refuses_the_rejected_listener_and_takes_the_others() {
    for fault in [None, Some(Fault::Errors), Some(Fault::Slow), Some(Fault::RejectedConfiguration)] {
        let Some((taken, said)) = validated(fault) else {
            eprintln!("ENVOY_BIN is not set: Envoy is not asked");
            return;
        };
        assert_eq!(taken, fault != Some(Fault::RejectedConfiguration), "{fault:?}: {said}");
        assert!(taken || said.contains("PortValue"), "{said}");
    }
}
