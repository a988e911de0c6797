//! The container of a node's proxy that runs Envoy. It knows nothing of pods and needs no agent: while that is away, Envoy goes on with what it
//! has, and an Envoy that starts meanwhile waits for it.

use std::{path::Path, time::Duration};

use meshwright_runtime::{CancellationToken, Shutdown, telemetry};
use tokio::{net::UnixStream, time::Instant};

use super::{
    args::EnvoyArgs,
    blackhole,
    bootstrap::{Sources, bootstrap},
    netns,
};
use crate::{args::memory_limit, envoy::supervise};

/// The name of the empty namespace in Envoy's directory.
const BLACK_HOLE: &str = "blackhole";

/// Runs Envoy until SIGTERM, and then until the agent is gone: it ends when nothing is connected any more, or nobody is to wait for that.
///
/// # Errors
/// When Envoy cannot be started.
pub async fn run(args: EnvoyArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let _telemetry = telemetry::init("node-envoy", &args.telemetry)?;
    run_until(args, shutdown).await
}

/// [`run`] without process-wide effects.
///
/// # Errors
/// As there.
pub async fn run_until(args: EnvoyArgs, shutdown: Shutdown) -> anyhow::Result<()> {
    let directory = &args.proxy.run_dir;
    let _namespace = blackhole::make(&directory.join(BLACK_HOLE))?;
    let stop = CancellationToken::new();
    let sources = Sources { black_hole: &directory.join(BLACK_HOLE), ipv4_only: netns::lacks_ipv6() };
    let written = || bootstrap(&args, &format!("{:032x}", rand::random::<u128>()), &sources, memory_limit());
    let socket = args.proxy.xds_socket();
    let end = async {
        shutdown.drain().cancelled().await;
        tokio::select! {
            () = outlive_agent(&socket, args.proxy.drain_deadline) => {}
            () = shutdown.force().cancelled_owned() => {}
        }
        stop.cancel();
    };
    let supervised = supervise(&args.proxy, written, stop.clone(), || {});
    tokio::pin!(supervised);
    tokio::select! {
        ended = &mut supervised => return ended,
        () = end => {}
    }
    supervised.await
}

/// Both containers are told to end in the same moment, and only the agent knows what is connected.
async fn outlive_agent(socket: &Path, deadline: Duration) {
    let end = Instant::now() + deadline;
    while Instant::now() < end && UnixStream::connect(socket).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn envoy_goes_when_its_agent_is_gone_or_at_the_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("xds.sock");
        outlive_agent(&socket, Duration::from_secs(60)).await;
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let begin = Instant::now();
        outlive_agent(&socket, Duration::from_millis(300)).await;
        assert!(begin.elapsed() >= Duration::from_millis(300), "its agent was there");
        drop(listener);
        outlive_agent(&socket, Duration::from_secs(60)).await;
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}
