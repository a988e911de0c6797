//! How this replica is.

use jiff::Timestamp;
use meshwright_proto::inspection::Health;

use crate::ads::Streams;
use crate::metrics::{Metrics, counted};

/// Counters since the start, and what is at the moment.
pub fn health(started: Timestamp, streams: &Streams, metrics: &Metrics) -> Health {
    let certificates = |outcome| counted(&metrics.certificates, outcome);
    let translations = metrics.translations();
    Health {
        started: started.as_second(),
        streams: streams.pods().iter().map(ToString::to_string).collect(),
        streams_opened: counted(&metrics.streams, "opened"),
        // Some of a node's are told twice, as those of another revision's are.
        configurations_refused: counted(&metrics.answers, "nack") + metrics.nodes.refused.get(),
        certificates_signed: certificates("signed"),
        // Whether the request or we were to blame. That the API server was away is nobody's refusal.
        certificates_refused: certificates("refused") + certificates("failed"),
        resident_bytes: resident_bytes(),
        translation_seconds: translations.seconds,
        translations: translations.count,
    }
}

/// Zero where the kernel does not say.
fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/status").ok().and_then(|status| resident(&status)).unwrap_or_default()
}

/// `statm` has the same figure in pages, whose size is not the same everywhere.
fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_what_the_kernel_says() {
        assert_eq!(resident("Name:\tcp\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n"), Some(10 << 20));
        assert_eq!(resident("Name:\tcp\n"), None);
        assert!(resident_bytes() > 1 << 20);
    }

    #[test]
    fn counters_are_those_of_the_metrics() {
        let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
        let started = Timestamp::from_second(1000).unwrap();
        let fresh = health(started, &Streams::default(), &metrics);
        assert_eq!((fresh.started, fresh.certificates_refused, fresh.translations), (1000, 0, 0));
        for outcome in ["signed", "refused", "failed", "unavailable", "signed"] {
            crate::metrics::count(&metrics.certificates, outcome);
        }
        crate::metrics::count(&metrics.answers, "nack");
        crate::metrics::count(&metrics.answers, "ack");
        metrics.nodes.refused.inc_by(3);
        metrics.translated(std::time::Duration::from_millis(500));
        metrics.translated(std::time::Duration::from_millis(250));
        let after = health(started, &Streams::default(), &metrics);
        assert_eq!((after.certificates_signed, after.certificates_refused), (2, 2));
        assert_eq!(after.configurations_refused, 4);
        assert_eq!((after.translation_seconds, after.translations), (0.75, 2));
    }
}
