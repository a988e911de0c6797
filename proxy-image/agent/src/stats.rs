//! What clients got from this proxy, from Envoy's statistics.
//!
//! [`answer`] is what Envoy says, [`reading`] parses them, [`slot`] compares two readings, [`ring`] keeps the slots of the last hour. Only this file asks Envoy.

pub mod answer;
pub mod reading;
pub mod ring;
pub mod slot;

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use meshwright_runtime::CancellationToken;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use crate::admin::{self, Traffic};
use reading::Reading;
use ring::Ring;

/// After the end of a slot; timers and the clock do not agree to the millisecond.
const MARGIN: Duration = Duration::from_millis(50);

/// What is known of the traffic.
#[derive(Debug, Default)]
pub struct Observed {
    /// What happened.
    pub ring: Ring,
    /// What clients do at this moment.
    pub traffic: Traffic,
}

/// The state of Envoy that the next one is compared with.
struct Last {
    reading: Reading,
    at: Timestamp,
    restarts: u64,
}

/// Reads at the end of every slot until `stop`. To read more often tells nothing more: Envoy merges its histograms every five seconds, and
/// each reading costs it a look at all its statistics.
pub async fn observe(
    socket: &Path,
    restarts: &Counter,
    observed: &watch::Sender<Observed>,
    stop: CancellationToken,
) {
    let mut last = Last { reading: Reading::default(), at: Timestamp::now(), restarts: restarts.get() };
    let mut failing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(slot::rest(Timestamp::now()) + MARGIN) => {}
            () = stop.cancelled() => return,
        }
        let before = restarts.get();
        match read(socket).await {
            // From which Envoy is it?
            Ok(_) if restarts.get() != before => {}
            Ok(reading) => {
                failing = false;
                let now = Last { reading, at: Timestamp::now(), restarts: before };
                observed.send_modify(|observed| observed.take(&last, &now));
                last = now;
                continue;
            }
            Err(e) if failing => tracing::debug!(error = %format!("{e:#}"), "read envoy's statistics"),
            Err(e) => {
                failing = true;
                tracing::warn!(error = %format!("{e:#}"), "read envoy's statistics");
            }
        }
        // What has not changed is news, too: the proxy is alive.
        observed.send_modify(|_| {});
    }
}

impl Observed {
    fn take(&mut self, last: &Last, now: &Last) {
        let nothing = Reading::default();
        // Another Envoy may already have counted further than the one before.
        let before = if last.restarts == now.restarts { &last.reading } else { &nothing };
        let slot = slot::between(before, &now.reading, slot::start(last.at, now.at));
        self.ring.add(slot, now.at.as_second());
        self.traffic = now.reading.traffic;
    }
}

async fn read(socket: &Path) -> anyhow::Result<Reading> {
    let (status, body) = admin::request(socket, Method::GET, &reading::path()).await?;
    ensure!(status == StatusCode::OK, "envoy answered {status} when asked for its statistics");
    Reading::parse(&body).context("parse envoy's statistics")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64, restarts: u64, success: u64) -> Last {
        let stats = serde_json::json!({"stats": [{"name": "http.shop/front/80.downstream_rq_2xx", "value": success}]});
        let reading = Reading::parse(stats.to_string().as_bytes()).unwrap();
        Last { reading, at: Timestamp::from_second(second).unwrap(), restarts }
    }

    #[test]
    fn an_envoy_that_started_again_counts_from_zero_even_if_it_is_further_than_the_last() {
        let mut observed = Observed::default();
        let (first, crashed, next) = (at(1000, 0, 3), at(1005, 1, 5), at(1010, 1, 6));
        observed.take(&first, &crashed);
        observed.take(&crashed, &next);
        let success: Vec<_> =
            observed.ring.since(None).iter().map(|slot| (slot.start, slot.success)).collect();
        assert_eq!(success, [(1000, 5), (1005, 1)]);
    }
}
