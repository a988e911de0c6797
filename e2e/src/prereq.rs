//! What the machine must have, checked before anything is started.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{exists, run};
use crate::go;
use crate::programs::FAMILIES;

/// What to look for, and the Debian package that has it.
enum Need {
    Program(&'static str, &'static str),
    PkgConfig(&'static str, &'static str),
}

const TO_RUN: &[Need] = &[
    Need::Program("ip", "iproute2"),
    Need::Program("nft", "nftables"),
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

impl Need {
    fn met(&self) -> bool {
        match self {
            Self::Program(name, _) => exists(name) || Path::new("/usr/sbin").join(name).exists(),
            Self::PkgConfig(name, _) => run(Command::new("pkg-config").args(["--exists", name])).is_ok(),
        }
    }

    fn package(&self) -> &'static str {
        match self {
            Self::Program(_, package) | Self::PkgConfig(_, package) => package,
        }
    }
}

/// Checks everything `up` needs; installs Debian packages that are missing.
pub fn check(root: &Path) -> Result<()> {
    require_root()?;
    let mut needs: Vec<&Need> = TO_RUN.iter().collect();
    let missing: Vec<_> =
        FAMILIES.iter().filter(|f| f.cluster).map(|f| f.missing(root)).collect::<Result<_>>()?;
    if missing.iter().flatten().any(|(program, _)| *program == "runc") {
        needs.extend(TO_BUILD);
    }
    install(&needs)?;
    if !missing.iter().all(Vec::is_empty) {
        go::toolchain(go::AtLeast::Go126)?;
    }
    if !Path::new("/sys/fs/cgroup").is_dir() {
        bail!("no cgroups at /sys/fs/cgroup: mount them there");
    }
    Ok(())
}

pub fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a cluster's nodes are namespaces, cgroups and mounts: run this as root (sudo -E)");
    }
    Ok(())
}

fn install(needs: &[&Need]) -> Result<()> {
    let unmet = || {
        let mut packages: Vec<_> = needs.iter().filter(|n| !n.met()).map(|n| n.package()).collect();
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
