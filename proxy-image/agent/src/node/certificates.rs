//! Certificates of the pods on this node, one for each identity. Their keys are made here and stay in memory; Envoy gets both as secrets that
//! are named by the identity.

mod plan;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::Context;
use jiff::Timestamp;
use meshwright_pki::{new_csr, renew_at, validity};
use meshwright_proto::nodes::{SignIdentityRequest, node_service_client::NodeServiceClient};
use meshwright_runtime::CancellationToken;
use meshwright_xds::mesh::caller_secret;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tonic::transport::Channel;

use super::wallet::Wallet;
use crate::{
    identity::{Signed, certificate_secret, roots_secret},
    relay::Relay,
};
use plan::Plan;

/// A signer that does not answer is tried again, not waited for.
const DEADLINE: Duration = Duration::from_secs(15);
/// Timers stand still while the machine is paused, and certificates grow older: how often the two are compared.
const COMPARE: Duration = Duration::from_secs(60);
/// A node with hundreds of service accounts must not keep others waiting.
const AT_ONCE: usize = 8;

/// What the certificates of pods need and tell.
pub struct Outlets {
    /// Identities that need one.
    pub wanted: watch::Receiver<BTreeSet<String>>,
    /// Identities that have one.
    pub certified: watch::Sender<Arc<BTreeSet<String>>>,
    /// The connection of the configuration stream.
    pub connection: watch::Receiver<Option<Channel>>,
    /// Failed requests.
    pub failures: Counter,
    /// Where they are kept for the agent's own calls.
    pub wallet: Wallet,
}

type Outcome = (String, anyhow::Result<Signed>);

/// Gets and renews certificates until `stop`.
pub async fn run(mut outlets: Outlets, relay: &Relay, stop: CancellationToken) {
    let mut plan = Plan::default();
    let mut requests: JoinSet<Outcome> = JoinSet::new();
    let mut compare = tokio::time::interval(COMPARE);
    compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let forgotten = plan.want(&outlets.wanted.borrow_and_update(), Instant::now());
        forgotten.iter().for_each(|identity| outlets.wallet.forget(identity));
        forgotten
            .iter()
            .flat_map(|identity| names(identity))
            .for_each(|name| relay.remove_local_secret(&name));
        let channel = outlets.connection.borrow_and_update().clone();
        if let Some(channel) = channel {
            for identity in plan.begin(Instant::now(), AT_ONCE) {
                requests.spawn(sign(channel.clone(), identity));
            }
        }
        publish(&outlets.certified, &plan);
        tokio::select! {
            Some(ended) = requests.join_next() => match ended {
                Ok((identity, outcome)) => settle(&mut plan, relay, &outlets, identity, outcome),
                Err(e) => tracing::error!(error = %e, "ask for a pod's certificate"),
            },
            changed = outlets.wanted.changed() => if changed.is_err() { return },
            changed = outlets.connection.changed() => match changed {
                // Whoever answers now did not refuse anything yet.
                Ok(()) => plan.hurry(Instant::now()),
                Err(_) => return,
            },
            () = sleep_until(plan.due()) => {}
            _ = compare.tick() => plan.compare(Timestamp::now(), Instant::now()),
            () = stop.cancelled() => return,
        }
    }
}

/// What Envoy calls the certificate of an identity: where its pods are called, and where they call.
fn names(identity: &str) -> [String; 2] {
    [identity.to_owned(), caller_secret(identity)]
}

async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn settle(
    plan: &mut Plan,
    relay: &Relay,
    outlets: &Outlets,
    identity: String,
    outcome: anyhow::Result<Signed>,
) {
    if !plan.wants(&identity) {
        return;
    }
    let install = |signed: Signed| {
        outlets.wallet.keep(&identity, &signed)?;
        install(relay, &identity, &signed)
    };
    match outcome.and_then(install) {
        Ok(life) => {
            tracing::info!(identity, renew_in = ?life, "got a pod's certificate");
            plan.signed(&identity, Instant::now() + life);
        }
        Err(e) => {
            outlets.failures.inc();
            let delay = plan.failed(&identity, Instant::now());
            tracing::warn!(identity, error = %format!("{e:#}"), ?delay, "get a pod's certificate");
        }
    }
}

/// Returns when it is to be renewed: half-way through its life, give or take.
fn install(relay: &Relay, identity: &str, signed: &Signed) -> anyhow::Result<Duration> {
    let leaf = signed.identity.chain.first().context("find the leaf in the signer's answer")?;
    let life = validity(leaf)?;
    // Envoy gets the anchors before the certificate, as its peers must.
    relay.set_local_secret(roots_secret(&signed.roots));
    for name in names(identity) {
        relay.set_local_secret(certificate_secret(&name, &signed.identity)?);
    }
    let renew = renew_at(life.from, life.until, &mut rand::rng());
    Ok(Duration::try_from(renew.duration_since(Timestamp::now())).unwrap_or_default())
}

fn publish(certified: &watch::Sender<Arc<BTreeSet<String>>>, plan: &Plan) {
    let now = plan.certified();
    certified.send_if_modified(|known| {
        let changed = **known != now;
        if changed {
            *known = Arc::new(now);
        }
        changed
    });
}

async fn sign(channel: Channel, identity: String) -> Outcome {
    let signed =
        tokio::time::timeout(DEADLINE, exchange(channel, &identity)).await.context("wait for the signer");
    (identity, signed.and_then(|signed| signed))
}

async fn exchange(channel: Channel, identity: &str) -> anyhow::Result<Signed> {
    let expected = identity.parse()?;
    let (key, csr_der) = new_csr()?;
    let request = SignIdentityRequest { csr_der, identity: identity.to_owned() };
    let answer =
        NodeServiceClient::new(channel).sign_identity(request).await.context("ask for a certificate")?;
    Signed::verified(answer.into_inner(), key, &expected)
}
