//! Latencies as the proxies report them, in buckets that are 25 % wide. Nothing is interpolated where a test counts: a cut lies
//! on the end of a bucket, and the test is about the share of requests above it. Only figures for people, and the conversion
//! of shares into latency, interpolate. A distribution that fits into one bucket hides what happens within it.

use super::input::bucket_end;
use super::track::BUCKETS;

/// The first end of a bucket with no more than this share above it stands for the median. Above a half, because a cut with
/// few requests above it still shows a rise, one with few below it does not.
const ABOVE_MEDIAN: f64 = 0.65;
/// The same for the 95th percentile.
const ABOVE_TAIL: f64 = 0.07;

/// The quantiles that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantile {
    Median,
    Tail,
}

impl Quantile {
    /// Share of requests that take no longer.
    pub fn level(self) -> f64 {
        match self {
            Self::Median => 0.5,
            Self::Tail => 0.95,
        }
    }

    fn above(self) -> f64 {
        match self {
            Self::Median => ABOVE_MEDIAN,
            Self::Tail => ABOVE_TAIL,
        }
    }
}

/// The baseline's latencies, and where they are cut.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// The last bucket below the cut.
    pub bucket: usize,
    /// Share of the baseline's requests above the end of each bucket.
    above: Vec<f64>,
}

impl Cut {
    /// Where the baseline's own latencies are cut; None when it has none.
    pub fn new(baseline: &[u64; BUCKETS], quantile: Quantile) -> Option<Self> {
        let total: u64 = baseline.iter().sum();
        if total == 0 {
            return None;
        }
        let mut left = total;
        let above: Vec<f64> = baseline
            .iter()
            .map(|count| {
                left -= count;
                left as f64 / total as f64
            })
            .collect();
        let bucket = above.iter().position(|share| *share <= quantile.above())?;
        Some(Self { bucket, above })
    }

    /// How much longer the canary's requests take, as a ratio, when this share of them is above the cut: the factor that would
    /// bring as much of the baseline above it.
    pub fn rise(&self, canary_above: f64) -> f64 {
        let mut before = 1.0;
        for (bucket, &above) in self.above.iter().enumerate() {
            if above <= canary_above || above == 0.0 {
                let within = if before > above {
                    ((before - canary_above) / (before - above)).clamp(0.0, 1.0)
                } else {
                    0.0
                };
                let buckets = self.bucket as f64 - (bucket as f64 - 1.0 + within);
                return 1.25_f64.powf(buckets) - 1.0;
            }
            before = above;
        }
        0.0
    }

    /// By how much the logarithm of the share above the cut changes with that of the latency.
    pub fn slope(&self) -> f64 {
        let share = |bucket: usize| self.above.get(bucket).copied().unwrap_or(0.0).max(1e-3);
        let before = if self.bucket == 0 { 1.0 } else { share(self.bucket - 1) };
        (before / share(self.bucket + 1)).ln() / (2.0 * 1.25_f64.ln())
    }
}

/// A quantile in milliseconds, for people.
pub(super) fn quantile(histogram: &[u64; BUCKETS], level: f64) -> f64 {
    let total: u64 = histogram.iter().sum();
    let wanted = total as f64 * level;
    let mut below = 0.0;
    for (bucket, count) in (0_u32..).zip(histogram) {
        let count = *count as f64;
        if count > 0.0 && below + count >= wanted {
            let within = ((wanted - below) / count).clamp(0.0, 1.0);
            return bucket_end(bucket) * 1.25_f64.powf(within - 1.0);
        }
        below += count;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(counts: &[(usize, u64)]) -> [u64; BUCKETS] {
        let mut histogram = [0; BUCKETS];
        counts.iter().for_each(|(bucket, count)| histogram[*bucket] = *count);
        histogram
    }

    #[test]
    fn a_quantile_lies_in_its_bucket() {
        let histogram = histogram(&[(10, 50), (11, 45), (20, 5)]);
        let median = quantile(&histogram, 0.5);
        assert!(median > bucket_end(9) && median <= bucket_end(10), "{median}");
        let tail = quantile(&histogram, 0.99);
        assert!(tail > bucket_end(19) && tail <= bucket_end(20), "{tail}");
    }

    #[test]
    fn a_rise_by_one_bucket_is_one_of_a_quarter() {
        let counts = [(10, 20), (11, 30), (12, 30), (13, 20)];
        let cut = Cut::new(&histogram(&counts), Quantile::Median).unwrap();
        assert_eq!(cut.bucket, 11, "half of the requests are above it");
        assert!(cut.rise(0.5).abs() < 1e-9);
        assert!((cut.rise(0.8) - 0.25).abs() < 1e-9, "{}", cut.rise(0.8));
        assert!(cut.rise(0.2) < 0.0);
    }

    #[test]
    fn a_distribution_within_one_bucket_is_cut_above_it() {
        let cut = Cut::new(&histogram(&[(7, 1000)]), Quantile::Median).unwrap();
        assert_eq!(cut.bucket, 7);
        assert!(cut.rise(0.0).abs() < 1e-9);
        assert!(cut.rise(0.9) > 0.2);
    }

    #[test]
    fn no_latencies_have_no_cut() {
        assert!(Cut::new(&[0; BUCKETS], Quantile::Tail).is_none());
    }
}
