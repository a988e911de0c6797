//! Reports as the control plane gets them.

use std::{path::Path, time::Duration};

use meshwright_proto::reports::Slot;

use super::fake::{Agent, ControlPlane, args, eventually};
use crate::{admin::Traffic, drain::Phase};

fn happen(agent: &Agent, start: i64) {
    let slot = Slot { start, success: 1, ..Slot::default() };
    agent.observed.send_modify(|observed| {
        observed.ring.add(slot, start + 5);
        observed.traffic = Traffic { connections: 3, active_requests: 2, requests: 90 };
    });
}

/// Starts of the slots in the last report.
fn last(control_plane: &ControlPlane) -> Vec<i64> {
    let reports = control_plane.reports();
    reports.last().map(|report| report.slots.iter().map(|slot| slot.start).collect()).unwrap_or_default()
}

fn agent(control_plane: &ControlPlane, dir: &Path) -> Agent {
    Agent::without_envoy(&args("gateway-0", control_plane.address.clone(), dir))
}

#[tokio::test]
async fn news_are_told_once_and_a_new_replica_hears_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut control_plane = ControlPlane::start(dir.path()).await;
    let agent = agent(&control_plane, dir.path());
    happen(&agent, 1000);
    happen(&agent, 1005);
    eventually("both", async || last(&control_plane) == [1000, 1005]).await;
    happen(&agent, 1010);
    eventually("one more", async || last(&control_plane) == [1005, 1010]).await;

    let proxy = control_plane.reports().pop().unwrap().proxy.unwrap();
    assert_eq!((proxy.pod_name.as_str(), proxy.pod_namespace.as_str()), ("gateway-0", "shop"));
    assert_eq!((proxy.gateway_name.as_str(), proxy.gateway_namespace.as_str()), ("front", "shop"));
    assert_eq!(proxy.revision, "default-1a2b3c4d");
    assert_eq!((proxy.open_connections, proxy.active_requests), (3, 2));
    assert_eq!((proxy.ready_since, proxy.draining), (0, false));

    control_plane.stop();
    happen(&agent, 1015);
    agent.phase.send_replace(Phase::Draining);
    control_plane.restart().await;
    eventually("all again", async || last(&control_plane) == [1000, 1005, 1010, 1015]).await;
    let again = control_plane.reports().pop().unwrap().proxy.unwrap();
    assert!(again.draining);
    assert_eq!(again.instance, proxy.instance);
    assert_eq!(again.instance.len(), 32);
}

#[tokio::test]
async fn a_control_plane_without_reports_is_asked_once_and_still_configures() {
    let dir = tempfile::tempdir().unwrap();
    let control_plane = ControlPlane::start(dir.path()).await;
    control_plane.knows_no_reports();
    let agent = agent(&control_plane, dir.path());
    happen(&agent, 1000);
    eventually("asked", async || control_plane.report_calls() == 1).await;
    happen(&agent, 1005);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(control_plane.report_calls(), 1);
    assert_eq!(control_plane.signed(), 1);
    assert!(control_plane.saw(|event| matches!(event, meshwright_xds::Event::Subscription { .. })));
}
