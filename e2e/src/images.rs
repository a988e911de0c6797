//! Container images without a container engine: an OCI archive from a list of files, always the same bytes
//! for the same inputs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// `sha256:<hex>`: of an image, what `name@<digest>` refers to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(String);

impl Digest {
    fn of(bytes: &[u8]) -> Self {
        Self(format!(
            "sha256:{}",
            Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
        ))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn blob_path(&self) -> String {
        format!("blobs/{}", self.0.replace(':', "/"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One file of an image. Owned by root; parent folders are made (0755).
#[derive(Clone, Debug)]
pub struct ImageFile {
    /// Absolute path in the image.
    pub path: String,
    pub mode: u32,
    pub bytes: Vec<u8>,
}

impl ImageFile {
    /// A file read from this machine.
    pub fn read(from: &Path, path: &str, mode: u32) -> Result<Self> {
        let bytes =
            std::fs::read(from).with_context(|| format!("reading {} for an image", from.display()))?;
        Ok(Self { path: path.to_owned(), mode, bytes })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// For the local cluster: quickest to write and to unpack.
    #[default]
    Plain,
    /// For images that travel.
    Gzip,
}

/// An image of one layer for linux/amd64.
#[derive(Clone, Debug, Default)]
pub struct ImageSpec {
    /// `name:tag`, with a registry's name first: what a pod's `image` says.
    pub reference: String,
    pub files: Vec<ImageFile>,
    pub entrypoint: Vec<String>,
    /// `uid` or `uid:gid`; numbers, or `runAsNonRoot` cannot be checked. Empty: root.
    pub user: String,
    /// `NAME=value`
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub compression: Compression,
}

/// Writes an image as an OCI archive and returns its manifest's digest.
///
/// The archive is what `cluster load` takes. Nothing in it depends on the time, the machine or the order of
/// `files`: the same spec gives the same digest.
///
/// # Errors
/// When the reference has no tag, a path is not absolute or occurs twice, or `path` cannot be written.
pub fn write_oci_archive(spec: &ImageSpec, path: &Path) -> Result<Digest> {
    let (_, tag) = spec
        .reference
        .rsplit_once(':')
        .filter(|(name, tag)| !name.is_empty() && !tag.contains('/'))
        .with_context(|| format!("the image reference {:?} needs a tag, as in name:tag", spec.reference))?;
    let tar = layer(&spec.files).with_context(|| format!("the layer of {}", spec.reference))?;
    let diff_id = Digest::of(&tar);
    let (layer, layer_type) = match spec.compression {
        Compression::Plain => (tar, "application/vnd.oci.image.layer.v1.tar"),
        Compression::Gzip => (gzip(&tar)?, "application/vnd.oci.image.layer.v1.tar+gzip"),
    };
    let config = serde_json::to_vec(&config(spec, &diff_id)).context("the image's config")?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor(layer_type, &layer)],
    }))?;
    let digest = Digest::of(&manifest);
    let mut index_entry = descriptor(MANIFEST, &manifest);
    index_entry["platform"] = json!({"architecture": "amd64", "os": "linux"});
    index_entry["annotations"] =
        json!({"io.containerd.image.name": spec.reference, "org.opencontainers.image.ref.name": tag});
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [index_entry],
    }))?;

    // Under another name until complete, so that an interrupted write is never taken for an image.
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let file = File::create(&partial).with_context(|| format!("creating {}", partial.display()))?;
    let mut archive = tar::Builder::new(BufWriter::new(file));
    for dir in ["blobs/", "blobs/sha256/"] {
        append(&mut archive, dir, 0o755, &[])?;
    }
    let mut blobs = BTreeMap::new();
    for blob in [&config, &layer, &manifest] {
        blobs.insert(Digest::of(blob).blob_path(), blob);
    }
    for (name, bytes) in blobs {
        append(&mut archive, &name, 0o644, bytes)?;
    }
    append(&mut archive, "index.json", 0o644, &index)?;
    append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut file = archive.into_inner().context("ending an archive")?;
    file.flush().context("ending an archive")?;
    std::fs::rename(&partial, path).with_context(|| format!("writing {}", path.display()))?;
    Ok(digest)
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Name and digest of every image in an archive.
pub fn read_index(path: &Path) -> Result<Vec<(String, Digest)>> {
    let file = File::open(path).with_context(|| format!("opening the image archive {}", path.display()))?;
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries().with_context(|| format!("reading {}", path.display()))? {
        let entry = entry.with_context(|| format!("reading {}", path.display()))?;
        if entry.path().is_ok_and(|p| p.to_string_lossy().trim_start_matches("./") == "index.json") {
            let index: Value = serde_json::from_reader(entry).context("reading index.json")?;
            let manifests = index["manifests"].as_array().cloned().unwrap_or_default();
            return Ok(manifests
                .iter()
                .filter_map(|m| {
                    let name = m["annotations"]["io.containerd.image.name"].as_str()?;
                    Some((name.to_owned(), Digest(m["digest"].as_str()?.to_owned())))
                })
                .collect());
        }
    }
    bail!(
        "{} has no index.json: write it with meshwright_e2e::write_oci_archive, or as an OCI archive",
        path.display()
    )
}

fn config(spec: &ImageSpec, diff_id: &Digest) -> Value {
    // Without a PATH a container cannot name its programs shortly.
    let mut env = spec.env.clone();
    if !env.iter().any(|e| e.starts_with("PATH=")) {
        env.insert(0, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    }
    json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": spec.user,
            "Env": env,
            "Entrypoint": spec.entrypoint,
            "WorkingDir": "/",
            "Labels": spec.labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id.as_str()]},
    })
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()})
}

fn layer(files: &[ImageFile]) -> Result<Vec<u8>> {
    let mut sorted = BTreeMap::new();
    let mut dirs = BTreeSet::new();
    for file in files {
        let Some(name) = file.path.strip_prefix('/').filter(|n| !n.is_empty() && !n.ends_with('/')) else {
            bail!("{:?} is no absolute path of a file", file.path);
        };
        if sorted.insert(name, file).is_some() {
            bail!("{} occurs twice", file.path);
        }
        dirs.extend(name.match_indices('/').map(|(at, _)| &name[..=at]));
    }
    let mut archive = tar::Builder::new(Vec::new());
    for dir in dirs {
        // Programs of any user may need a scratch folder.
        append(&mut archive, dir, if dir == "tmp/" { 0o1777 } else { 0o755 }, &[])?;
    }
    for (name, file) in sorted {
        append(&mut archive, name, file.mode, &file.bytes)?;
    }
    archive.into_inner().context("ending a layer")
}

/// A name that ends in a slash is a folder.
fn append(archive: &mut tar::Builder<impl Write>, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(if name.ends_with('/') {
        tar::EntryType::Directory
    } else {
        tar::EntryType::Regular
    });
    header.set_mode(mode);
    header.set_size(bytes.len() as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, bytes).with_context(|| format!("adding {name} to an archive"))
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    // The encoder's header has neither name nor time.
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).context("compressing a layer")?;
    encoder.finish().context("compressing a layer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ImageSpec {
        let file = |path: &str| ImageFile { path: path.into(), mode: 0o755, bytes: path.as_bytes().to_vec() };
        ImageSpec {
            reference: "example.test/app:1".into(),
            files: vec![file("/usr/bin/b"), file("/usr/bin/a")],
            entrypoint: vec!["/usr/bin/a".into()],
            user: "65532".into(),
            ..ImageSpec::default()
        }
    }

    #[test]
    fn the_order_of_files_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (dir.path().join("1"), dir.path().join("2"));
        let mut turned = spec();
        turned.files.reverse();
        let digest = write_oci_archive(&spec(), &one).unwrap();
        assert_eq!(digest, write_oci_archive(&turned, &other).unwrap());
        assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&other).unwrap());
        assert_eq!(read_index(&one).unwrap(), vec![("example.test/app:1".to_owned(), digest)]);
    }

    #[test]
    fn bad_specs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut no_tag = spec();
        no_tag.reference = "localhost:5000/app".into();
        let mut relative = spec();
        relative.files[0].path = "bin/a".into();
        let mut twice = spec();
        twice.files[0].path = "/usr/bin/a".into();
        for bad in [no_tag, relative, twice] {
            assert!(write_oci_archive(&bad, &path).is_err());
            assert!(!path.exists());
        }
    }
}
