//! Prints what the simulated upgrades of each case come to: `figures [upgrades] [first seed] [part of a case's name]`.

use std::time::Instant;

use meshwright_decisions::simulation::{CASES, Kind, run};

fn main() {
    let mut args = std::env::args().skip(1);
    let upgrades = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(1000);
    let seed = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(0);
    let part = args.next().unwrap_or_default();
    println!(
        "case | holds | upgrades | rolled back % | missed % | undecided % | canary requests p50 p95 | seconds p50 p95 | causes | run s"
    );
    for case in CASES.iter().filter(|case| case.name.contains(&part)) {
        let began = Instant::now();
        let outcome = run(case, upgrades, seed);
        let percent = |part: u32| f64::from(part) * 100.0 / f64::from(outcome.upgrades.max(1));
        let bound = if let Kind::Faulty { requests } = case.kind {
            format!(" (≤ {requests})")
        } else {
            String::new()
        };
        println!(
            "{}{bound} | {} | {} | {:.2} | {:.2} | {:.2} | {} {} | {} {} | {:?} | {:.1}",
            case.name,
            outcome.holds(case.kind),
            outcome.upgrades,
            percent(outcome.rolled_back),
            percent(outcome.missed),
            percent(outcome.undecided),
            outcome.canary_requests_p50,
            outcome.canary_requests_p95,
            outcome.seconds_p50,
            outcome.seconds_p95,
            outcome.causes,
            began.elapsed().as_secs_f64()
        );
    }
}
