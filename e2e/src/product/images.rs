//! The images: static binaries, and for the proxy Envoy with the few libraries that it is linked against.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{cache, ensure_envoy};
use crate::{ImageFile, ImageSpec, programs, write_oci_archive};

/// Release of the product, the tag of its images.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
const USER: &str = "65532:65532";
/// What Envoy's release binary loads; all of them belong to Debian's package libc6.
const ENVOY_LIBRARIES: [&str; 6] =
    ["libm.so.6", "librt.so.1", "libdl.so.2", "libpthread.so.0", "libc.so.6", "libnss_dns.so.2"];
const LIBRARY_FOLDER: &str = "/lib/x86_64-linux-gnu";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// An image on disk and how pods refer to it.
#[derive(Debug, Clone)]
pub struct Image {
    pub archive: PathBuf,
    /// `registry/name@sha256:…`
    pub reference: String,
    pub bytes: u64,
}

/// Writes every image into `folder`, in the order of [`super::Dist`]'s fields.
pub fn write_all(binaries: &Path, registry: &str, folder: &Path) -> Result<[Image; 4]> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let program = |name: &str, to: &str| ImageFile::read(&binaries.join(name), to, 0o755);
    let mut operator = vec![program("operator", "/operator")?];
    operator.extend(gateway_api_files()?);
    let mut proxy = vec![program("agent", "/usr/local/bin/agent")?];
    proxy.push(ImageFile::read(&ensure_envoy(&cache()?)?, "/usr/local/bin/envoy", 0o755)?);
    proxy.push(ImageFile::read(Path::new(LOADER), LOADER, 0o755)?);
    for library in ENVOY_LIBRARIES {
        let path = format!("{LIBRARY_FOLDER}/{library}");
        proxy.push(ImageFile::read(Path::new(&path), &path, 0o755)?);
    }
    let write = |name: &str, files: Vec<ImageFile>, entrypoint: &str| {
        let reference = format!("{registry}/{name}");
        let spec = ImageSpec {
            reference: format!("{reference}:{VERSION}"),
            files,
            entrypoint: vec![entrypoint.to_owned()],
            user: USER.to_owned(),
            ..ImageSpec::default()
        };
        let archive = folder.join(format!("{name}.tar"));
        let digest = write_oci_archive(&spec, &archive)?;
        let bytes =
            archive.metadata().with_context(|| format!("read the size of {}", archive.display()))?.len();
        Ok::<_, anyhow::Error>(Image { archive, reference: format!("{reference}@{digest}"), bytes })
    };
    Ok([
        write("operator", operator, "/operator")?,
        write("control-plane", vec![program("control-plane", "/control-plane")?], "/control-plane")?,
        write("proxy", proxy, "/usr/local/bin/agent")?,
        write("bookinfo", vec![program("bookinfo", "/bookinfo")?], "/bookinfo")?,
    ])
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
