//! Runs test programs and adds up what they report.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::workspace;

/// Characters of a reason that are said again.
const LONGEST: usize = 600;
/// What takes longer has a part in how long everything takes.
const NOTABLE: Duration = Duration::from_secs(20);

/// How many tests passed and failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    /// A line for each failure whose reason was seen.
    pub reasons: Vec<String>,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.reasons.extend(other.reasons);
    }

    /// Reads a line such as `test result: ok. 12 passed; 0 failed; …`.
    fn from_cargo_line(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
        let mut counts = rest.split("; ").filter_map(|part| part.split_once(' '));
        let passed = counts.next()?.0.parse().ok()?;
        let failed = counts.next()?.0.parse().ok()?;
        Some(Self { passed, failed, ..Self::default() })
    }
}

/// A test's name, and what stands behind it: its result, or what it printed first.
fn shown(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("test ")?.split_once(" ... ")
}

/// Finds out of the lines of a test program why a test failed, so that it can be said again at the end of half an hour.
#[derive(Debug, Default)]
struct Reasons {
    test: String,
    panicked: bool,
}

impl Reasons {
    /// Takes the next line; gives the test's name and its reason where the line has one.
    fn read(&mut self, line: &str) -> Option<String> {
        // With --nocapture a test's name comes before its output, without it over what it has printed.
        let kept = line.strip_prefix("---- ").and_then(|rest| rest.split_once(" std"));
        if let Some((name, _)) = shown(line).or(kept) {
            name.clone_into(&mut self.test);
        }
        let reason = match line.strip_prefix("Error: ") {
            Some(error) => Some(error),
            // The words of a panic are in the line after the place.
            None => std::mem::take(&mut self.panicked).then_some(line),
        };
        self.panicked = line.starts_with("thread '") && line.contains("panicked at");
        let reason: String = reason?.chars().take(LONGEST).collect();
        Some(format!("{}: {reason}", self.test))
    }
}

/// How long each test took, of those that run one after the other.
#[derive(Debug)]
struct Times {
    since: Instant,
    test: String,
    took: Vec<(Duration, String)>,
}

impl Times {
    fn new() -> Self {
        Self { since: Instant::now(), test: String::new(), took: Vec::new() }
    }

    /// Takes the next line, which comes when it is written.
    fn read(&mut self, line: &str) {
        // With --nocapture the result has a line of its own behind what the test printed.
        let shown = shown(line);
        if let Some((name, _)) = shown {
            name.clone_into(&mut self.test);
        }
        let result = shown.map_or(line, |(_, result)| result);
        if matches!(result, "ok" | "FAILED") && !self.test.is_empty() {
            self.took.push((self.since.elapsed(), std::mem::take(&mut self.test)));
            self.since = Instant::now();
        }
    }

    /// The longest first, of those that matter.
    fn longest(mut self) -> Vec<String> {
        self.took.retain(|(time, _)| *time >= NOTABLE);
        self.took.sort_unstable_by(|a, b| b.cmp(a));
        self.took.iter().map(|(time, test)| format!("{:>6.0} s  {test}", time.as_secs_f64())).collect()
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

/// Builds the program of one test of the whole workspace and gives its path, so that it can be run while cargo builds something else: `cargo
/// test` would wait for that.
///
/// # Errors
/// When cargo cannot build it, or does not say where it is.
pub fn build_test(name: &str) -> Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    // With the features that all of the workspace asks for, or the rest would be built from the beginning.
    cargo.current_dir(workspace()).args(["test", "-q", "--no-run", "--workspace", "--test", name]);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = cargo.output().with_context(|| format!("start {cargo:?}"))?;
    ensure!(output.status.success(), "{cargo:?} ended with {}", output.status);
    let said = String::from_utf8(output.stdout).context("read what cargo has built")?;
    said.lines()
        .find_map(|line| program_of(line, name))
        .with_context(|| format!("{cargo:?} names no program"))
}

/// The path of a test's program, if this line of cargo's is about that test.
fn program_of(line: &str, name: &str) -> Option<PathBuf> {
    let said: Value = serde_json::from_str(line).ok()?;
    let target = &said["target"];
    let is_it = target["name"] == name && target["kind"].as_array()?.iter().any(|kind| kind == "test");
    said["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
}

/// Runs a program of [`build_test`] with these arguments, in the folder and the environment that cargo runs it in.
///
/// # Errors
/// When it cannot be started.
pub fn run_test(program: &Path, package: &str, args: &[&str]) -> Result<Tally> {
    let folder = workspace().join(package);
    let mut test = Command::new(program);
    test.current_dir(&folder).env("CARGO_MANIFEST_DIR", &folder).env("RUST_BACKTRACE", "0").args(args);
    run_counted(&mut test)
}

/// Runs a command that prints cargo's result lines, showing all it prints, on standard output.
///
/// # Errors
/// When it cannot be started or its output cannot be read.
pub fn run_counted(command: &mut Command) -> Result<Tally> {
    println!("==> {command:?}");
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    let errors = writer.try_clone().context("share a pipe")?;
    let child = command.stdout(writer).stderr(errors).spawn();
    let mut child = child.with_context(|| format!("start {command:?}"))?;
    // The command keeps its ends of the pipe, and the other end waits for those.
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let (mut tally, mut reasons, mut times) = (Tally::default(), Reasons::default(), Times::new());
    for line in BufReader::new(reader).lines() {
        let line = line.with_context(|| format!("read the output of {command:?}"))?;
        println!("{line}");
        times.read(&line);
        tally.reasons.extend(reasons.read(&line));
        if let Some(counted) = Tally::from_cargo_line(&line) {
            tally.add(counted);
        }
    }
    let status = child.wait().with_context(|| format!("wait for {command:?}"))?;
    if !status.success() && tally.failed == 0 {
        eprintln!("{command:?} failed without counting a failure: {status}");
        tally.failed += 1;
    }
    times.longest().iter().for_each(|line| println!("{line}"));
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Reasons, Tally, Times, program_of, run_counted};

    #[test]
    fn cargos_result_line_is_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(Tally::from_cargo_line(line), Some(Tally { passed: 12, failed: 3, reasons: vec![] }));
        assert_eq!(Tally::from_cargo_line("running 3 tests"), None);
    }

    #[test]
    fn a_tests_program_is_found_in_what_cargo_says() {
        let built = |kind: &str, name: &str, at: &str| {
            let target = format!(r#"{{"kind":["{kind}"],"name":"{name}"}}"#);
            format!(r#"{{"reason":"compiler-artifact","target":{target},"executable":{at}}}"#)
        };
        let of = |line: String| program_of(&line, "e2e");
        assert_eq!(of(built("test", "e2e", r#""/t/e2e-1""#)), Some("/t/e2e-1".into()));
        assert_eq!(of(built("test", "other", r#""/t/other-1""#)), None);
        assert_eq!(of(built("bin", "e2e", r#""/t/e2e""#)), None);
        assert_eq!(of(built("test", "e2e", "null")), None);
        assert_eq!(of(r#"{"reason":"build-finished","success":true}"#.to_owned()), None);
    }

    #[test]
    fn why_a_test_failed_is_found_in_what_it_printed() {
        let lines = [
            "test a::passes ... 3 requests",
            "ok",
            "test b::fails ...   loads started",
            "Error: 1 of 9002 requests failed",
            "FAILED",
            "---- c::panics stdout ----",
            "thread 'c::panics' (7) panicked at src/c.rs:1:2:",
            "assertion failed: no",
        ];
        let mut reasons = Reasons::default();
        let found: Vec<_> = lines.into_iter().filter_map(|line| reasons.read(line)).collect();
        assert_eq!(found, ["b::fails: 1 of 9002 requests failed", "c::panics: assertion failed: no"]);
    }

    #[test]
    fn a_tests_time_is_that_between_two_results() {
        let mut times = Times::new();
        for line in ["test a ... ok", "test b ... 5 writes", "ok", "test c ... ", "FAILED", "ok"] {
            times.read(line);
        }
        assert_eq!(times.took.iter().map(|(_, test)| test.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        times.took[1].0 = Duration::from_secs(90);
        assert_eq!(times.longest(), ["    90 s  b"]);
    }

    #[test]
    fn both_outputs_of_a_command_are_read_to_their_ends() {
        let script = "echo 'test x ... '; echo 'Error: no' >&2; echo 'test result: FAILED. 0 passed; 1 failed; 0'; exit 1";
        let tally = run_counted(std::process::Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(tally, Tally { passed: 0, failed: 1, reasons: vec!["x: no".to_owned()] });
    }
}
