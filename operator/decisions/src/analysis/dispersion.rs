//! How much more than independent ones events vary: in time, because they come in clusters and bursts, and between pods, because
//! a client stays with its pod. Both are estimated from the window itself. Little data says little about it, so each estimate
//! starts from an assumption that counts as much as some data.

use super::comparison::{Cell, Comparison, Stratum};
use super::evidence::Split;

/// Strata per block. Means over longer blocks vary more than those over short ones when events are correlated in time; the
/// longest correlation that shows up counts.
const BLOCKS: [usize; 4] = [1, 2, 4, 8];
/// The assumption that events are independent counts as this many blocks.
const ASSUMED_BLOCKS: f64 = 5.0;
/// Fewer blocks than these, weighted by what they say, say nothing about variation.
const FEWEST_BLOCKS: f64 = 3.0;
/// Variance of the canary's events, given those of both, at which the comparison of both sides says as much about clusters as
/// each side's own course does.
const ENOUGH_SHARED: f64 = 10.0;
/// The assumption about pods counts as this many pods.
const ASSUMED_PODS: f64 = 4.0;

/// How much events vary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dispersion {
    /// Variance over that of independent events; 1 at least.
    pub clusters: f64,
    /// Variance of the logarithm of the ratio of two healthy sides.
    pub sides: f64,
}

impl Dispersion {
    /// `assumed`: standard deviation of the logarithm of a healthy pod's rate.
    pub fn of(comparison: &Comparison<'_>, assumed: f64) -> Self {
        let clusters = clusters(&comparison.strata);
        let independent = clusters * Split::of(&comparison.strata).without_replacement();
        let mut weight = ASSUMED_PODS;
        let mut variance = ASSUMED_PODS * assumed * assumed;
        let mut effective = 0.0;
        for side in comparison.sides() {
            let pods: Vec<Vec<Cell>> = side.pods.iter().map(|pod| comparison.pod(pod)).collect();
            let side = Pods::of(&pods, independent);
            effective += side.effective.max(1.0).recip();
            weight += side.degrees;
            variance += side.degrees * side.variance;
        }
        Self { clusters, sides: variance / weight * effective }
    }
}

fn clusters(strata: &[Stratum]) -> f64 {
    let (shared, information) = against_each_other(strata);
    // Without events on one of the sides nothing can be learnt from comparing them; then each side's own course must tell
    // whether events come in clusters. It says too much where both sides vary together, so it counts only then.
    let own = own_course(strata.iter().map(|s| s.canary)).max(own_course(strata.iter().map(|s| s.baseline)));
    let doubt = ENOUGH_SHARED / (ENOUGH_SHARED + information);
    (doubt * own + (1.0 - doubt) * shared).max(1.0)
}

/// Dispersion of the canary's part of the events around a constant ratio of rates, and the variance it was estimated from. A
/// rise that is the same all the time adds nothing to it.
fn against_each_other(strata: &[Stratum]) -> (f64, f64) {
    let (above, below) = strata.iter().fold((0.0, 0.0), |(above, below), s| {
        (above + s.canary.events * (1.0 - s.share()), below + s.baseline.events * s.share())
    });
    let ratio = if below > 0.0 { above / below } else { f64::INFINITY };
    if !ratio.is_finite() || ratio <= 0.0 {
        return (1.0, 0.0);
    }
    let parts: Vec<(f64, f64)> = strata
        .iter()
        .map(|s| {
            let share = s.share() * ratio / (1.0 - s.share() + s.share() * ratio);
            let variance = s.events() * share * (1.0 - share) * s.without_replacement();
            (s.canary.events - s.events() * share, variance)
        })
        .collect();
    (over_blocks(&parts), parts.iter().map(|(_, variance)| variance).sum())
}

/// Dispersion of a side's events around a constant rate.
fn own_course(cells: impl Iterator<Item = Cell> + Clone) -> f64 {
    let rate = cells.clone().fold(Cell::default(), Cell::plus).ratio();
    let parts: Vec<(f64, f64)> =
        cells.map(|cell| (cell.events - cell.exposure * rate, cell.exposure * rate)).collect();
    over_blocks(&parts)
}

/// The greatest dispersion over the lengths of blocks. `parts` are residuals and the variances they would have if events were
/// independent.
fn over_blocks(parts: &[(f64, f64)]) -> f64 {
    let mut greatest: f64 = 1.0;
    for length in BLOCKS {
        let (mut squares, mut variance, mut variance_squares) = (0.0, 0.0, 0.0);
        for block in parts.chunks(length) {
            let (residual, expected) = block.iter().fold((0.0, 0.0), |(r, v), part| (r + part.0, v + part.1));
            squares += residual * residual;
            variance += expected;
            variance_squares += expected * expected;
        }
        if variance <= 0.0 {
            continue;
        }
        let blocks = variance * variance / variance_squares;
        if blocks < FEWEST_BLOCKS {
            continue;
        }
        let estimate = squares / variance * blocks / (blocks - 1.0);
        greatest = greatest.max((ASSUMED_BLOCKS + blocks * estimate) / (ASSUMED_BLOCKS + blocks));
    }
    greatest
}

/// How the pods of one side differ.
struct Pods {
    /// As how many equal ones they count.
    effective: f64,
    degrees: f64,
    /// Of the logarithm of a pod's rate.
    variance: f64,
}

impl Pods {
    /// `independent`: variance over mean of the events of pods that are alike.
    fn of(pods: &[Vec<Cell>], independent: f64) -> Self {
        let strata = pods.first().map_or(0, Vec::len);
        let rates: Vec<f64> = (0..strata)
            .map(|at| pods.iter().filter_map(|pod| pod.get(at)).fold(Cell::default(), |sum, cell| sum.plus(*cell)).ratio())
            .collect();
        let (mut exposure, mut exposure_squares) = (0.0, 0.0);
        let parts: Vec<(f64, f64)> = pods
            .iter()
            .map(|pod| {
                let sum = pod.iter().fold(Cell::default(), |sum, cell| sum.plus(*cell));
                exposure += sum.exposure;
                exposure_squares += sum.exposure * sum.exposure;
                (sum.events, pod.iter().zip(&rates).map(|(cell, rate)| cell.exposure * rate).sum())
            })
            .collect();
        let effective = if exposure > 0.0 { exposure * exposure / exposure_squares } else { 0.0 };
        let degrees = (effective - 1.0).max(0.0);
        let all: f64 = parts.iter().map(|(_, expected)| expected).sum();
        let (mut excess, mut scale) = (0.0, 0.0);
        for (events, expected) in &parts {
            excess += (events - expected).powi(2) - independent * expected * (1.0 - expected / all.max(1.0));
            scale += expected * expected;
        }
        Self { effective, degrees, variance: if scale > 0.0 { (excess / scale).max(0.0) } else { 0.0 } }
    }
}
