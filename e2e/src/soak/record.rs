//! What is remembered: finished rows in a committed file, single repetitions in `target`, one JSON object per line.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::figures::{Figure, summary};
use super::table::Row;

/// A finished row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub row: String,
    pub parameters: String,
    pub seed: u64,
    pub repetitions: u32,
    /// Repetitions that failed before the same numbers passed, with the same files: a flake is not forgotten.
    pub failed_attempts: u32,
    pub figures: BTreeMap<String, String>,
    pub commit: String,
    /// Whether the files differed from that commit.
    pub uncommitted: bool,
    pub date: String,
    /// Hash over the files that the row depends on.
    pub inputs: String,
}

/// A repetition that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    pub row: String,
    pub inputs: String,
    pub repetition: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub figures: Vec<Figure>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The newest record of the row that still counts: no file changed since, and with as many repetitions as wanted now.
pub fn counting<'a>(records: &'a [Record], row: &Row, inputs: &str) -> Option<&'a Record> {
    records.iter().rev().find(|r| r.row == row.name && r.inputs == inputs && r.repetitions >= row.needed)
}

/// Where a row stands between sessions.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The next repetition; all before it passed.
    pub next: u32,
    pub figures: Vec<Figure>,
    pub failed_attempts: u32,
}

/// What the attempts with these very files come to. Repetitions count in their order, each once.
pub fn standing(attempts: &[Attempt], row: &Row, inputs: &str) -> Standing {
    let mut standing = Standing { next: 0, figures: Vec::new(), failed_attempts: 0 };
    for attempt in attempts.iter().filter(|a| a.row == row.name && a.inputs == inputs) {
        match attempt.error {
            Some(_) => standing.failed_attempts += 1,
            None if attempt.repetition == standing.next => {
                standing.next += 1;
                standing.figures.extend(attempt.figures.iter().cloned());
            }
            None => {}
        }
    }
    standing
}

/// The record of a row that is complete.
pub fn finished(
    row: &Row,
    standing: &Standing,
    commit: (String, bool),
    date: String,
    inputs: &str,
) -> Record {
    Record {
        row: row.name.to_owned(),
        parameters: row.parameters(),
        seed: row.seed,
        repetitions: standing.next,
        failed_attempts: standing.failed_attempts,
        figures: summary(&standing.figures),
        commit: commit.0,
        uncommitted: commit.1,
        date,
        inputs: inputs.to_owned(),
    }
}

/// Every line of the file; none where it does not exist. A line cut off by a crash is left out.
///
/// # Errors
/// When it cannot be read.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

/// Adds a line.
///
/// # Errors
/// When it cannot be written.
pub fn append<T: Serialize>(path: &Path, line: &T) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    // After a crash in the middle of a line, this one must not become its end.
    if std::fs::read(path).is_ok_and(|bytes| bytes.last().is_some_and(|last| *last != b'\n')) {
        text.insert(0, '\n');
    }
    let write =
        || std::fs::OpenOptions::new().create(true).append(true).open(path)?.write_all(text.as_bytes());
    write().with_context(|| format!("write {}", path.display()))
}

/// Forgets a row's attempts.
///
/// # Errors
/// When the file cannot be rewritten.
pub fn forget(path: &Path, row: &Row) -> Result<()> {
    let mut kept = String::new();
    for attempt in load::<Attempt>(path)?.iter().filter(|a| a.row != row.name) {
        kept += &serde_json::to_string(attempt)?;
        kept.push('\n');
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    std::fs::write(path, kept).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests;
