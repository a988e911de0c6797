//! Bad versions, which upgrades must recognise: each is this control plane with one fault, chosen by the environment variable `FAULT`. Only
//! images for end-to-end tests are built with the cargo feature that this file belongs to.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use envoy_types::pb::envoy::config::core::v3::{address, socket_address};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener, filter};
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_filter,
};
use envoy_types::pb::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};
use envoy_types::pb::google::protobuf;
use envoy_types::util::pack_any;
use meshwright_xds::{Resource, Snapshot, TypeUrl};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tonic::Status;

/// How much is lost each second.
const LEAK: usize = 3 * 1024 * 1024;
/// In percent of requests.
const ERRORS: u32 = 2;
const DELAY_NANOS: i32 = 100_000_000;

/// What is wrong with this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process ends at once.
    CrashAtStart,
    /// The process ends after a minute.
    CrashAfterAMinute,
    /// Streams are accepted and never answered.
    SilentXds,
    /// Envoy refuses each listener.
    RejectedConfiguration,
    /// Each table of routes lacks its last.
    LostRoute,
    /// Some requests are answered with 503.
    Errors,
    /// Each request takes longer.
    Slow,
    /// Nobody gets a certificate.
    RefusedCertificates,
    /// Memory is never given back.
    Leak,
}

const NAMES: [(&str, Fault); 9] = [
    ("crash-at-start", Fault::CrashAtStart),
    ("crash-after-a-minute", Fault::CrashAfterAMinute),
    ("silent-xds", Fault::SilentXds),
    ("rejected-configuration", Fault::RejectedConfiguration),
    ("lost-route", Fault::LostRoute),
    ("errors", Fault::Errors),
    ("slow", Fault::Slow),
    ("refused-certificates", Fault::RefusedCertificates),
    ("leak", Fault::Leak),
];

fn parse(name: &str) -> Option<Fault> {
    NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, fault)| fault)
}

/// The fault of this process, if it has one.
pub fn chosen() -> Option<Fault> {
    static CHOSEN: OnceLock<Option<Fault>> = OnceLock::new();
    *CHOSEN.get_or_init(|| parse(&std::env::var("FAULT").ok()?))
}

/// Begins what goes on by itself.
///
/// # Errors
/// When there is no such fault, or the fault is to end here.
pub fn start(tasks: &mut JoinSet<&'static str>) -> anyhow::Result<()> {
    if let Ok(name) = std::env::var("FAULT") {
        parse(&name).with_context(|| format!("FAULT {name:?} is not a known fault"))?;
        tracing::warn!(fault = name, "this is a bad version on purpose");
    }
    match chosen() {
        Some(Fault::CrashAtStart) => anyhow::bail!("crash at start, as asked for"),
        Some(Fault::CrashAfterAMinute) => drop(tasks.spawn(async {
            sleep(Duration::from_secs(60)).await;
            "crash after a minute, as asked for,"
        })),
        Some(Fault::Leak) => drop(tasks.spawn(leak())),
        _ => {}
    }
    Ok(())
}

async fn leak() -> &'static str {
    let mut lost = Vec::new();
    loop {
        // Written to, or the kernel would not count it.
        lost.push(vec![1_u8; LEAK]);
        black_box(&lost);
        sleep(Duration::from_secs(1)).await;
    }
}

/// Whether certificates are signed.
///
/// # Errors
/// When they are not.
pub fn certificates(fault: Option<Fault>) -> Result<(), Status> {
    match fault {
        Some(Fault::RefusedCertificates) => Err(Status::permission_denied("refused, as asked for")),
        _ => Ok(()),
    }
}

/// What streams are made from.
pub fn heard(
    fault: Option<Fault>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> watch::Receiver<Arc<Snapshot>> {
    // Kept for ever: a stream ends when nobody can publish any more.
    static NOTHING: OnceLock<watch::Sender<Arc<Snapshot>>> = OnceLock::new();
    match fault {
        Some(Fault::SilentXds) => {
            NOTHING.get_or_init(|| watch::Sender::new(Arc::new(Snapshot::unknown()))).subscribe()
        }
        _ => snapshots,
    }
}

/// What is published of a Gateway's resources.
pub fn distorted(fault: Option<Fault>, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
    let managers = |listener: &mut Listener, fault: HttpFault| {
        listener.filter_chains.iter_mut().for_each(|chain| inject(chain, &fault));
    };
    Arc::new(match fault {
        Some(Fault::RejectedConfiguration) => each(&snapshot, TypeUrl::Listener, reject),
        Some(Fault::LostRoute) => each(&snapshot, TypeUrl::Route, lose_route),
        Some(Fault::Errors) => each(&snapshot, TypeUrl::Listener, |proto| managers(proto, abort())),
        Some(Fault::Slow) => each(&snapshot, TypeUrl::Listener, |proto| managers(proto, delay())),
        _ => return snapshot,
    })
}

/// The snapshot with every resource of this type changed.
fn each<T: Message + Default + prost::Name>(
    snapshot: &Snapshot,
    kind: TypeUrl,
    change: impl Fn(&mut T),
) -> Snapshot {
    let mut changed = snapshot.clone();
    for resource in snapshot.resources(kind).into_iter().flat_map(|all| all.iter()) {
        if let Ok(mut proto) = T::decode(resource.body().value.as_slice()) {
            change(&mut proto);
            changed.edit(kind).insert(Resource::new(resource.name().clone(), pack_any(proto)));
        }
    }
    changed
}

/// No port is as large.
fn reject(listener: &mut Listener) {
    let address = listener.address.as_mut().and_then(|address| address.address.as_mut());
    if let Some(address::Address::SocketAddress(socket)) = address {
        socket.port_specifier = Some(socket_address::PortSpecifier::PortValue(70_000));
    }
}

fn lose_route(table: &mut RouteConfiguration) {
    // Hosts of other listeners are there only to be refused.
    let own = |name: &str| !name.starts_with("misdirected/");
    let mut hosts = table.virtual_hosts.iter_mut().rev();
    if let Some(host) = hosts.find(|host| own(&host.name) && !host.routes.is_empty()) {
        host.routes.pop();
    }
}

fn percent(numerator: u32) -> Option<FractionalPercent> {
    Some(FractionalPercent { numerator, denominator: DenominatorType::Hundred as i32 })
}

fn abort() -> HttpFault {
    let error_type = Some(fault_abort::ErrorType::HttpStatus(503));
    let abort = FaultAbort { percentage: percent(ERRORS), error_type, ..FaultAbort::default() };
    HttpFault { abort: Some(abort), ..HttpFault::default() }
}

fn delay() -> HttpFault {
    let time = protobuf::Duration { seconds: 0, nanos: DELAY_NANOS };
    let fixed = Some(fault_delay::FaultDelaySecifier::FixedDelay(time));
    let delay = FaultDelay { percentage: percent(100), fault_delay_secifier: fixed };
    HttpFault { delay: Some(delay), ..HttpFault::default() }
}

/// Puts the fault before the chain's other HTTP filters.
fn inject(chain: &mut FilterChain, fault: &HttpFault) {
    for filter in &mut chain.filters {
        let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else { continue };
        let Ok(mut manager) = HttpConnectionManager::decode(any.value.as_slice()) else { continue };
        let fault = HttpFilter {
            name: "envoy.filters.http.fault".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack_any(fault.clone()))),
            ..HttpFilter::default()
        };
        manager.http_filters.insert(0, fault);
        *any = pack_any(manager);
    }
}

#[cfg(test)]
mod tests;
