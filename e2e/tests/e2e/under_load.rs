//! What platform engineers do all day, under steady load: no request fails. What breaks costs what the loss explains and no more.

use anyhow::Result;
use meshwright_e2e::soak::{self, Action, What};

use crate::env::Env;

/// The load lasts until all is done, in rounds of `seconds`.
async fn under_load(action: Action, seconds: u32, repetition: u32) -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::UnderLoad { action, seconds }, repetition).await
}

#[tokio::test]
async fn route_flips_fail_no_request() -> Result<()> {
    under_load(Action::RouteFlips { flips: 200 }, 20, 0).await
}

#[tokio::test]
async fn a_rolling_restart_of_the_gateway_fails_no_request() -> Result<()> {
    under_load(Action::RollingRestart, 30, 0).await
}

#[tokio::test]
async fn killing_every_control_plane_pod_and_the_operators_leader_fails_no_request() -> Result<()> {
    under_load(Action::ControlPlaneKilled, 30, 0).await
}

#[tokio::test]
async fn the_autoscaler_fails_no_request() -> Result<()> {
    // Down again takes the autoscaler's five minutes: `make soak` waits for that.
    under_load(Action::Autoscale { replicas: &[5] }, 30, 0).await
}

#[tokio::test]
async fn draining_a_node_fails_no_request() -> Result<()> {
    // Each of them in turn is `make soak`'s.
    under_load(Action::Drain, 35, 0).await
}

#[tokio::test]
async fn a_killed_gateway_pod_costs_its_own_connections_only() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::GatewayKilled { seconds: 20 }, 0).await
}

#[tokio::test]
async fn a_lost_node_costs_what_went_to_it_until_its_endpoints_are_gone() -> Result<()> {
    soak::once(&Env::with_mesh().await?, What::NodeLost { seconds: 45 }, 0).await
}
