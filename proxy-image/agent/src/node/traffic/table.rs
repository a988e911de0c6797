//! What Prometheus gets. Of each kind there are so many rows and no more; what comes above that has all its labels `other`.

use std::{collections::BTreeMap, fmt::Write};

use meshwright_xds::mesh::signals::Kind;

use super::{labels, reading::Changes};

/// Rows of a kind; the one for all others is one more.
const MAX_ROWS: usize = 2000;
/// Rows of histograms, which have many lines each.
const MAX_TIMES: usize = 500;
/// A row that nothing was added to for so long goes; seconds. Pods and Services come and go.
const FORGET: i64 = 3600;
/// Upper bounds of the buckets, in seconds.
const BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Name and help of the metric of each kind.
const METRICS: [(Kind, &str, &str); 11] = [
    (Kind::Requests, "requests_total", "HTTP requests of pods that ended, gRPC calls included."),
    (
        Kind::Duration,
        "request_duration_seconds",
        "Time from the first byte of a request to the last of its response.",
    ),
    (Kind::Sent, "sent_bytes_total", "Bytes that pods sent."),
    (Kind::Received, "received_bytes_total", "Bytes that pods got as answers."),
    (Kind::Opened, "connections_opened_total", "Connections of other protocols that reached somebody."),
    (Kind::Closed, "connections_closed_total", "Connections of other protocols that ended."),
    (
        Kind::Unreached,
        "connect_failures_total",
        "Connections over mutual TLS that could not be made, for any protocol.",
    ),
    (Kind::HandshakesFailed, "handshake_failures_total", "Handshakes of mutual TLS that failed."),
    (
        Kind::Accepted,
        "accepted_connections_total",
        "Connections over mutual TLS that pods had accepted, and that ended.",
    ),
    (Kind::AcceptedReceived, "accepted_received_bytes_total", "Bytes that came in by them."),
    (Kind::AcceptedSent, "accepted_sent_bytes_total", "Bytes that went out by them."),
];

/// Rows by the values of their labels.
type Rows<T> = BTreeMap<Vec<String>, Row<T>>;

#[derive(Debug, Default)]
struct Row<T> {
    value: T,
    /// Unix seconds.
    last: i64,
}

#[derive(Debug, Default)]
struct Times {
    /// Not added up yet; the last is above all bounds.
    buckets: [u64; BOUNDS.len() + 1],
    sum: f64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Table {
    counts: BTreeMap<Kind, Rows<u64>>,
    times: Rows<Times>,
}

impl Table {
    /// Adds what happened, and forgets rows of which nothing was heard for long.
    pub fn add(&mut self, changes: &Changes, now: i64) {
        for (series, more) in &changes.counts {
            let rows = self.counts.entry(series.kind).or_default();
            *row(rows, series.kind, labels::values(series), MAX_ROWS, now) += more;
        }
        for (kind, more) in &changes.unlabelled {
            let rows = self.counts.entry(*kind).or_default();
            *row(rows, *kind, labels::other(*kind), 0, now) += more;
        }
        for (series, recorded) in &changes.times {
            let times = row(&mut self.times, Kind::Duration, labels::values(series), MAX_TIMES, now);
            for (milliseconds, count) in recorded {
                times.add(milliseconds / 1000.0, *count);
            }
        }
        self.counts.values_mut().for_each(|rows| rows.retain(|_, row| row.last > now - FORGET));
        self.times.retain(|_, row| row.last > now - FORGET);
    }

    /// In the older text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (kind, name, help) in METRICS {
            let name = format!("meshwright_{name}");
            let of = if kind == Kind::Duration { "histogram" } else { "counter" };
            let mut lines = String::new();
            if kind == Kind::Duration {
                self.times.iter().for_each(|(values, row)| row.value.write(&mut lines, &name, values));
            }
            for (values, row) in self.counts.get(&kind).into_iter().flatten() {
                // Writing to a String cannot fail, here and below.
                let _ = writeln!(lines, "{name}{} {}", labels::written(kind, values, None), row.value);
            }
            if !lines.is_empty() {
                let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {of}\n{lines}");
            }
        }
        text
    }
}

/// The row of these labels, or, where there are too many already, that of all others.
fn row<T: Default>(rows: &mut Rows<T>, kind: Kind, values: Vec<String>, most: usize, now: i64) -> &mut T {
    let fits = rows.contains_key(&values) || rows.len() < most;
    let row = rows.entry(if fits { values } else { labels::other(kind) }).or_default();
    row.last = now;
    &mut row.value
}

impl Times {
    fn add(&mut self, seconds: f64, count: u64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket] += count;
        // Counts are far below what a float cannot tell apart any more.
        #[allow(clippy::cast_precision_loss)]
        let count = count as f64;
        self.sum += seconds * count;
    }

    fn write(&self, text: &mut String, name: &str, values: &[String]) {
        let mut below = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            below += count;
            let bound = BOUNDS.get(bucket).map_or("+Inf".to_owned(), f64::to_string);
            let labels = labels::written(Kind::Duration, values, Some(("le", &bound)));
            let _ = writeln!(text, "{name}_bucket{labels} {below}");
        }
        let labels = labels::written(Kind::Duration, values, None);
        let _ = writeln!(text, "{name}_sum{labels} {}\n{name}_count{labels} {below}", self.sum);
    }
}
