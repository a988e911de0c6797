//! One metric of one Gateway, stratum by stratum.

use super::input::SLOT_SECONDS;
use super::latency::{Cut, Quantile, quantile};
use super::metric::Metric;
use super::timeline::{Side, Timeline};
use super::track::Track;

/// Events and what gave rise to them, on both sides of a stratum. Only strata where both sides have something can be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Stratum {
    pub canary: Cell,
    pub baseline: Cell,
}

/// Events and what gave rise to them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Cell {
    pub events: f64,
    pub exposure: f64,
}

impl Cell {
    pub fn ratio(self) -> f64 {
        if self.exposure > 0.0 { self.events / self.exposure } else { 0.0 }
    }

    pub fn plus(self, other: Self) -> Self {
        Self { events: self.events + other.events, exposure: self.exposure + other.exposure }
    }
}

impl Stratum {
    pub fn events(&self) -> f64 {
        self.canary.events + self.baseline.events
    }

    /// The canary's share of what gives rise to events: its share of the events when both sides are alike.
    pub fn share(&self) -> f64 {
        let both = self.canary.exposure + self.baseline.exposure;
        if both > 0.0 { self.canary.exposure / both } else { 0.0 }
    }

    fn comparable(&self) -> bool {
        self.canary.exposure > 0.0 && self.baseline.exposure > 0.0
    }

    /// How much less than binomial the canary's events vary when the events of both are given: requests are drawn without
    /// putting them back, which matters where a good part of them counts (half of them are above the median).
    pub fn without_replacement(&self) -> f64 {
        let both = self.canary.exposure + self.baseline.exposure;
        if both > 1.0 && self.events() < both { (both - self.events()) / (both - 1.0) } else { 1.0 }
    }
}

/// One metric of one Gateway.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    pub metric: Metric,
    timeline: &'a Timeline,
    cut: Option<Cut>,
    /// All strata; those that cannot be compared are empty.
    pub strata: Vec<Stratum>,
}

impl<'a> Comparison<'a> {
    /// None when the metric has no data to cut latencies by.
    pub fn new(timeline: &'a Timeline, metric: Metric) -> Option<Self> {
        let cut = match metric {
            Metric::Slow(quantile) => Some(Cut::new(&timeline.baseline.sum.histogram(), quantile)?),
            _ => None,
        };
        let mut comparison = Self { metric, timeline, cut, strata: Vec::new() };
        comparison.strata = (0..timeline.starts.len())
            .map(|at| Stratum {
                canary: comparison.cell(&timeline.canary.sum, at),
                baseline: comparison.cell(&timeline.baseline.sum, at),
            })
            .map(|stratum| if stratum.comparable() { stratum } else { Stratum::default() })
            .collect();
        Some(comparison)
    }

    fn cell(&self, track: &Track, stratum: usize) -> Cell {
        if let Some(cut) = &self.cut {
            let buckets = track.latency(stratum);
            let above: u64 = buckets.iter().skip(cut.bucket + 1).sum();
            let all: u64 = buckets.iter().sum();
            return Cell { events: above as f64, exposure: all as f64 };
        }
        let Some(totals) = track.totals.get(stratum) else { return Cell::default() };
        Cell { events: self.metric.events(totals) as f64, exposure: self.metric.exposure(totals) as f64 }
    }

    /// A pod, stratum by stratum.
    pub fn pod(&self, pod: &Track) -> Vec<Cell> {
        (0..self.strata.len()).map(|at| self.cell(pod, at)).collect()
    }

    /// Both sides.
    pub fn sides(&self) -> [&'a Side; 2] {
        [&self.timeline.canary, &self.timeline.baseline]
    }

    /// The canary's events and what gave rise to them.
    pub fn canary(&self) -> Cell {
        self.strata.iter().fold(Cell::default(), |sum, stratum| sum.plus(stratum.canary))
    }

    /// Standard error of [`Self::increase`] of events that vary as much as this; latencies have none.
    pub fn error(&self, dispersion: f64) -> f64 {
        if self.cut.is_some() {
            return 0.0;
        }
        let variance = |side: &Side| {
            let (events, attempts) = self.figures(side);
            if attempts > 0 { events as f64 / (attempts as f64).powi(2) } else { 0.0 }
        };
        (dispersion * self.sides().map(variance).iter().sum::<f64>()).sqrt()
    }

    /// What the baseline would have had with the canary's exposure in each stratum.
    fn expected(&self) -> Cell {
        let events = self.strata.iter().map(|s| s.baseline.ratio() * s.canary.exposure).sum();
        Cell { events, exposure: self.canary().exposure }
    }

    /// By how much the canary is above the baseline: of all attempts for events, of the baseline's latency for latencies.
    pub fn increase(&self) -> f64 {
        match (&self.cut, self.metric) {
            (Some(cut), _) => {
                let (canary, expected) = (self.canary().ratio(), self.expected().ratio());
                // The baseline's share above the cut differs a little between its own requests and the canary's times.
                (1.0 + cut.rise(canary)) / (1.0 + cut.rise(expected)) - 1.0
            }
            (None, Metric::TlsFailures) => self.attempted(self.sides()[0]) - self.attempted(self.sides()[1]),
            (None, _) => self.canary().ratio() - self.expected().ratio(),
        }
    }

    fn attempted(&self, side: &Side) -> f64 {
        let (events, attempts) = self.figures(side);
        if attempts > 0 { events as f64 / attempts as f64 } else { 0.0 }
    }

    /// Events and attempts of a side in the whole window, for people.
    pub fn figures(&self, side: &Side) -> (u64, u64) {
        side.sum.totals.iter().fold((0, 0), |(events, attempts), totals| {
            (events + self.metric.events(totals), attempts + self.metric.attempts(totals))
        })
    }

    /// A quantile of a side's latencies in milliseconds, for people.
    pub fn milliseconds(side: &Side, which: Quantile) -> f64 {
        quantile(&side.sum.histogram(), which.level())
    }

    /// How much two healthy pods may differ, in the logarithm of the ratio of events.
    pub fn difference_of_pods(&self, latency: f64) -> f64 {
        self.cut.as_ref().map_or(self.metric.difference_of_pods(), |cut| cut.slope() * latency)
    }

    /// The strata without those of the time in which the canary stands out most.
    pub fn without_the_worst(&self, seconds: i64) -> Vec<Stratum> {
        let excess: Vec<f64> = self.strata.iter().map(|s| s.canary.events - s.events() * s.share()).collect();
        let mut worst = (0.0, 0..0);
        for from in 0..excess.len() {
            let end = from + self.timeline.within(from, seconds);
            let sum: f64 = excess.get(from..end).unwrap_or_default().iter().sum();
            if sum > worst.0 {
                worst = (sum, from..end);
            }
        }
        let kept = |at: &usize| !worst.1.contains(at);
        self.strata.iter().enumerate().filter(|(at, _)| kept(at)).map(|(_, s)| *s).collect()
    }

    /// The strata without the canary's pod that stands out most; None where it has only one.
    pub fn without_the_worst_pod(&self) -> Option<Vec<Stratum>> {
        let pods: Vec<Vec<Cell>> = self.timeline.canary.pods.iter().map(|pod| self.pod(pod)).collect();
        if pods.len() < 2 {
            return None;
        }
        let excess = |pod: &Vec<Cell>| -> f64 {
            self.strata
                .iter()
                .zip(pod)
                .map(|(s, cell)| cell.events - s.baseline.ratio() * cell.exposure)
                .sum()
        };
        let worst = pods.iter().max_by(|a, b| excess(a).total_cmp(&excess(b)))?;
        let without = |(stratum, cell): (&Stratum, &Cell)| Stratum {
            canary: Cell {
                events: stratum.canary.events - cell.events,
                exposure: stratum.canary.exposure - cell.exposure,
            },
            baseline: stratum.baseline,
        };
        let strata = self.strata.iter().zip(worst).map(without);
        Some(strata.map(|s| if s.comparable() { s } else { Stratum::default() }).collect())
    }

    /// The last strata that cover so many seconds; at least two, as one slot alone says nothing about time.
    pub fn last(&self, seconds: i64) -> &[Stratum] {
        let newest = self.timeline.starts.last().map_or(0, |start| start + SLOT_SECONDS);
        let covered =
            self.timeline.starts.iter().rev().take_while(|start| **start >= newest - seconds).count();
        let from = self.strata.len().saturating_sub(covered.max(2));
        self.strata.get(from..).unwrap_or_default()
    }
}
