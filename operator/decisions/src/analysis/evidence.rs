//! Evidence that the canary's rate is above the baseline's, as a Bayes factor. Given how many events both had together, each of
//! them is the canary's with a probability that is known when both are alike: the canary's share of the requests. Under that
//! hypothesis the factor is a martingale with mean 1, so it exceeds 1/a at any time with probability a at most, however often
//! one looks (Ville's inequality). No plan of looks is needed, and a verdict may come after three slots or after an hour.

use super::comparison::Stratum;

/// Events of both sides, and the canary's part of them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Split {
    canary: f64,
    both: f64,
    /// Of the events of both, those that the canary has when both are alike.
    expected: f64,
    /// The variance of the canary's events when both are alike, with and without putting requests back.
    binomial: f64,
    hypergeometric: f64,
}

impl Split {
    pub fn of(strata: &[Stratum]) -> Self {
        strata.iter().fold(Self::default(), |sum, stratum| {
            let (events, share) = (stratum.events(), stratum.share());
            let binomial = events * share * (1.0 - share);
            Self {
                canary: sum.canary + stratum.canary.events,
                both: sum.both + events,
                expected: sum.expected + events * share,
                binomial: sum.binomial + binomial,
                hypergeometric: sum.hypergeometric + binomial * stratum.without_replacement(),
            }
        })
    }

    /// By how much less the canary's events vary because requests are not put back.
    pub fn without_replacement(&self) -> f64 {
        if self.binomial > 0.0 { self.hypergeometric / self.binomial } else { 1.0 }
    }

    /// Natural logarithm of the Bayes factor. `ratio`: of the rates, about what a bad canary's is; a wrong one costs some
    /// power and no validity. `dispersion`: by how much events vary more than independent ones. `difference`: variance of the logarithm of the ratio of two healthy sides. The share of a stratum changes with time;
    /// taking its mean only widens the distribution of the sum (Hoeffding 1956), so it errs on the safe side.
    pub fn evidence(&self, ratio: f64, dispersion: f64, difference: f64) -> f64 {
        if self.binomial <= 0.0 || self.hypergeometric <= 0.0 {
            return 0.0;
        }
        // Events that come in clusters of a size weigh as their clusters do.
        let weight = self.binomial / self.hypergeometric / dispersion;
        let (canary, baseline) = (self.canary * weight, (self.both - self.canary) * weight);
        let share = self.expected / self.both;
        let precision = 1.0 / (difference.max(1e-6) * share * (1.0 - share));
        let alike = (share * precision, (1.0 - share) * precision);
        // The mean of this distribution is the canary's share at that ratio; no ratio is ruled out.
        let worse = (ratio * share / (1.0 - share), 1.0);
        marginal(canary, baseline, worse) - marginal(canary, baseline, alike)
    }
}

/// Logarithm of the probability of the events, in their order, when the canary's share has a beta distribution.
fn marginal(canary: f64, baseline: f64, beta: (f64, f64)) -> f64 {
    ln_beta(beta.0 + canary, beta.1 + baseline) - ln_beta(beta.0, beta.1)
}

fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

/// Stirling's series, after moving small arguments up to where four terms of it give twelve digits.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut moved) = (x, 1.0);
    while x < 10.0 {
        moved *= x;
        x += 1.0;
    }
    let square = x * x;
    let series =
        (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / (1680.0 * square)) / square) / square) / x;
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - moved.ln()
}

#[cfg(test)]
mod tests {
    use super::super::comparison::Cell;
    use super::*;

    fn even(canary: f64, baseline: f64) -> Split {
        let cell = |events| Cell { events, exposure: 3000.0 };
        Split::of(&[Stratum { canary: cell(canary), baseline: cell(baseline) }])
    }

    #[test]
    fn the_gamma_function_is_known_at_whole_and_half_numbers() {
        assert!((ln_gamma(5.0) - 24.0_f64.ln()).abs() < 1e-10);
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-10);
        assert!((ln_gamma(171.0) - (1..171).map(|n| f64::from(n).ln()).sum::<f64>()).abs() < 1e-8);
    }

    #[test]
    fn what_is_alike_has_no_evidence_and_a_tenfold_rise_has() {
        assert!(even(10.0, 10.0).evidence(8.0, 1.0, 0.01) < 0.0);
        assert!(even(33.0, 3.0).evidence(8.0, 1.0, 0.01) > 9.0);
        assert_eq!(even(0.0, 0.0).evidence(8.0, 1.0, 0.01), 0.0);
    }

    #[test]
    fn clusters_and_differing_pods_weaken_evidence() {
        let split = even(60.0, 20.0);
        assert!(split.evidence(8.0, 3.0, 0.01) < split.evidence(8.0, 1.0, 0.01));
        assert!(split.evidence(8.0, 1.0, 0.2) < split.evidence(8.0, 1.0, 0.01));
    }

    #[test]
    fn the_mean_of_the_factor_is_one_when_both_are_alike() {
        // Ten events, each the canary's with probability one half: all outcomes weighted by their probability.
        let choose = |k: u32| (0..k).fold(1.0, |c, i| c * f64::from(10 - i) / f64::from(i + 1));
        let factor = |k: u32| {
            let (alike, worse) = ((0.5e9, 0.5e9), (8.0, 1.0));
            let (canary, baseline) = (f64::from(k), f64::from(10 - k));
            (marginal(canary, baseline, worse) - marginal(canary, baseline, alike)).exp()
        };
        let mean: f64 = (0..=10).map(|k| choose(k) / 1024.0 * factor(k)).sum();
        assert!((mean - 1.0).abs() < 1e-3, "{mean}");
    }
}
