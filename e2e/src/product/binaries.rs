//! Static release binaries of everything that runs in an image.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::layout::{Layout, cache};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGES: [&str; 4] =
    ["meshwright-operator", "meshwright-control-plane", "meshwright-agent", "meshwright-bookinfo"];

/// Root of the checkout that the working directory is in.
pub fn workspace() -> PathBuf {
    Layout::find().map_or_else(|_| PathBuf::from("."), |layout| layout.root)
}

/// Builds the release binaries and returns the folder that holds them.
pub fn build_release() -> Result<PathBuf> {
    let target_dir = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => cache()?.join("cargo-target"),
    };
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace()).args(["build", "--quiet", "--release", "--bins", "--target", TARGET]);
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    // Static, so that images need nothing but the binary; the explicit --target keeps the flag away from proc macros.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env("CARGO_TARGET_DIR", &target_dir);
    let status = cargo.status().context("start cargo to build the release binaries")?;
    ensure!(status.success(), "cargo build of the release binaries failed: {status}");
    Ok(target_dir.join(TARGET).join("release"))
}
