//! `target/dist`: everything that an installation needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::binaries::build_release;
use super::images::{Image, VERSION, write_all};
use super::workspace;

/// What `make dist` wrote.
#[derive(Debug, Clone)]
pub struct Dist {
    pub folder: PathBuf,
    pub operator: Image,
    pub control_plane: Image,
    pub proxy: Image,
    pub bookinfo: Image,
}

impl Dist {
    /// Every image.
    pub fn images(&self) -> [&Image; 4] {
        [&self.operator, &self.control_plane, &self.proxy, &self.bookinfo]
    }
}

/// Builds all of it; images are said to come from `registry`.
///
/// # Errors
/// Names the step that failed.
pub fn build(registry: &str, pull_secrets: &[String]) -> Result<Dist> {
    let folder = workspace().join("target/dist");
    let binaries = build_release()?;
    let [operator, control_plane, proxy, bookinfo] = write_all(&binaries, registry, &folder.join("images"))?;
    let program = binaries.join("operator");
    write(&folder.join("crds.yaml"), &manifests(&program, &["crds"])?)?;
    let mut args = vec!["install", "--operator-image", &operator.reference];
    args.extend(["--control-plane-image", &control_plane.reference, "--proxy-image", &proxy.reference]);
    for secret in pull_secrets {
        args.extend(["--pull-secret", secret]);
    }
    write(&folder.join("install.yaml"), &manifests(&program, &args)?)?;
    let dist = Dist { folder, operator, control_plane, proxy, bookinfo };
    write(&dist.folder.join("bookinfo.yaml"), bookinfo_yaml(&dist.bookinfo)?.as_bytes())?;
    write(&dist.folder.join("push.sh"), push_script(registry, &dist).as_bytes())?;
    Ok(dist)
}

fn manifests(operator: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(operator)
        .arg("manifests")
        .args(args)
        .output()
        .context("start the operator's manifests command")?;
    ensure!(
        output.status.success(),
        "operator manifests {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn bookinfo_yaml(image: &Image) -> Result<String> {
    let folder = workspace().join("e2e/bookinfo/manifests");
    let mut yaml = String::new();
    for name in ["bookinfo.yaml", "gateway.yaml"] {
        let path = folder.join(name);
        yaml += &std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        yaml += "\n---\n";
    }
    let placeholder = "registry.example/meshwright/bookinfo:0.1.0";
    ensure!(yaml.contains(placeholder), "Bookinfo's manifests no longer name {placeholder}");
    Ok(yaml.trim_end_matches("---\n").replace(placeholder, &image.reference))
}

/// Pushes the archives by digest, so that the references in `install.yaml` hold.
fn push_script(registry: &str, dist: &Dist) -> String {
    let mut script = String::from(
        "#!/usr/bin/env bash\n# Pushes the images to the registry that install.yaml names; needs skopeo, logged in.\nset -eu\ncd \"$(dirname \"$0\")/images\"\n",
    );
    for image in dist.images() {
        let name = image.archive.file_stem().unwrap_or_default().to_string_lossy();
        script += &format!(
            "skopeo copy --preserve-digests oci-archive:{name}.tar docker://{registry}/{name}:{VERSION}\n"
        );
    }
    script
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}
