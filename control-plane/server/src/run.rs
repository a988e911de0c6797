//! Start and end of the control plane, as a list.

use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::runtime::events::{Recorder, Reporter};
use meshwright_api::names;
use meshwright_core::ControllerConfig;
use meshwright_index::{Index, Metrics, Setup};
use meshwright_k8s::{LeaseConfig, lease};
use meshwright_pki::SpiffeId;
use meshwright_runtime::{Readiness, Shutdown, admin::Admin, install_crypto, telemetry};
use prometheus_client::registry::Registry;

use crate::ads::{Ads, Gateways, Nacks};
use crate::args::Args;
use crate::authority::{Serving, SigningAuthority};
use crate::certificates::{self, Certificates, Reviewer};
use crate::{grpc, publish, status};

/// Runs until SIGTERM, or until a part that nothing works without has ended.
pub async fn run(args: Args) -> Result<()> {
    install_crypto();
    let telemetry = telemetry::init("control-plane", &args.telemetry)?;
    let shutdown = Shutdown::on_signals()?;
    let (drain, readiness, mut registry) = (shutdown.drain(), Readiness::default(), Registry::default());
    let client = kube::Client::try_default().await.context("configure a client for the API server")?;

    let (authority, first) = SigningAuthority::load(&args.issuing_ca, serving(&args)?, Timestamp::now())?;
    let index = Index::spawn(setup(&args, &client, &readiness, &mut registry), &drain);
    let (gateways, nacks) = (Gateways::default(), Nacks::default());
    let ads = Ads::new(&args.trust_domain, gateways.clone(), nacks.clone(), drain.clone(), &mut registry);
    let reviewer = Reviewer::new(client.clone(), &args.trust_domain);
    let metrics = certificates::Metrics::register(&mut registry);
    let certificates = Certificates::new(authority.clone(), reviewer, args.workload_ttl, metrics);
    let config = LeaseConfig::for_revision(&args.pod_namespace, names::status_lease(&args.mesh_name), &args.pod_name, &args.revision);
    let mut status_lease = lease::spawn(client.clone(), config, drain.clone());

    tokio::spawn(authority.clone().follow(first, drain.clone()));
    tokio::spawn(publish::run(index.clone(), gateways, nacks, drain.clone()));
    let admin = Admin::new(readiness, Arc::new(registry), telemetry.level());
    tokio::select! {
        ended = admin.serve(args.admin.admin_addr, drain.clone()) => ended.context("admin server")?,
        ended = grpc::serve(args.xds_address, authority, ads, certificates, drain.clone()) => ended?,
        ended = status::run(client, index, status_lease.leadership(), drain.clone()) => ended.context("status writer")?,
        ended = status_lease.ended() => ended.context("status lease")?,
    }
    drain.cancel();
    Ok(())
}

fn serving(args: &Args) -> Result<Serving> {
    let id = SpiffeId::workload(&args.trust_domain, &args.pod_namespace, &args.service_account)?;
    let service = format!("{}.{}.svc", args.revision, args.pod_namespace);
    let dns_names = vec![format!("{service}.cluster.local"), service];
    Ok(Serving { id, dns_names, ttl: args.workload_ttl })
}

fn setup(args: &Args, client: &kube::Client, readiness: &Readiness, registry: &mut Registry) -> Setup {
    let reporter = Reporter { controller: meshwright_api::CONTROLLER_NAME.to_owned(), instance: Some(args.pod_name.clone()) };
    Setup {
        client: client.clone(),
        recorder: Recorder::new(client.clone(), reporter),
        controller: ControllerConfig::default(),
        readiness: readiness.clone(),
        metrics: Metrics::register(registry),
    }
}
