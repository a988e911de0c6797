//! How long requests take: a log-normal body and a heavy tail, as the proxies' buckets see it.

/// Steps of the table per natural unit of the logarithm.
const STEPS: f64 = 64.0;
/// The table covers medians times e to this power, both ways.
const REACH: f64 = 9.0;

/// Shape of the latencies around a median of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// Standard deviation of the logarithm of the body.
    pub sigma: f64,
    /// Share of requests in the tail, which begins at three medians and falls with the power of 1.2: no variance.
    pub tail: f64,
}

/// The share of requests that take longer than a multiple of the median, read from a table.
#[derive(Debug)]
pub(super) struct Above(Vec<f64>);

impl Above {
    pub fn new(shape: Shape) -> Self {
        let steps = (2.0 * REACH * STEPS) as usize;
        let share = |step: usize| {
            let log = step as f64 / STEPS - REACH;
            let tail = if log < 3.0_f64.ln() { 1.0 } else { (-1.2 * (log - 3.0_f64.ln())).exp() };
            (1.0 - shape.tail) * normal_above(log / shape.sigma) + shape.tail * tail
        };
        Self((0..=steps).map(share).collect())
    }

    /// `log`: logarithm of the multiple.
    pub fn share(&self, log: f64) -> f64 {
        let at = (log + REACH) * STEPS;
        if at <= 0.0 {
            return 1.0;
        }
        let (whole, part) = (at as usize, at.fract());
        match (self.0.get(whole), self.0.get(whole + 1)) {
            (Some(here), Some(next)) => here + (next - here) * part,
            _ => 0.0,
        }
    }
}

/// Upper tail of the normal distribution, by a continued fraction where it is small and a series elsewhere.
fn normal_above(x: f64) -> f64 {
    if x < 0.0 {
        return 1.0 - normal_above(-x);
    }
    let density = (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if x > 3.0 {
        return density / (x + 1.0 / (x + 2.0 / (x + 3.0 / (x + 4.0 / (x + 5.0 / x)))));
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term > 1e-12 {
        n += 2.0;
        term *= x * x / n;
        sum += term;
    }
    0.5 - density * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_quantiles_of_the_normal_distribution() {
        let above = Above::new(Shape { sigma: 0.5, tail: 0.0 });
        for (z, share) in
            [(0.0, 0.5), (1.0, 0.158_655), (-1.0, 0.841_345), (1.645, 0.049_985), (3.5, 0.000_233)]
        {
            let got = above.share(0.5 * z);
            assert!((got - share).abs() < 2e-4, "{z}: {got}");
        }
        assert_eq!(above.share(-20.0), 1.0);
        assert_eq!(above.share(20.0), 0.0);
    }
}
