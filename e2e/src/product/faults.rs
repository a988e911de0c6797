//! Bad versions of the mesh, for tests only: what an upgrade has to recognise and to take back. They are the control plane with a cargo
//! feature that no release build has, never a part of `target/dist`, and known only to an operator that was told of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::binaries::{FAULTY_CONTROL_PLANE, build_faulty, workspace};
use super::dist::{Dist, install_yaml, write};
use super::images::{RELEASES, Release, Writer, program, version_variable};
use super::{apply_file, timed};
use crate::Cluster;

/// A version with one fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// As the variable `FAULT` of its image says it.
    pub name: &'static str,
    pub version: &'static str,
}

const fn fault(name: &'static str, version: &'static str) -> Fault {
    Fault { name, version }
}

/// Every bad version.
pub const FAULTS: [Fault; 10] = [
    fault("crash-at-start", "0.3.1"),
    fault("crash-after-a-minute", "0.3.2"),
    fault("silent-xds", "0.3.3"),
    fault("rejected-configuration", "0.3.4"),
    fault("lost-route", "0.3.5"),
    fault("errors", "0.3.6"),
    fault("slow", "0.3.7"),
    fault("refused-certificates", "0.3.8"),
    fault("leak", "0.3.9"),
    UNPULLABLE,
];

/// There is no such image, so there is nothing to build.
const UNPULLABLE: Fault = fault("unpullable", "0.3.10");
const ABSENT: &str = "registry.meshwright.example/absent@sha256:0000000000000000000000000000000000000000000000000000000000000000";
const FOLDER: &str = "target/bad-versions";

/// Brings the bad version's image to the nodes, and installs the operator anew: what is in `target/dist`, and knowing that version too.
/// [`super::apply_files`] undoes it.
///
/// # Errors
/// Names the step that failed.
pub fn install(cluster: &Cluster, fault: Fault) -> Result<()> {
    let dist = Dist::written()?;
    let newest = dist.images.releases.last().context("target/dist has no release")?;
    let binaries = timed("control plane with faults", build_faulty)?;
    let control_plane = match fault {
        UNPULLABLE => ABSENT.to_owned(),
        _ => {
            let (archive, reference) = image(&binaries, registry_of(newest), fault)?;
            cluster.load_image(&archive)?;
            reference
        }
    };
    let mut releases: Vec<String> = dist.images.releases.iter().map(Release::argument).collect();
    releases.push(format!("{}={control_plane},{}", fault.version, newest.proxy.reference));
    install_knowing(cluster, &binaries, &dist, &releases)
}

/// Installs the operator of `target/dist` as one that knows the oldest release only.
///
/// # Errors
/// Names the step that failed.
pub fn install_older(cluster: &Cluster) -> Result<()> {
    let dist = Dist::written()?;
    let oldest = dist.images.releases.iter().filter(|release| release.version == RELEASES[0]);
    let releases: Vec<String> = oldest.map(Release::argument).collect();
    install_knowing(cluster, &super::binaries::build_release()?, &dist, &releases)
}

fn install_knowing(cluster: &Cluster, binaries: &Path, dist: &Dist, releases: &[String]) -> Result<()> {
    let path = folder()?.join("install.yaml");
    write(&path, &install_yaml(binaries, &dist.images.operator, releases, &[])?)?;
    apply_file(cluster, &path)
}

fn image(binaries: &Path, registry: &str, fault: Fault) -> Result<(PathBuf, String)> {
    let folder = folder()?;
    let files = [program(binaries, FAULTY_CONTROL_PLANE, "/control-plane")?];
    let env = vec![version_variable(fault.version), format!("FAULT={}", fault.name)];
    let writer = Writer::new(registry, &folder)?;
    let image = writer.write("control-plane", fault.version, fault.name, &files, env, "/control-plane")?;
    Ok((image.archive, image.reference))
}

fn folder() -> Result<PathBuf> {
    let folder = workspace().join(FOLDER);
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

/// What comes before the image's name.
fn registry_of(release: &Release) -> &str {
    release.control_plane.reference.split_once("/control-plane@").map_or("", |(registry, _)| registry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::Image;

    #[test]
    fn each_fault_has_a_patch_release_of_its_own_that_nobody_released() {
        for (patch, fault) in (1..).zip(FAULTS) {
            assert_eq!(fault.version, format!("0.3.{patch}"));
            assert!(!RELEASES.contains(&fault.version));
        }
        let digest = ABSENT.rsplit(':').next().unwrap();
        assert!(digest.len() == 64 && digest.bytes().all(|b| b == b'0'), "{ABSENT}");
    }

    #[test]
    fn a_bad_version_comes_from_the_registry_of_the_good_ones() {
        let image = |name: &str| Image {
            name: name.to_owned(),
            tag: "1".to_owned(),
            archive: PathBuf::new(),
            reference: format!("r.example:5000/mesh/{name}@sha256:0"),
            bytes: 0,
        };
        let release =
            Release { version: "1".into(), control_plane: image("control-plane"), proxy: image("proxy") };
        assert_eq!(registry_of(&release), "r.example:5000/mesh");
    }
}
