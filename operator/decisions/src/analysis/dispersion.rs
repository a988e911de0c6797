//! How much more than independent ones events vary: in time, because they come in clusters and bursts, and between pods, because
//! a client stays with its pod. Both are estimated from the window itself. Little data says little about it, so each estimate
//! starts from an assumption that counts as much as some data.

use super::comparison::{Cell, Comparison, Stratum};
use super::evidence::Split;

/// Strata per block. Means over longer blocks vary more than those over short ones when events are correlated in time; the
/// longest correlation that shows up counts.
const BLOCKS: [usize; 4] = [1, 2, 4, 8];
/// Dispersion before anything was seen: some failures come in pairs. It counts as so many blocks.
const ASSUMED: f64 = 1.2;
const ASSUMED_BLOCKS: f64 = 5.0;
/// Fewer blocks than these, weighted by what they say, say nothing about variation.
const FEWEST_BLOCKS: f64 = 3.0;
/// Variance of the events that were compared within strata at which that says as much about clusters as each side's own course.
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

/// A residual, and the variance that it would have if events were independent.
type Part = (f64, f64);

impl Dispersion {
    /// `assumed`: standard deviation of the logarithm of a healthy pod's rate.
    pub fn of(comparison: &Comparison<'_>, assumed: f64) -> Self {
        let strata = &comparison.strata;
        let replaced = Split::of(strata).without_replacement();
        let sides = comparison
            .sides()
            .map(|side| Pods::of(side.pods.iter().map(|pod| comparison.pod(pod)).collect()));
        // Each of them is a course in time.
        let mut courses = vec![against_each_other(strata)];
        courses.extend(sides.iter().flat_map(|side| side.residuals(replaced)));
        let clusters = clusters(strata, &courses);
        Self { clusters, sides: between_sides(&sides, clusters * replaced, assumed) }
    }
}

/// Variance of the logarithm of the ratio of two healthy sides, from that of their pods. `independent`: variance over mean of the
/// events of a pod that is like the others.
fn between_sides(sides: &[Pods], independent: f64, assumed: f64) -> f64 {
    let (mut excess, mut chance, mut scale, mut degrees, mut fewness) = (0.0, 0.0_f64, 0.0, 0.0, 0.0);
    for side in sides {
        fewness += side.effective.max(1.0).recip();
        degrees += (side.effective - 1.0).max(0.0);
        for course in side.residuals(independent) {
            let (residual, variance) = sum(&course);
            excess += residual * residual - variance;
            chance += 2.0 * variance * variance;
            scale += (variance / independent).powi(2) * side.effective / (side.effective - 1.0).max(1.0);
        }
    }
    // What chance alone adds is no sign of a difference.
    let seen = if scale > 0.0 { ((excess - chance.sqrt()) / scale).max(0.0) } else { 0.0 };
    (ASSUMED_PODS * assumed * assumed + degrees * seen) / (ASSUMED_PODS + degrees) * fewness
}

fn sum(parts: &[Part]) -> Part {
    parts.iter().fold((0.0, 0.0), |(residual, variance), part| (residual + part.0, variance + part.1))
}

fn clusters(strata: &[Stratum], courses: &[Vec<Part>]) -> f64 {
    let shared = over_blocks(courses);
    let information: f64 = courses.iter().flatten().map(|(_, variance)| variance).sum();
    // Without events to compare within strata, each side's own course must tell whether events come in clusters. It says too
    // much where both sides vary together, so it counts only then.
    let own = |side: fn(&Stratum) -> Cell| over_blocks(&[own_course(strata.iter().map(side))]);
    let own = own(|s| s.canary).max(own(|s| s.baseline));
    let doubt = ENOUGH_SHARED / (ENOUGH_SHARED + information);
    (doubt * own + (1.0 - doubt) * shared).max(1.0)
}

/// The canary's part of the events around a constant ratio of rates. A rise that is the same all the time adds nothing to it.
fn against_each_other(strata: &[Stratum]) -> Vec<Part> {
    let (above, below) = strata.iter().fold((0.0, 0.0), |(above, below), s| {
        (above + s.canary.events * (1.0 - s.share()), below + s.baseline.events * s.share())
    });
    let ratio = if below > 0.0 { above / below } else { f64::INFINITY };
    if !ratio.is_finite() || ratio <= 0.0 {
        return Vec::new();
    }
    let part = |s: &Stratum| {
        let share = s.share() * ratio / (1.0 - s.share() + s.share() * ratio);
        let variance = s.events() * share * (1.0 - share) * s.without_replacement();
        (s.canary.events - s.events() * share, variance)
    };
    strata.iter().map(part).collect()
}

/// A side's events around a constant rate.
fn own_course(cells: impl Iterator<Item = Cell> + Clone) -> Vec<Part> {
    let rate = cells.clone().fold(Cell::default(), Cell::plus).ratio();
    cells.map(|cell| (cell.events - cell.exposure * rate, cell.exposure * rate)).collect()
}

/// The greatest dispersion over the lengths of blocks.
fn over_blocks(courses: &[Vec<Part>]) -> f64 {
    let mut greatest: Option<f64> = None;
    for length in BLOCKS {
        let (mut squares, mut variance, mut variance_squares) = (0.0, 0.0, 0.0);
        for block in courses.iter().flat_map(|course| course.chunks(length)) {
            let (residual, expected) = sum(block);
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
        // Here too chance alone adds something.
        let estimate = squares / variance * blocks / (blocks - 1.0) - (2.0 / blocks).sqrt();
        let with_assumed = (ASSUMED_BLOCKS * ASSUMED + blocks * estimate) / (ASSUMED_BLOCKS + blocks);
        greatest = Some(greatest.map_or(with_assumed, |greatest: f64| greatest.max(with_assumed)));
    }
    greatest.unwrap_or(ASSUMED)
}

/// The pods of one side.
struct Pods {
    pods: Vec<Vec<Cell>>,
    /// Of all pods, by stratum.
    sums: Vec<Cell>,
    /// As how many equal ones they count.
    effective: f64,
}

impl Pods {
    fn of(pods: Vec<Vec<Cell>>) -> Self {
        let strata = pods.first().map_or(0, Vec::len);
        let sum = |at: usize| {
            pods.iter().filter_map(|pod| pod.get(at)).fold(Cell::default(), |sum, cell| sum.plus(*cell))
        };
        let sums: Vec<Cell> = (0..strata).map(sum).collect();
        let exposures = pods.iter().map(|pod| pod.iter().map(|cell| cell.exposure).sum::<f64>());
        let (all, squares) = exposures.fold((0.0, 0.0), |(all, squares), e| (all + e, squares + e * e));
        Self { effective: if all > 0.0 { all * all / squares } else { 0.0 }, pods, sums }
    }

    /// Each pod around its side.
    fn residuals(&self, replaced: f64) -> Vec<Vec<Part>> {
        if self.pods.len() < 2 {
            return Vec::new();
        }
        let part = |(cell, sum): (&Cell, &Cell)| {
            let expected = cell.exposure * sum.ratio();
            let others = if sum.exposure > 0.0 { 1.0 - cell.exposure / sum.exposure } else { 0.0 };
            (cell.events - expected, expected * others * replaced)
        };
        self.pods.iter().map(|pod| pod.iter().zip(&self.sums).map(part).collect()).collect()
    }
}
