//! What pods of this node sent to whom: read from Envoy's statistics every five seconds, told to Prometheus by all its labels ([`table`]) and to
//! the control plane by pairs of a workload and a Service ([`pairs`], [`report`]). Only this file asks Envoy.

mod labels;
mod pairs;
mod reading;
pub mod report;
mod table;

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use meshwright_runtime::CancellationToken;
use meshwright_xds::mesh::signals::{STATISTICS, prefixes};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use crate::{
    admin,
    stats::{answer, slot},
};
use pairs::Pairs;
use reading::Reading;
use table::Table;

/// After the end of a slot; timers and the clock do not agree to the millisecond.
const MARGIN: Duration = Duration::from_millis(50);

/// What is known of the traffic.
#[derive(Debug, Default)]
pub struct Traffic {
    /// For Prometheus.
    pub table: Table,
    /// For the control plane.
    pub pairs: Pairs,
    last: Option<Last>,
}

/// The state of Envoy that the next one is compared with.
#[derive(Debug)]
struct Last {
    reading: Reading,
    restarts: u64,
}

/// What to ask Envoy for besides: everything but what is read here.
pub fn scrape_path() -> String {
    let own: Vec<_> = prefixes().map(|scope| format!("{scope}.")).to_vec();
    let others = STATISTICS.iter().filter(|prefix| !own.iter().any(|own| own == *prefix));
    let others: Vec<_> = others.map(|prefix| prefix.replace('.', r"\.")).collect();
    let filter = format!("^({})", others.join("|"));
    format!("/stats/prometheus?filter={}", answer::percent_encoded(&filter))
}

/// Reads at the end of every slot of five seconds until `stop`; `restarts` says how often Envoy was started anew.
pub async fn observe(
    socket: &Path,
    restarts: &Counter,
    traffic: &watch::Sender<Traffic>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(slot::rest(Timestamp::now()) + MARGIN) => {}
            () = stop.cancelled() => return,
        }
        let before = restarts.get();
        match read(socket).await {
            // From which Envoy is it?
            Ok(_) if restarts.get() != before => {}
            Ok(reading) => traffic.send_modify(|traffic| traffic.take(reading, before, Timestamp::now())),
            // Its absence is told elsewhere.
            Err(e) => {
                tracing::debug!(error = %format!("{e:#}"), "read envoy's statistics");
                // That nothing changed is news, too: the proxy is there.
                traffic.send_modify(|_| {});
            }
        }
    }
}

impl Traffic {
    fn take(&mut self, reading: Reading, restarts: u64, now: Timestamp) {
        let nothing = Reading::default();
        let last = self.last.as_ref();
        // Another Envoy may already have counted further than the one before.
        let before = last.filter(|last| last.restarts == restarts).map_or(&nothing, |last| &last.reading);
        let changes = reading.since(before);
        let seconds = now.as_second();
        self.table.add(&changes, seconds);
        // What Envoy counted before this process began happened at no time that we know.
        if last.is_some() {
            self.pairs.add(&changes, seconds - 1);
        }
        self.pairs.forget(seconds);
        self.last = Some(Last { reading, restarts });
    }
}

async fn read(socket: &Path) -> anyhow::Result<Reading> {
    let filter = format!(r"^({})\.", prefixes().join("|"));
    let (status, body) = admin::request(socket, Method::GET, &answer::path(&filter)).await?;
    ensure!(status == StatusCode::OK, "envoy answered {status} when asked for its statistics");
    Reading::parse(&body).context("parse envoy's statistics")
}

#[cfg(test)]
mod tests;
