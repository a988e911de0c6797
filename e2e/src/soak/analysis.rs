//! Simulated upgrades, judged by the operator's own functions: neither do equal revisions go back, nor are bad ones missed. One case of
//! traffic at a time; needs no cluster.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use meshwright_decisions::simulation::{CASES, Case, Kind, Outcome, run as simulate};

use super::figures::Figure;

/// As many repetitions as there are cases.
pub const ALL: u32 = CASES.len() as u32;

/// Runs the case with this number.
///
/// # Errors
/// When its bound does not hold.
pub fn run(repetition: u32, upgrades: u32, first_seed: u64) -> Result<Vec<Figure>> {
    let case = CASES.get(repetition as usize).with_context(|| format!("there is no case {repetition}"))?;
    let start = Instant::now();
    let outcome = simulate(case, upgrades, first_seed);
    println!("  {} ({:.0} s): {outcome:?}", case.name, start.elapsed().as_secs_f64());
    ensure!(outcome.upgrades == upgrades, "{}: {} of {upgrades} ended", case.name, outcome.upgrades);
    ensure!(outcome.holds(case.kind), "{}: {outcome:?}", case.name);
    Ok(figures(case, &outcome))
}

fn figures(case: &Case, outcome: &Outcome) -> Vec<Figure> {
    let of = |what: &str, number: u32| {
        let unit = format!("of {}", outcome.upgrades);
        Figure::count(&format!("{}: {what}", case.name), u64::from(number), &unit)
    };
    match case.kind {
        Kind::Equal => vec![of("rolled back", outcome.rolled_back), of("undecided", outcome.undecided)],
        Kind::Faulty { .. } => vec![
            of("missed", outcome.missed),
            Figure::count(
                &format!("{}: found from, median", case.name),
                outcome.canary_requests_p50,
                "canary requests",
            ),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_gives_figures_of_its_own() {
        let faulty = CASES.iter().position(|case| case.kind != Kind::Equal).unwrap() as u32;
        let figures = run(faulty, 4, 1_000_000).unwrap();
        assert_eq!((figures[0].value, figures[0].unit.as_str()), (0.0, "of 4"));
        assert!(figures[1].value > 0.0 && figures[1].name.starts_with(CASES[faulty as usize].name));
        assert!(run(ALL, 1, 1_000_000).is_err());
    }
}
