//! Verdicts as sentences.

use super::comparison::Comparison;
use super::latency::Quantile;
use super::metric::Metric;
use super::timeline::{Side, Timeline};
use super::track::Totals;

/// What rose, with the figures.
pub(super) fn rose(comparison: &Comparison<'_>) -> String {
    let [canary, baseline] = comparison.sides();
    let name = comparison.metric.name();
    if let Metric::Slow(quantile) = comparison.metric {
        let (before, now) =
            (Comparison::milliseconds(baseline, quantile), Comparison::milliseconds(canary, quantile));
        return format!(
            "{name} rose from {} ({} requests) to {} ({} requests)",
            milliseconds(before),
            thousands(baseline.requests()),
            milliseconds(now),
            thousands(canary.requests())
        );
    }
    let of = |(events, attempts)| {
        format!("{} ({} of {}", percent(events, attempts), thousands(events), thousands(attempts))
    };
    let unit = match comparison.metric {
        Metric::TlsFailures => "requests and handshakes",
        Metric::UnansweredProbes => "probes",
        _ => "requests",
    };
    let (before, now) = (comparison.figures(baseline), comparison.figures(canary));
    format!("{name} rose from {}) to {} {unit})", of(before), of(now))
}

/// That nothing rose, with the figures that people ask for first.
pub(super) fn nothing_rose(timelines: &[&Timeline]) -> String {
    let (mut before, mut now) = (Totals::default(), Totals::default());
    for timeline in timelines {
        timeline.baseline.sum.totals.iter().for_each(|totals| before.add_totals(totals));
        timeline.canary.sum.totals.iter().for_each(|totals| now.add_totals(totals));
    }
    let users = now.requests > 0;
    // Medians of several Gateways are no median.
    let alone = timelines.first().filter(|_| users && timelines.len() == 1);
    let of = |who: &str, totals: &Totals, side: Option<&Side>| {
        let ((part, of), what, unit) = if users {
            ((totals.failed, totals.requests), "errors", "requests")
        } else {
            ((totals.unanswered, totals.probes), "unanswered", "probes")
        };
        let (percent, part, of) = (percent(part, of), thousands(part), thousands(of));
        let median = side.map(|side| milliseconds(Comparison::milliseconds(side, Quantile::Median)));
        let median = median.map_or_else(String::new, |median| format!(", median {median}"));
        format!("{who} {percent} {what} ({part} of {of} {unit}){median}")
    };
    let old = of("old", &before, alone.map(|timeline| &timeline.baseline));
    let new = of("new", &now, alone.map(|timeline| &timeline.canary));
    format!("nothing rose: {old}; {new}")
}

/// A share with two digits that count.
fn percent(part: u64, of: u64) -> String {
    let percent = if of > 0 { part as f64 / of as f64 * 100.0 } else { 0.0 };
    match percent {
        0.0 => "0 %".to_owned(),
        p if p < 0.1 => format!("{p:.2} %"),
        p if p < 10.0 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

fn milliseconds(latency: f64) -> String {
    match latency {
        l if l < 10.0 => format!("{l:.1} ms"),
        l if l < 10_000.0 => format!("{l:.0} ms"),
        l => format!("{:.1} s", l / 1000.0),
    }
}

/// A number with a comma at every third digit.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_readable() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(percent(3, 2950), "0.1 %");
        assert_eq!(percent(57, 3004), "1.9 %");
        assert_eq!(percent(1, 9000), "0.01 %");
        assert_eq!(percent(30, 30), "100 %");
        assert_eq!(percent(0, 0), "0 %");
        assert_eq!(milliseconds(3.04), "3.0 ms");
        assert_eq!(milliseconds(123.4), "123 ms");
        assert_eq!(milliseconds(12_340.0), "12.3 s");
    }
}
