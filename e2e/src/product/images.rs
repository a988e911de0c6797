//! The images: static binaries, and for the proxy Envoy and nft with the few libraries that they are linked against.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{cache, ensure_envoy};
use crate::command::run;
use crate::{ImageFile, ImageSpec, programs, write_oci_archive};

/// Release of the product, the tag of images that no other release has.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Releases of the mesh that the operator installs, the newest last. All are made from this checkout.
pub const RELEASES: [&str; 2] = ["0.2.0", "0.3.0"];
const USER: &str = "65532:65532";
/// What Envoy's release binary loads; all of them belong to Debian's package libc6.
const ENVOY_LIBRARIES: [&str; 6] =
    ["libm.so.6", "librt.so.1", "libdl.so.2", "libpthread.so.0", "libc.so.6", "libnss_dns.so.2"];
/// By which the agent redirects pods' connections; of Debian's package nftables, which [`crate::prereq`] installs.
const NFT: &str = "/usr/sbin/nft";
/// What it loads besides.
const NFT_LIBRARIES: [&str; 10] = [
    "libnftables.so.1",
    "libnftnl.so.11",
    "libmnl.so.0",
    "libxtables.so.12",
    "libjansson.so.4",
    "libgmp.so.10",
    "libedit.so.2",
    "libtinfo.so.6",
    "libbsd.so.0",
    "libmd.so.0",
];
const LIBRARY_FOLDER: &str = "/lib/x86_64-linux-gnu";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// An image on disk and how pods refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Such as `control-plane`.
    pub name: String,
    /// Such as `0.3.0`.
    pub tag: String,
    pub archive: PathBuf,
    /// `registry/name@sha256:…`
    pub reference: String,
    pub bytes: u64,
}

/// The images of a release of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub version: String,
    pub control_plane: Image,
    pub proxy: Image,
}

impl Release {
    /// What `--release` of `operator manifests install` takes.
    pub fn argument(&self) -> String {
        format!("{}={},{}", self.version, self.control_plane.reference, self.proxy.reference)
    }
}

/// Everything that is in `target/dist/images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    pub operator: Image,
    pub releases: Vec<Release>,
    pub bookinfo: Image,
}

impl Images {
    /// Every one.
    pub fn all(&self) -> Vec<&Image> {
        let Self { operator, releases, bookinfo } = self;
        let of_releases = releases.iter().flat_map(|release| [&release.control_plane, &release.proxy]);
        std::iter::once(operator).chain(of_releases).chain([bookinfo]).collect()
    }
}

/// Writes every image into the folder.
pub fn write_all(binaries: &Path, registry: &str, folder: &Path) -> Result<Images> {
    let writer = Writer::new(registry, folder)?;
    let mut operator = vec![program(binaries, "operator", "/operator")?];
    operator.extend(gateway_api_files()?);
    let control_plane = [program(binaries, "control-plane", "/control-plane")?];
    let proxy = proxy_files(binaries)?;
    let releases = RELEASES.iter().map(|version| {
        // The same binaries under each number, so the number itself makes the digests differ.
        let env = || vec![version_variable(version)];
        let of = |name: &str| format!("{name}-{version}");
        Ok(Release {
            version: (*version).to_owned(),
            control_plane: writer.write(
                "control-plane",
                version,
                &of("control-plane"),
                &control_plane,
                env(),
                "/control-plane",
            )?,
            proxy: writer.write("proxy", version, &of("proxy"), &proxy, env(), "/usr/local/bin/agent")?,
        })
    });
    let releases = releases.collect::<Result<_>>()?;
    let bookinfo = [program(binaries, "bookinfo", "/bookinfo")?];
    Ok(Images {
        operator: writer.write("operator", VERSION, "operator", &operator, Vec::new(), "/operator")?,
        releases,
        bookinfo: writer.write("bookinfo", VERSION, "bookinfo", &bookinfo, Vec::new(), "/bookinfo")?,
    })
}

/// Tells a container which release it is.
pub(super) fn version_variable(version: &str) -> String {
    format!("MESHWRIGHT_VERSION={version}")
}

pub(super) fn program(binaries: &Path, name: &str, to: &str) -> Result<ImageFile> {
    ImageFile::read(&binaries.join(name), to, 0o755)
}

/// Writes archives into a folder, for images of one registry.
pub(super) struct Writer<'a> {
    registry: &'a str,
    folder: &'a Path,
}

impl<'a> Writer<'a> {
    pub(super) fn new(registry: &'a str, folder: &'a Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(Self { registry, folder })
    }

    pub(super) fn write(
        &self,
        name: &str,
        tag: &str,
        archive: &str,
        files: &[ImageFile],
        env: Vec<String>,
        entrypoint: &str,
    ) -> Result<Image> {
        let reference = format!("{}/{name}", self.registry);
        let spec = ImageSpec {
            reference: format!("{reference}:{tag}"),
            files: files.to_vec(),
            entrypoint: vec![entrypoint.to_owned()],
            user: USER.to_owned(),
            env,
            ..ImageSpec::default()
        };
        let archive = self.folder.join(format!("{archive}.tar"));
        let digest = write_oci_archive(&spec, &archive)?;
        let bytes =
            archive.metadata().with_context(|| format!("read the size of {}", archive.display()))?.len();
        let (name, tag) = (name.to_owned(), tag.to_owned());
        Ok(Image { name, tag, archive, reference: format!("{reference}@{digest}"), bytes })
    }
}

fn proxy_files(binaries: &Path) -> Result<Vec<ImageFile>> {
    let mut files = vec![
        program(binaries, "agent", "/usr/local/bin/agent")?,
        program(binaries, "meshwright-cni", "/usr/local/bin/meshwright-cni")?,
    ];
    files.push(ImageFile::read(&ensure_envoy(&cache()?)?, "/usr/local/bin/envoy", 0o755)?);
    files.push(ImageFile::read(Path::new(NFT), NFT, 0o755)?);
    files.push(ImageFile::read(Path::new(LOADER), LOADER, 0o755)?);
    let linked = run(Command::new("ldd").arg(NFT))?;
    let unlisted = unlisted(&linked);
    ensure!(
        unlisted.is_empty(),
        "{NFT} of this machine is linked against {unlisted:?} too: add them to NFT_LIBRARIES"
    );
    for library in ENVOY_LIBRARIES.into_iter().chain(NFT_LIBRARIES) {
        let path = format!("{LIBRARY_FOLDER}/{library}");
        files.push(ImageFile::read(Path::new(&path), &path, 0o755)?);
    }
    Ok(files)
}

/// What `ldd` says of a program, and would be missing in the image.
fn unlisted(ldd: &str) -> Vec<&str> {
    let linked = ldd.lines().filter_map(|line| line.trim().split_once(" => ")).map(|(library, _)| library);
    let listed = |library: &&str| ENVOY_LIBRARIES.contains(library) || NFT_LIBRARIES.contains(library);
    linked.filter(|library| !listed(library)).collect()
}

/// The Gateway API's CRDs, which the operator installs where they are absent.
fn gateway_api_files() -> Result<Vec<ImageFile>> {
    let folder = programs::gateway_api_crds(&super::workspace())?;
    let mut files = Vec::new();
    for channel in ["standard", "experimental"] {
        let folder = folder.join(channel);
        for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".yaml") && name != "kustomization.yaml" {
                files.push(ImageFile::read(&path, &format!("/gateway-api/{channel}/{name}"), 0o644)?);
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_of_the_mesh_is_this_one() {
        assert_eq!(RELEASES.last(), Some(&VERSION));
    }

    #[test]
    fn a_library_that_the_image_would_lack_is_named() {
        let ldd = "\tlinux-vdso.so.1 (0x7f8d3500b000)\n\tlibmnl.so.0 => /lib/x86_64-linux-gnu/libmnl.so.0 (0x7f8d34cf4000)\n\
                   \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f8d34cfc000)\n\tlibnew.so.1 => not found\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x7f8d3500d000)\n";
        assert_eq!(unlisted(ldd), ["libnew.so.1"]);
    }

    #[test]
    fn releases_of_the_same_binaries_are_different_images() {
        let folder = tempfile::tempdir().unwrap();
        let writer = Writer::new("r.example", folder.path()).unwrap();
        let files = [ImageFile { path: "/program".into(), mode: 0o755, bytes: b"same".to_vec() }];
        let [old, new] = RELEASES.map(|version| {
            let env = vec![version_variable(version)];
            writer.write("program", version, &format!("program-{version}"), &files, env, "/program").unwrap()
        });
        assert_ne!(old.reference, new.reference);
        assert!(new.archive.ends_with("program-0.3.0.tar"), "{}", new.archive.display());
        let release = Release { version: "0.3.0".into(), control_plane: old, proxy: new };
        assert!(release.argument().starts_with("0.3.0=r.example/program@sha256:"), "{}", release.argument());
    }
}
