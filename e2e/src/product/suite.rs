//! Runs test programs and adds up what they report.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::workspace;

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Reads a line such as `test result: ok. 12 passed; 0 failed; …`.
    fn from_cargo_line(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut counts = rest.split("; ").filter_map(|part| part.split_once(' '));
        let passed = counts.next()?.0.parse().ok()?;
        let failed = counts.next()?.0.parse().ok()?;
        Some(Self { passed, failed })
    }
}

/// `cargo test` with these arguments; a run that breaks before it counts anything is one failure.
///
/// # Errors
/// When cargo cannot be started.
pub fn run_cargo_tests(args: &[&str], env: &[(&str, String)]) -> Result<Tally> {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace()).arg("test").args(args).envs(env.iter().map(|(k, v)| (*k, v.as_str())));
    // A failed test says what it saw; fifty frames of an executor under it would only bury that.
    cargo.env("RUST_BACKTRACE", "0");
    run_counted(&mut cargo)
}

/// Runs a command that prints cargo's result lines, showing all it prints.
///
/// # Errors
/// When it cannot be started or its output cannot be read.
pub fn run_counted(command: &mut Command) -> Result<Tally> {
    println!("==> {command:?}");
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {command:?}"))?;
    let mut tally = Tally::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.with_context(|| format!("read the output of {command:?}"))?;
            println!("{line}");
            if let Some(counted) = Tally::from_cargo_line(&line) {
                tally.add(counted);
            }
        }
    }
    let status = child.wait().with_context(|| format!("wait for {command:?}"))?;
    if !status.success() && tally.failed == 0 {
        eprintln!("{command:?} failed without counting a failure: {status}");
        tally.failed += 1;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn cargos_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(Tally::from_cargo_line(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(Tally::from_cargo_line("running 3 tests"), None);
    }
}
