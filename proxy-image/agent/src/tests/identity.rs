//! Certificates and trust anchors when something has gone wrong with those at hand.

use std::{path::Path, time::Duration};

use meshwright_pki::Identity;
use meshwright_runtime::CancellationToken;
use meshwright_xds::{Event, TypeUrl};

use super::fake::{Agent, ControlPlane, args, eventually};
use crate::{
    identity::{self, Credentials, Metrics},
    relay::Relay,
};

async fn renews_with(control_plane: &ControlPlane, dir: &Path, shown: &Identity) {
    let args = args("gateway-0", control_plane.address.clone(), dir);
    let credentials = Credentials::new(&args.workload, Metrics::default()).unwrap();
    credentials.identity.set(shown).unwrap();
    let before = control_plane.signed();
    let stop = CancellationToken::new();
    let (own, token) = (credentials.clone(), stop.clone());
    let task =
        tokio::spawn(async move { identity::run(&args.workload, &own, &Relay::default(), token).await });
    eventually("renewed", async || control_plane.signed() > before).await;
    credentials.wait().await;
    stop.cancel();
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_token_gets_a_certificate_whatever_the_old_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    let expired = control_plane.expired_identity("shop", "front-meshwright");
    renews_with(&control_plane, dir.path(), &expired).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = ControlPlane::start(elsewhere.path()).await.identity("shop", "front-meshwright");
    renews_with(&control_plane, dir.path(), &foreign).await;
}

async fn survives_rotation(keep_old: bool) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start(dir.path()).await;
    let args = args("gateway-0", control_plane.address.clone(), dir.path());
    let _agent = Agent::without_envoy(&args);
    let connected = |event: &Event| matches!(event, Event::Subscription { kind: TypeUrl::Listener, .. });
    eventually("connected", async || control_plane.saw(connected)).await;
    assert_eq!(control_plane.signed(), 1);

    control_plane.stop();
    control_plane.rotate(dir.path(), keep_old);
    control_plane.events.lock().unwrap().clear();
    control_plane.restart().await;
    eventually("connected again", async || control_plane.saw(connected)).await;
    eventually("new certificate", async || control_plane.signed() > 1).await;
    // Longer than the test's floor.
    tokio::time::sleep(Duration::from_secs(2)).await;
    control_plane.signed()
}

#[tokio::test]
async fn new_trust_anchors_are_learned_when_the_stream_fails_and_not_only_at_the_next_renewal() {
    assert_eq!(survives_rotation(true).await, 2, "one doubt, one certificate");
}

#[tokio::test]
async fn a_client_certificate_that_is_trusted_no_more_is_replaced_when_the_stream_fails() {
    survives_rotation(false).await;
}
