//! `target/dist`: everything that an installation needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::binaries::build_release;
use super::images::{Image, Images, Release, write_all};
use super::workspace;
use crate::prereq;

/// Which images there are, and how pods refer to them.
const INDEX: &str = "images/index.json";
/// Written by the push script beside `install.yaml`: references of the images that it has pushed.
const PUSHED: &str = "pushed";

/// What `make dist` wrote.
#[derive(Debug, Clone)]
pub struct Dist {
    pub folder: PathBuf,
    pub images: Images,
}

impl Dist {
    /// What was written last, and not changed since.
    ///
    /// # Errors
    /// When nothing was.
    pub fn written() -> Result<Self> {
        let folder = workspace().join("target/dist");
        let path = folder.join(INDEX);
        let index = std::fs::read(&path)
            .with_context(|| format!("read {}: run `make dist` to have it", path.display()))?;
        let images =
            serde_json::from_slice(&index).with_context(|| format!("understand {}", path.display()))?;
        Ok(Self { folder, images })
    }

    /// Every image.
    pub fn images(&self) -> Vec<&Image> {
        self.images.all()
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
    let images = write_all(&binaries, registry, &folder.join("images"))?;
    write(&folder.join("crds.yaml"), &manifests(&binaries, &["crds"])?)?;
    let releases: Vec<String> = images.releases.iter().map(Release::argument).collect();
    let install = install_yaml(&binaries, &images.operator, &releases, pull_secrets)?;
    write(&folder.join("install.yaml"), &install)?;
    write(&folder.join(INDEX), &serde_json::to_vec_pretty(&images)?)?;
    let dist = Dist { folder, images };
    write(&dist.folder.join("bookinfo.yaml"), bookinfo_yaml(&dist.images.bookinfo)?.as_bytes())?;
    let script = dist.folder.join("push.sh");
    write(&script, push_script(registry, &dist).as_bytes())?;
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("make {} executable", script.display()))?;
    Ok(dist)
}

/// The install file of an operator that knows these releases, each as [`Release::argument`] has it.
pub(super) fn install_yaml(
    binaries: &Path,
    operator: &Image,
    releases: &[String],
    pull_secrets: &[String],
) -> Result<Vec<u8>> {
    let mut args = vec!["install", "--operator-image", &operator.reference];
    args.extend(releases.iter().flat_map(|release| ["--release", release]));
    args.extend(pull_secrets.iter().flat_map(|secret| ["--pull-secret", secret]));
    manifests(binaries, &args)
}

fn manifests(binaries: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(binaries.join("operator"))
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
        let Image { name, tag, archive, .. } = image;
        let archive = archive.file_name().unwrap_or_default().to_string_lossy();
        script += &format!(
            "skopeo copy --preserve-digests oci-archive:{archive} docker://{registry}/{name}:{tag}\n"
        );
    }
    let references: Vec<&str> = dist.images().iter().map(|image| image.reference.as_str()).collect();
    let references = references.join(" ");
    script += &format!("printf '%s\\n' {references} >../{PUSHED}\n");
    script
}

pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(folder: &Path, name: &str, tag: &str) -> Image {
        Image {
            name: name.to_owned(),
            tag: tag.to_owned(),
            archive: folder.join(format!("images/{name}-{tag}.tar")),
            reference: format!("r.example/{name}@sha256:{name}{tag}"),
            bytes: 1,
        }
    }

    fn dist(folder: &Path) -> Dist {
        let releases = ["1", "2"].map(|version| Release {
            version: version.to_owned(),
            control_plane: image(folder, "c", version),
            proxy: image(folder, "p", version),
        });
        let images = Images {
            operator: image(folder, "o", "2"),
            releases: releases.into(),
            bookinfo: image(folder, "b", "2"),
        };
        Dist { folder: folder.to_owned(), images }
    }

    #[test]
    fn what_the_push_script_has_pushed_counts_until_the_images_change() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        let mut dist = dist(folder.path());
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
                .starts_with("r.example/o@sha256:o2 has not been pushed")
        );
        assert!(run("true"));
        dist.ensure_pushed().unwrap();
        dist.images.bookinfo = image(folder.path(), "b", "3");
        assert!(dist.ensure_pushed().is_err());
    }

    #[test]
    fn every_release_is_pushed_under_its_own_tag() {
        let script = push_script("r.example/mesh", &dist(Path::new("/dist")));
        for line in [
            "oci-archive:c-1.tar docker://r.example/mesh/c:1\n",
            "oci-archive:p-2.tar docker://r.example/mesh/p:2\n",
        ] {
            assert!(script.contains(line), "{script}");
        }
        assert_eq!(script.matches("skopeo copy").count(), 6);
    }
}
