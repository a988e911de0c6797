//! What a repetition measured, and what a row's repetitions come to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bench::percentile;

/// One measured number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    /// `s` and `ms` are summed up by median and maximum, everything else is counted together.
    pub unit: String,
}

impl Figure {
    /// A number of things, such as failed requests.
    pub fn count(name: &str, value: u64, unit: &str) -> Self {
        Self { name: name.to_owned(), value: value as f64, unit: unit.to_owned() }
    }

    /// A short time, given in seconds.
    pub fn milliseconds(name: &str, seconds: f64) -> Self {
        Self { name: name.to_owned(), value: seconds * 1000.0, unit: "ms".to_owned() }
    }

    /// A time.
    pub fn seconds(name: &str, value: std::time::Duration) -> Self {
        Self { name: name.to_owned(), value: value.as_secs_f64(), unit: "s".to_owned() }
    }
}

/// `name` or `name p50`, `name max`, each with its value and unit.
pub fn summary(figures: &[Figure]) -> BTreeMap<String, String> {
    let mut by_name = BTreeMap::<(&str, &str), Vec<f64>>::new();
    for figure in figures {
        by_name.entry((&figure.name, &figure.unit)).or_default().push(figure.value);
    }
    let mut summary = BTreeMap::new();
    for ((name, unit), values) in by_name {
        if ["s", "ms"].contains(&unit) {
            for (suffix, percent) in [("p50", 50.0), ("max", 100.0)] {
                let value = percentile(&values, percent).unwrap_or_default();
                summary.insert(format!("{name} {suffix}"), format!("{value:.1} {unit}"));
            }
        } else {
            summary.insert(name.to_owned(), format!("{} {unit}", values.iter().sum::<f64>()));
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_give_median_and_maximum_and_counts_a_sum() {
        let mut figures: Vec<_> =
            [1, 5, 3].map(|s| Figure::seconds("new leader", Duration::from_secs(s))).into();
        figures.extend([2, 0].map(|n| Figure::count("failed", n, "requests")));
        figures.extend([0.05, 0.1].map(|seconds| Figure::milliseconds("waited", seconds)));
        let summary = summary(&figures);
        assert_eq!(summary["waited max"], "100.0 ms");
        assert_eq!(summary["new leader p50"], "3.0 s");
        assert_eq!(summary["new leader max"], "5.0 s");
        assert_eq!(summary["failed"], "2 requests");
    }
}
