//! What a row depends on: the contents of files, whether they are committed or not.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::table::Row;
use crate::command::run;

/// Changes when the row itself or a file that it depends on does.
///
/// # Errors
/// When git does not list the files.
pub fn hash(root: &Path, row: &Row) -> Result<String> {
    let files = files(root, row)?;
    let contents = files.iter().map(|name| (name.as_str(), std::fs::read(root.join(name)).ok()));
    Ok(digest(&row.definition(), contents))
}

/// The commit, and whether the row's files differ from it.
///
/// # Errors
/// When git fails.
pub fn commit(root: &Path, row: &Row) -> Result<(String, bool)> {
    let commit = run(git(root).args(["rev-parse", "HEAD"]))?.trim().to_owned();
    let changes = run(git(root).args(["status", "--porcelain", "--"]).args(row.depends_on()))?;
    Ok((commit, !changes.trim().is_empty()))
}

fn files(root: &Path, row: &Row) -> Result<Vec<String>> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"];
    let listed = run(git(root).args(list).args(row.depends_on()))
        .with_context(|| format!("list the files that {} depends on", row.name))?;
    let mut files: Vec<String> = listed.split('\0').filter(|n| !n.is_empty()).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    Ok(files)
}

fn git(root: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(root);
    git
}

/// `None` as content is a file that git knows and that is deleted.
fn digest<'a>(definition: &str, files: impl Iterator<Item = (&'a str, Option<Vec<u8>>)>) -> String {
    let mut all = Sha256::new();
    all.update(definition);
    for (name, content) in files {
        // Lengths and fixed-size hashes, so that no two lists of files read the same.
        all.update((name.len() as u64).to_le_bytes());
        all.update(name);
        match content {
            Some(content) => all.update(Sha256::digest(content)),
            None => all.update([0; 32]),
        }
    }
    all.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[(&str, Option<&str>)]) -> String {
        digest("row", files.iter().map(|(name, text)| (*name, text.map(|t| t.as_bytes().to_vec()))))
    }

    #[test]
    fn every_name_and_every_content_counts() {
        let one = of(&[("a", Some("x")), ("b", Some("y"))]);
        assert_eq!(one, of(&[("a", Some("x")), ("b", Some("y"))]));
        assert_ne!(one, of(&[("a", Some("x")), ("b", Some("z"))]));
        assert_ne!(one, of(&[("a", Some("x")), ("b", None)]));
        assert_ne!(one, of(&[("ab", Some("x"))]));
        assert_eq!(one.len(), 32);
    }
}
