//! Puts our plugin into the node's list, keeps it there, and takes it out again.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context;
use meshwright_cni::PLUGIN;

use super::conflist;
use crate::node::{args::Paths, find, store};

/// No container runtime reads files with these endings.
const ORIGINAL: &str = "meshwright-original";
const NAMESPACES: &str = "meshwright.namespaces";

/// What had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: everything is as it should be.
    Unchanged,
    /// The list or the program was written.
    Written,
    /// The node has no list yet. Its network provider will write one.
    NoList,
}

/// The node's places for network plugins.
#[derive(Debug, Clone)]
pub struct Installation {
    paths: Paths,
    /// When the installed program was written, and its length, when it was ours.
    program: Option<(SystemTime, u64)>,
}

impl Installation {
    /// Nothing is done yet.
    pub fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone(), program: None }
    }

    /// Where plugins ask the agent.
    pub fn socket(&self) -> PathBuf {
        self.paths.node_dir.join("cni.sock")
    }

    /// What they read while nobody answers. Beside their list, because it must be there after a restart of the node.
    pub fn namespaces(&self) -> PathBuf {
        self.paths.cni_conf_dir.join(NAMESPACES)
    }

    /// Installs, or mends what somebody changed.
    ///
    /// # Errors
    /// When a directory cannot be used, or the list is none that can be chained.
    pub fn ensure(&mut self) -> anyhow::Result<Outcome> {
        let copied = self.copy_program()?;
        let Some(file) = conflist::used(self.files()?) else { return Ok(Outcome::NoList) };
        let what = || format!("read {}", file.display());
        let mut text = std::fs::read(&file).with_context(what)?;
        if let (true, Ok(before)) = (conflist::is_blank(&text), std::fs::read(original(&file))) {
            tracing::warn!(file = %file.display(), "the node's list is empty, it is made again of what it was before");
            text = before;
        }
        let entry = conflist::entry(&self.socket(), &self.namespaces());
        let Some(changed) = conflist::with(&file, &text, &entry)? else {
            return Ok(if copied { Outcome::Written } else { Outcome::Unchanged });
        };
        let mode = file.metadata().with_context(what)?.permissions().mode() & 0o777;
        if conflist::without(&text).is_none() {
            store::write(&original(&file), mode, &text)?;
        }
        store::write(&file, mode, changed.as_bytes())?;
        Ok(Outcome::Written)
    }

    /// Takes it away, with everything that we put there. Only our program stays, as long as pods are there that were set up with it: some
    /// container runtimes, CRI-O among them, end a pod by the list of its beginning, and a program that this names and that is gone would
    /// leave the pod Terminating for ever. It does nothing at a pod's end; the next removal takes it, or whoever cleans the node.
    ///
    /// # Errors
    /// When a directory cannot be used.
    pub fn remove(&self) -> anyhow::Result<()> {
        let (lists, others): (Vec<_>, Vec<_>) =
            self.files()?.into_iter().partition(|file| conflist::is_read(file));
        for file in lists {
            let text = std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            let before = std::fs::read(original(&file)).ok();
            if let Some(restored) = conflist::restored(&text, before.as_deref()) {
                let mode = file.metadata().map_or(0o644, |file| file.permissions().mode() & 0o777);
                store::write(&file, mode, &restored)?;
            }
        }
        // Only now: a list must never name a program that is not there.
        let originals =
            others.into_iter().filter(|file| file.extension().is_some_and(|ending| ending == ORIGINAL));
        let Paths { cni_cache_dir, netns_dir, .. } = &self.paths;
        let program = self.program();
        let kept = find::needs(cni_cache_dir, netns_dir, PLUGIN);
        if kept {
            tracing::info!(program = %program.display(), "stays for the end of pods that began with it");
        }
        let program = Some(program).filter(|_| !kept);
        for file in originals.chain(program).chain([self.namespaces(), self.socket()]) {
            store::remove(&file).with_context(|| format!("remove {}", file.display()))?;
        }
        Ok(())
    }

    fn copy_program(&mut self) -> anyhow::Result<bool> {
        let there = self.program();
        let written =
            |path: &Path| path.metadata().ok().and_then(|file| Some((file.modified().ok()?, file.len())));
        if self.program.is_some() && self.program == written(&there) {
            return Ok(false);
        }
        let ours = std::fs::read(&self.paths.plugin);
        let ours = ours.with_context(|| format!("read {}", self.paths.plugin.display()))?;
        let copies = std::fs::read(&there).map_or(true, |program| program != ours);
        if copies {
            store::write(&there, 0o755, &ours)?;
        }
        self.program = written(&there);
        Ok(copies)
    }

    fn program(&self) -> PathBuf {
        self.paths.cni_bin_dir.join(PLUGIN)
    }

    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let directory = &self.paths.cni_conf_dir;
        let files = std::fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
        Ok(files.flatten().map(|file| file.path()).filter(|path| path.is_file()).collect())
    }
}

fn original(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    file.with_file_name(format!("{name}.{ORIGINAL}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine, prelude::BASE64_STANDARD};

    use super::*;

    const LIST: &str = "{ \"name\":\"pods\",\"cniVersion\":\"1.0.0\",  \"plugins\":[{\"type\":\"bridge\"}]}";

    struct Node {
        folder: tempfile::TempDir,
        installation: Installation,
    }

    impl Node {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            for name in ["run", "conf", "bin", "image"] {
                std::fs::create_dir(at(name)).unwrap();
            }
            std::fs::write(at("image/plugin"), "program 1").unwrap();
            std::fs::create_dir_all(at("cache/results")).unwrap();
            let paths = Paths {
                node_dir: at("run"),
                netns_dir: at("netns"),
                cni_cache_dir: at("cache"),
                cni_conf_dir: at("conf"),
                cni_bin_dir: at("bin"),
                plugin: at("image/plugin"),
                nft: at("nft"),
            };
            Self { installation: Installation::new(&paths), folder }
        }

        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.folder.path().join(name), text).unwrap();
        }

        fn files(&self) -> BTreeMap<String, String> {
            let folders = ["conf", "bin"].map(|name| self.folder.path().join(name));
            let files = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
            files
                .map(|file| file.unwrap().path())
                .map(|path| {
                    let name = path.strip_prefix(self.folder.path()).unwrap().display().to_string();
                    (name, std::fs::read_to_string(path).unwrap())
                })
                .collect()
        }
    }

    #[test]
    fn twenty_times_in_and_out_leaves_the_node_as_it_was() {
        let mut node = Node::new();
        node.write("conf/10-pods.conflist", LIST);
        node.write("conf/20-other.conflist", "{\"plugins\":[{\"type\":\"other\"}]}");
        node.write("bin/bridge", "bridge");
        let before = node.files();
        for _ in 0..20 {
            assert_eq!(node.installation.ensure().unwrap(), Outcome::Written);
            node.write("conf/meshwright.namespaces", "{}");
            assert_eq!(node.installation.ensure().unwrap(), Outcome::Unchanged);
            let files = node.files();
            assert!(
                files["conf/10-pods.conflist"].contains("meshwright-cni")
                    && files["bin/meshwright-cni"] == "program 1"
            );
            assert_eq!(files["conf/20-other.conflist"], before["conf/20-other.conflist"], "it is not in use");
            node.installation.remove().unwrap();
            assert_eq!(node.files(), before);
        }
        node.installation.remove().unwrap();
        assert_eq!(node.files(), before);
    }

    #[test]
    fn the_program_stays_while_a_pod_is_there_that_was_set_up_with_it() {
        let mut node = Node::new();
        node.write("conf/10-pods.conflist", LIST);
        let before = node.files();
        node.installation.ensure().unwrap();
        let list = BASE64_STANDARD.encode(&node.files()["conf/10-pods.conflist"]);
        node.write("cache/results/pods-c-eth0", &serde_json::json!({ "config": list }).to_string());
        node.installation.remove().unwrap();
        let mut left = node.files();
        assert_eq!(left.remove("bin/meshwright-cni").as_deref(), Some("program 1"));
        assert_eq!(left, before, "the list is as it was");
        node.installation.ensure().unwrap();
        std::fs::remove_file(node.folder.path().join("cache/results/pods-c-eth0")).unwrap();
        node.installation.remove().unwrap();
        assert_eq!(node.files(), before);
    }

    #[test]
    fn what_others_rewrite_is_mended_and_their_words_come_back() {
        let mut node = Node::new();
        assert_eq!(node.installation.ensure().unwrap(), Outcome::NoList);
        node.write("conf/10-pods.conflist", LIST);
        assert_eq!(node.installation.ensure().unwrap(), Outcome::Written);
        let rewritten = LIST.replace("bridge", "ptp");
        node.write("conf/10-pods.conflist", &rewritten);
        assert_eq!(node.installation.ensure().unwrap(), Outcome::Written);
        node.write("bin/meshwright-cni", "somebody's");
        assert_eq!(node.installation.ensure().unwrap(), Outcome::Written);
        assert_eq!(node.files()["bin/meshwright-cni"], "program 1");
        // Another release, in another container.
        node.write("image/plugin", "program 2");
        node.installation = Installation::new(&node.installation.paths);
        assert_eq!(node.installation.ensure().unwrap(), Outcome::Written);
        assert_eq!(node.files()["bin/meshwright-cni"], "program 2");
        node.installation.remove().unwrap();
        assert_eq!(node.files(), [("conf/10-pods.conflist".to_owned(), rewritten)].into());
    }

    #[test]
    fn a_list_that_is_lost_is_made_again_of_what_it_was() {
        let mut node = Node::new();
        node.write("conf/10-pods.conflist", LIST);
        node.installation.ensure().unwrap();
        let installed = node.files();
        for lost in ["", "\0\0"] {
            node.write("conf/10-pods.conflist", lost);
            assert_eq!(node.installation.ensure().unwrap(), Outcome::Written);
            assert_eq!(node.files(), installed);
            node.write("conf/10-pods.conflist", lost);
            node.installation.remove().unwrap();
            assert_eq!(node.files(), [("conf/10-pods.conflist".to_owned(), LIST.to_owned())].into());
            node.installation.ensure().unwrap();
        }
        node.installation.remove().unwrap();
        node.write("conf/10-pods.conflist", "");
        assert!(
            node.installation.ensure().unwrap_err().to_string().contains("10-pods.conflist"),
            "it is not ours"
        );
    }

    #[test]
    fn a_list_that_cannot_be_chained_is_left_alone() {
        let mut node = Node::new();
        node.write("conf/10-pods.conf", "{\"type\":\"bridge\"}");
        let error = node.installation.ensure().unwrap_err().to_string();
        assert!(error.contains("single plugin") && error.contains("10-pods.conf"), "{error}");
        assert_eq!(node.files()["conf/10-pods.conf"], "{\"type\":\"bridge\"}");
    }
}
