//! What Envoy's administration interface says when it is asked for statistics.

use serde::{Deserialize, de::IgnoredAny};

/// Counters and gauges, and histograms.
#[derive(Debug, Default)]
pub struct Answer {
    /// Full names and values.
    pub numbers: Vec<(String, u64)>,
    /// Those that something was recorded in.
    pub histograms: Vec<Histogram>,
}

/// One histogram.
#[derive(Debug, Deserialize)]
pub struct Histogram {
    /// Its full name.
    pub name: String,
    /// What was recorded since Envoy made it.
    pub totals: Vec<Bin>,
}

/// Values that are about the same.
#[derive(Debug, Deserialize)]
pub struct Bin {
    lower_bound: f64,
    width: f64,
    /// How many.
    pub count: u64,
}

impl Bin {
    /// What they were, of whole numbers that were rounded down: what Envoy says to have taken 6 ms took less than 7.
    pub fn middle(&self) -> f64 {
        self.lower_bound + self.width.max(1.0) / 2.0
    }
}

#[derive(Deserialize)]
struct Text {
    stats: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Number { name: String, value: u64 },
    Histograms { histograms: Histograms },
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Histograms {
    #[serde(default)]
    details: Vec<Histogram>,
}

/// What to ask for, of the statistics whose names match this regular expression and that were ever touched.
pub fn path(filter: &str) -> String {
    // Raw histograms, because the buckets that Envoy is configured with leave out what is beyond the last of them.
    format!("/stats?usedonly&format=json&histogram_buckets=detailed&filter={}", percent_encoded(filter))
}

/// As it may stand in a query.
pub fn percent_encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

impl Answer {
    /// Reads the answer to [`path`].
    pub fn parse(answer: &[u8]) -> serde_json::Result<Self> {
        let text: Text = serde_json::from_slice(answer)?;
        let mut all = Self::default();
        for entry in text.stats {
            match entry {
                Entry::Number { name, value } => all.numbers.push((name, value)),
                Entry::Histograms { histograms } => all.histograms.extend(histograms.details),
                Entry::Other(_) => {}
            }
        }
        Ok(all)
    }
}
