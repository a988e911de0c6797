//! Findings: what is wrong, why it matters, the command to run. Pure.

use serde::Serialize;

use crate::{gather::Looked, output::Page};

mod absent;
mod before;
mod installed;
mod members;
mod mesh;
#[cfg(test)]
mod tests;

pub use before::before;
pub use installed::installed;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Level {
    /// Something is wrong.
    Problem,
    /// Whether something is wrong could not be seen.
    Unknown,
    /// Good to know.
    Note,
}

/// Something that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    level: Level,
    problem: String,
    why: String,
    command: String,
}

impl Finding {
    fn new(
        level: Level,
        problem: impl Into<String>,
        why: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self { level, problem: problem.into(), why: why.into(), command: command.into() }
    }

    fn problem(problem: impl Into<String>, why: impl Into<String>, command: impl Into<String>) -> Self {
        Self::new(Level::Problem, problem, why, command)
    }

    fn note(problem: impl Into<String>, why: impl Into<String>, command: impl Into<String>) -> Self {
        Self::new(Level::Note, problem, why, command)
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    name: &'static str,
    summary: String,
    findings: Vec<Finding>,
}

impl Check {
    /// Judges what was read; what could not be read is a finding of its own.
    fn of<T>(name: &'static str, seen: &Looked<T>, judge: impl FnOnce(&T) -> (String, Vec<Finding>)) -> Self {
        let (summary, findings) = match seen {
            Ok(seen) => judge(seen),
            Err(reason) => {
                let unknown = Finding::new(
                    Level::Unknown,
                    format!("could not look at {name}: {reason}"),
                    "what is wrong there is not found; somebody with the right to read it must look",
                    "kubectl auth can-i --list",
                );
                (String::new(), vec![unknown])
            }
        };
        Self { name, summary, findings }
    }
}

/// What is wrong with pods and nodes.
#[cfg(test)]
pub fn problems_of(seen: &crate::members::Members) -> Vec<String> {
    let checks = members::members(seen);
    checks.into_iter().flat_map(|c| c.findings).map(|f| f.problem).collect()
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Nothing is wrong, and everything could be seen.
    pub ok: bool,
    checks: Vec<Check>,
}

impl Report {
    fn new(checks: Vec<Check>) -> Self {
        let ok = checks.iter().flat_map(|c| &c.findings).all(|f| f.level == Level::Note);
        Self { ok, checks }
    }

    /// For people: one line for what is right, a paragraph for each finding.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        for check in &self.checks {
            if check.findings.iter().all(|f| f.level == Level::Note) {
                page.hang(&format!("ok       {:20}", check.name), &check.summary);
            }
            for finding in &check.findings {
                let level = match finding.level {
                    Level::Problem => "PROBLEM  ",
                    Level::Unknown => "UNKNOWN  ",
                    Level::Note => "note     ",
                };
                page.hang(level, &finding.problem);
                page.hang("         why: ", &finding.why);
                page.raw(format!("         run: {}", finding.command));
            }
        }
        let of = |level| self.checks.iter().flat_map(|c| &c.findings).filter(|f| f.level == level).count();
        page.heading(&match (of(Level::Problem), of(Level::Unknown)) {
            (0, 0) => "Nothing is wrong.".to_owned(),
            (problems, 0) => format!("Problems: {problems}."),
            (problems, unknown) => format!("Problems: {problems}. Not looked at: {unknown}."),
        });
        page.done()
    }
}
