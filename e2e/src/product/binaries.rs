//! Static release binaries of everything that runs in an image.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::layout::{Layout, cache};

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PACKAGES: [&str; 5] = [
    "meshwright-operator",
    "meshwright-control-plane",
    "meshwright-agent",
    "meshwright-cni",
    "meshwright-bookinfo",
];
/// The feature that only images for tests are built with.
const FAULTS: &str = "meshwright-control-plane/faults";
const CONTROL_PLANE: &str = "control-plane";
/// Name of the control plane that has it, beside the one that has not.
pub const FAULTY_CONTROL_PLANE: &str = "control-plane-with-faults";

/// Root of the checkout that the working directory is in.
pub fn workspace() -> PathBuf {
    Layout::find().map_or_else(|_| PathBuf::from("."), |layout| layout.root)
}

/// Builds the release binaries and returns the folder that holds them.
pub fn build_release() -> Result<PathBuf> {
    cargo_build(&[])
}

/// Builds the control plane with its faults as well; it is [`FAULTY_CONTROL_PLANE`] in the folder that is returned.
pub fn build_faulty() -> Result<PathBuf> {
    // All packages again, so that only the control plane differs: fewer packages would need other features of what they depend on.
    let folder = cargo_build(&["--features", FAULTS])?;
    let (plain, faulty) = (folder.join(CONTROL_PLANE), folder.join(FAULTY_CONTROL_PLANE));
    let copied = std::fs::copy(&plain, &faulty)
        .with_context(|| format!("copy {} to {}", plain.display(), faulty.display()));
    // Both builds are kept; cargo only puts the name back to the other one.
    cargo_build(&[])?;
    copied?;
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    ensure!(read(&plain)? != read(&faulty)?, "{} has faults: remove it and build again", plain.display());
    Ok(folder)
}

/// Builds `kubectl-mesh` with the settings of the tests and returns its path.
///
/// # Errors
/// When it cannot be built.
pub fn build_plugin() -> Result<PathBuf> {
    let target_dir = target_dir()?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace()).args(["build", "--quiet", "-p", "meshwright-cli"]);
    let status =
        cargo.env("CARGO_TARGET_DIR", &target_dir).status().context("start cargo to build kubectl-mesh")?;
    ensure!(status.success(), "cargo build of kubectl-mesh failed: {status}");
    Ok(target_dir.join("debug/kubectl-mesh"))
}

fn target_dir() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => Ok(PathBuf::from(dir)),
        None => Ok(cache()?.join("cargo-target")),
    }
}

fn cargo_build(features: &[&str]) -> Result<PathBuf> {
    let target_dir = target_dir()?;
    let mut cargo = Command::new("cargo");
    cargo.current_dir(workspace()).args(["build", "--quiet", "--release", "--bins", "--target", TARGET]);
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    // Static, so that images need nothing but the binary; the explicit --target keeps the flag away from proc macros.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env("CARGO_TARGET_DIR", &target_dir);
    let status = cargo.args(features).status().context("start cargo to build the release binaries")?;
    ensure!(status.success(), "cargo build of the release binaries failed: {status}");
    Ok(target_dir.join(TARGET).join("release"))
}
