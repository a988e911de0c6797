//! `target/dist`: everything that an installation needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::binaries::build_release;
use super::images::{Image, VERSION, write_all};
use super::workspace;
use crate::prereq;

/// Written by the push script beside `install.yaml`: references of the images that it has pushed.
const PUSHED: &str = "pushed";

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

    /// Makes sure that exactly these images were pushed: for others pods would wait in vain.
    ///
    /// # Errors
    /// Names the first one that was not.
    pub fn ensure_pushed(&self) -> Result<()> {
        let pushed = std::fs::read_to_string(self.folder.join(PUSHED)).unwrap_or_default();
        for Image { reference, .. } in self.images() {
            let script = self.folder.join("push.sh");
            ensure!(
                pushed.lines().any(|line| line == reference),
                "{reference} has not been pushed: run {}, then this again",
                script.display()
            );
        }
        Ok(())
    }
}

/// Builds all of it; images are said to come from `registry`.
///
/// # Errors
/// Names the step that failed.
pub fn build(registry: &str, pull_secrets: &[String]) -> Result<Dist> {
    prereq::to_fetch()?;
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
    let script = dist.folder.join("push.sh");
    write(&script, push_script(registry, &dist).as_bytes())?;
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("make {} executable", script.display()))?;
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

/// Pushes the archives by digest, so that the references in `install.yaml` hold, and writes down what is pushed.
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
    let references = dist.images().map(|image| image.reference.as_str()).join(" ");
    script += &format!("printf '%s\\n' {references} >../{PUSHED}\n");
    script
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_push_script_has_pushed_counts_until_the_images_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let image = |name: &str| {
            let archive = at("images").join(format!("{name}.tar"));
            Image { archive, reference: format!("r.example/{name}@sha256:{name}"), bytes: 1 }
        };
        let [operator, control_plane, proxy, bookinfo] = ["a", "b", "c", "d"].map(image);
        let folder = folder.path().to_owned();
        let mut dist = Dist { folder, operator, control_plane, proxy, bookinfo };
        std::fs::create_dir(at("images")).unwrap();
        write(&at("push.sh"), push_script("r.example", &dist).as_bytes()).unwrap();
        let run = |skopeo: &str| {
            let script =
                format!("skopeo() {{ {skopeo}; }}; export -f skopeo; exec bash {}", at("push.sh").display());
            Command::new("bash").args(["-c", &script]).status().unwrap().success()
        };
        assert!(!run("false"));
        assert!(
            dist.ensure_pushed()
                .unwrap_err()
                .to_string()
                .starts_with("r.example/a@sha256:a has not been pushed")
        );
        assert!(run("true"));
        dist.ensure_pushed().unwrap();
        dist.bookinfo = image("e");
        assert!(dist.ensure_pushed().is_err());
    }
}
