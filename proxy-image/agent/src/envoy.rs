//! Envoy as a child process.

use std::{process::ExitStatus, time::Duration};

use anyhow::Context;
use meshwright_runtime::CancellationToken;
use rustix::process::{WaitId, WaitIdOptions};
use serde_json::Value;
use tokio::{process::Child, time::Instant};

use crate::{args::Proxy, backoff::Backoff};

/// How long Envoy may take to exit when told to.
const EXIT_DEADLINE: Duration = Duration::from_secs(5);

/// Runs Envoy until `stop`, each time with a new bootstrap; a crash costs the seconds of a restart, its configuration comes from the agent's
/// memory.
pub async fn supervise(
    proxy: &Proxy,
    bootstrap: impl Fn() -> Value,
    stop: CancellationToken,
    restarted: impl Fn(),
) -> anyhow::Result<()> {
    let path = proxy.run_dir.join("bootstrap.json");
    tokio::spawn(reap_orphans(stop.clone()));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    loop {
        let started = Instant::now();
        let text = serde_json::to_vec_pretty(&bootstrap())?;
        tokio::fs::write(&path, text).await.with_context(|| format!("write {}", path.display()))?;
        let mut child = spawn(proxy, &path)?;
        tokio::select! {
            status = child.wait() => {
                // An error only means that the orphan reaper was faster.
                let status = status.map_or_else(|e| e.to_string(), |status: ExitStatus| status.to_string());
                if stop.is_cancelled() {
                    return Ok(());
                }
                backoff.ran_for(started.elapsed());
                let delay = backoff.next_delay();
                tracing::error!(%status, ?delay, "envoy ended, starting it again");
                restarted();
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    () = stop.cancelled() => return Ok(()),
                }
            }
            () = stop.cancelled() => return end(proxy, child).await,
        }
    }
}

fn spawn(proxy: &Proxy, bootstrap: &std::path::Path) -> anyhow::Result<Child> {
    // Left by a killed Envoy; it does not replace the file itself.
    match std::fs::remove_file(proxy.admin_socket()) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(error = %e, "remove old admin socket");
        }
        _ => {}
    }
    tokio::process::Command::new(&proxy.envoy)
        .arg("-c")
        .arg(bootstrap)
        .args(["--concurrency", &proxy.workers().to_string()])
        .args(["--log-level", &proxy.envoy_log_level])
        // On drain every answer says `Connection: close` at once: nobody is helped by leaving some clients until
        // the end. Envoy cuts WebSockets from 70 % of the drain time on, and they are to live until our deadline.
        .args(["--drain-strategy", "immediate"])
        .args(["--drain-time-s", &(2 * proxy.drain_deadline.as_secs()).max(1).to_string()])
        .arg("--disable-hot-restart")
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("start {}", proxy.envoy.display()))
}

async fn end(proxy: &Proxy, mut child: Child) -> anyhow::Result<()> {
    if let Err(e) = crate::admin::post(&proxy.admin_socket(), "/quitquitquit").await {
        tracing::warn!(error = %format!("{e:#}"), "ask envoy to quit");
    }
    match tokio::time::timeout(EXIT_DEADLINE, child.wait()).await {
        Ok(status) => tracing::info!(status = ?status, "envoy ended"),
        Err(_) => child.kill().await.context("kill envoy")?,
    }
    Ok(())
}

// As PID 1 we inherit every orphan of the container.
async fn reap_orphans(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    if std::process::id() != 1 {
        return;
    }
    let Ok(mut ended) = signal(SignalKind::child()) else {
        tracing::warn!("watch SIGCHLD; orphans will stay zombies");
        return;
    };
    loop {
        tokio::select! {
            _ = ended.recv() => {}
            () = stop.cancelled() => return,
        }
        // Gives tokio the time to take its own child first; an orphan does not mind waiting.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Ok(Some(status)) = rustix::process::waitid(WaitId::All, options) {
            tracing::debug!(?status, "reaped an orphan");
        }
    }
}
