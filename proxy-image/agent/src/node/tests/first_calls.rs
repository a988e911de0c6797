//! Services that nobody has called yet, of which Envoy has no clusters.

use meshwright_xds::{Event, TypeUrl};

use super::{
    APP, claim,
    leaving::{TCP_SERVICE, before},
    pods,
    real::SERVICE,
    stage::{Stage, names, says},
};
use crate::{
    node::{lab::Lab, sockets::Sockets},
    tests::fake::eventually,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_called_first_while_the_control_plane_is_away() {
    let Some(stage) = Stage::new("old", "A").await else { return };
    let labs = pods();
    labs[1].answers(9001, "app over HTTP");
    labs.iter().for_each(Lab::routes_everything);
    let addresses = labs.each_ref().map(|lab| lab.addresses[0].to_string());
    for (lab, uid) in labs.iter().zip(["u0", "u1"]) {
        stage.wrote_down(uid, lab);
        stage.member(uid, &lab.addresses[..1]);
    }
    stage.publish_mesh(&before(&addresses, None));
    stage.order(|order| order.claim = claim("old", 1));
    let (envoy, agent) = (stage.envoy(), stage.agent().await);
    eventually("captured", async || stage.captured(1) == Some(names(&["u0", "u1"]))).await;
    let [caller, target] = &labs;
    eventually("the pod itself", async || {
        says(caller, target.addresses[0], 9001).await == "app over HTTP"
            && Sockets::of(&target.netns).unwrap().connected(&[15108]) > 0
    })
    .await;
    for name in ["outbound|80|app|shop", "outbound|9000|app-tcp|shop"] {
        let taken = |event: &Event| match event {
            Event::Ack { kind: TypeUrl::Endpoint, resources, .. } => {
                resources.iter().any(|(taken, _)| **taken == *name)
            }
            _ => false,
        };
        eventually("endpoints that nobody has needed", async || stage.saw(taken)).await;
    }

    stage.stop_control_plane();
    assert_eq!(says(caller, SERVICE.parse().unwrap(), 80).await, "app over HTTP");
    assert_eq!(caller.reaches(TCP_SERVICE.parse().unwrap(), 9000, 0), APP);
    agent.kill();
    assert_eq!(
        says(caller, SERVICE.parse().unwrap(), 80).await,
        "app over HTTP",
        "nor is the agent needed now"
    );
    assert_eq!(caller.reaches(TCP_SERVICE.parse().unwrap(), 9000, 0), APP);
    envoy.kill();
}
