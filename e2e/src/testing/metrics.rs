//! What Prometheus would read.

/// The sum of a counter over all its series that have these labels; None where there is no such series.
pub fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    let values = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let labels = series.strip_prefix(name)?.strip_prefix('{')?.strip_suffix('}')?;
        let has = |wanted: &String| labels.split(',').any(|label| label == wanted);
        wanted.iter().all(has).then(|| value.parse::<u64>().ok()).flatten()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0) + value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_with_the_labels_are_added_and_no_others() {
        let metrics = "# TYPE calls_total counter
calls_total{from=\"a\",to=\"b\",mtls=\"true\"} 7
calls_total{from=\"a\",to=\"b\",mtls=\"false\"} 100
calls_total{from=\"a\",to=\"bb\",mtls=\"true\"} 100
calls_total{from=\"a\",to=\"b\",mtls=\"true\",flags=\"UF\"} 5
calls_total_more{from=\"a\",to=\"b\",mtls=\"true\"} 100
";
        assert_eq!(sum(metrics, "calls_total", &[("to", "b"), ("mtls", "true")]), Some(12));
        assert_eq!(sum(metrics, "calls_total", &[("to", "c")]), None);
    }
}
