//! Where the namespaces of running pods are: container runtimes write down what network plugins did for each sandbox.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::netns::{Netns, known_as};

/// A pod whose namespace is sought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// Uid of the Pod.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its addresses; one of them must be in the namespace.
    pub addresses: Vec<String>,
}

/// What was written down for a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Written since release 1.2 of the library for network plugins; container runtimes in use have older ones.
    #[serde(default)]
    netns: String,
    /// What the plugins answered, in any version of the specification.
    #[serde(default)]
    result: Value,
    /// The list with which it was set up, in base64.
    #[serde(default)]
    config: String,
    #[serde(rename = "cniArgs", default)]
    args: Vec<(String, String)>,
}

impl Entry {
    fn argument(&self, name: &str) -> Option<&str> {
        self.args.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Where the pod's network is: in the words of the runtime, or else of the plugins that put interfaces there.
    fn places(&self) -> impl Iterator<Item = &str> {
        let interfaces = self.result.get("interfaces").and_then(Value::as_array).into_iter().flatten();
        let sandboxes = interfaces.filter_map(|interface| interface.get("sandbox")?.as_str());
        let said = Some(self.netns.as_str()).filter(|netns| !netns.is_empty());
        let sandboxes = sandboxes.filter(move |sandbox| said.is_none() && !sandbox.is_empty());
        said.into_iter().chain(sandboxes)
    }

    /// Whether it was set up with this plugin.
    fn has(&self, plugin: &str) -> bool {
        let list = BASE64_STANDARD.decode(&self.config).ok();
        let list: Option<Value> = list.and_then(|list| serde_json::from_slice(&list).ok());
        let plugins = list.as_ref().and_then(|list| list.get("plugins")?.as_array());
        plugins.into_iter().flatten().any(|entry| entry.get("type").and_then(Value::as_str) == Some(plugin))
    }

    /// Whether the sandbox is this pod's. One of an earlier pod of that name is not; where the runtime tells no uid, the address decides.
    fn is_of(&self, pod: &Sought) -> bool {
        self.argument("K8S_POD_NAMESPACE") == Some(&pod.namespace)
            && self.argument("K8S_POD_NAME") == Some(&pod.name)
            && self.argument("K8S_POD_UID").is_none_or(|uid| uid == pod.uid)
    }
}

/// Everything that is written down. Files come and go while we read.
pub fn read(cache: &Path) -> Vec<Entry> {
    let files = std::fs::read_dir(cache.join("results")).into_iter().flatten().flatten();
    files.filter_map(|file| serde_json::from_slice(&std::fs::read(file.path()).ok()?).ok()).collect()
}

/// Whether pods are left that were set up with this plugin. Some container runtimes call it again for their end, by the list of that time.
pub fn needs(cache: &Path, directory: &Path, plugin: &str) -> bool {
    let is_there = |entry: &Entry| {
        let mut paths = entry.places().filter_map(|place| known_as(directory, place)).peekable();
        paths.peek().is_none() || paths.any(|path| path.exists())
    };
    read(cache).iter().any(|entry| entry.has(plugin) && is_there(entry))
}

/// Paths of the pod's namespace, if the entries are right.
pub fn candidates(entries: &[Entry], pod: &Sought, directory: &Path) -> Vec<PathBuf> {
    let of_pod = entries.iter().filter(|entry| entry.is_of(pod));
    let places = of_pod.flat_map(Entry::places);
    let mut paths: Vec<_> = places.filter_map(|place| known_as(directory, place)).collect();
    paths.sort();
    // A pod with several networks has an entry for each.
    paths.dedup();
    paths
}

/// The namespaces of those that were found, by uid.
pub fn find(cache: &Path, directory: &Path, sought: &[Sought]) -> Vec<(String, PathBuf)> {
    let entries = read(cache);
    let mut found = Vec::new();
    for pod in sought {
        let is_its_own = |path: &PathBuf| {
            let has = Netns::open(path).and_then(|netns| netns.has_one_of(&pod.addresses));
            has.inspect_err(
                |e| tracing::debug!(error = %format!("{e:#}"), uid = pod.uid, "look into a namespace"),
            )
            .unwrap_or(false)
        };
        let path = candidates(&entries, pod, directory).into_iter().find(is_its_own);
        found.extend(path.map(|path| (pod.uid.clone(), path)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Entry {
        serde_json::from_str(text).unwrap()
    }

    fn of(name: &str, uid: &str, netns: &str) -> Entry {
        entry(&format!(
            r#"{{"kind":"cniCacheV1","containerId":"c","config":"e30=","ifName":"eth0","networkName":"pods","netns":"{netns}",
               "cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","{name}"],["K8S_POD_INFRA_CONTAINER_ID","c"],["K8S_POD_UID","{uid}"]],
               "result":{{"cniVersion":"1.0.0","ips":[]}}}}"#
        ))
    }

    #[test]
    fn a_pod_is_found_by_namespace_name_and_uid() {
        let pod =
            Sought { uid: "u1".into(), namespace: "shop".into(), name: "cart-0".into(), addresses: vec![] };
        let without_uid = entry(
            r#"{"netns":"/var/run/netns/cni-4","cniArgs":[["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","cart-0"]]}"#,
        );
        let elsewhere = entry(
            r#"{"netns":"/run/netns/cni-5","cniArgs":[["K8S_POD_NAMESPACE","other"],["K8S_POD_NAME","cart-0"]]}"#,
        );
        let entries = [
            of("cart-0", "u0", "/var/run/netns/cni-0"),
            of("cart-0", "u1", "/var/run/netns/cni-1"),
            of("cart-0", "u1", "/var/run/netns/cni-1"),
            of("cart-0", "u1", "/proc/77/ns/net"),
            of("cart-1", "u1", "/var/run/netns/cni-3"),
            without_uid,
            elsewhere,
            entry("{}"),
        ];
        let paths = candidates(&entries, &pod, Path::new("/run/netns"));
        assert_eq!(paths, ["/run/netns/cni-1", "/run/netns/cni-4"].map(PathBuf::from));
    }

    #[test]
    fn where_the_runtime_says_no_namespace_its_plugins_do() {
        let pod =
            Sought { uid: "u1".into(), namespace: "shop".into(), name: "cart-0".into(), addresses: vec![] };
        let found = |netns: &str, result: &str| {
            let args = r#"[["K8S_POD_NAMESPACE","shop"],["K8S_POD_NAME","cart-0"],["K8S_POD_UID","u1"]]"#;
            let entry = entry(&format!(r#"{{{netns}"cniArgs":{args},"result":{result}}}"#));
            candidates(&[entry], &pod, Path::new("/run/netns"))
        };
        let bridge = r#"{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"veth1","sandbox":""},
            {"name":"eth0","sandbox":"/var/run/netns/cni-7"},{"name":"eth1","sandbox":"/var/run/netns/cni-7"}]}"#;
        assert_eq!(found("", bridge), [PathBuf::from("/run/netns/cni-7")]);
        let said = r#""netns":"/var/run/netns/cni-8","#;
        assert_eq!(found(said, bridge), [PathBuf::from("/run/netns/cni-8")], "it knows best");
        for odd in ["null", "{}", r#"{"interfaces":null}"#, r#"{"interfaces":[1,{"sandbox":2}]}"#, "[]"] {
            assert!(found("", odd).is_empty() && found(said, odd).len() == 1, "{odd}");
        }
    }

    #[test]
    fn a_plugin_is_needed_as_long_as_a_pod_is_there_that_was_set_up_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let [results, namespaces] = ["results", "netns"].map(|name| folder.path().join(name));
        let needed = |plugin: &str| needs(folder.path(), &namespaces, plugin);
        assert!(!needed("ours"), "nothing is written down");
        for path in [&results, &namespaces] {
            std::fs::create_dir(path).unwrap();
        }
        let write = |name: &str, netns: &str, config: &str| {
            let text = serde_json::json!({ "config": BASE64_STANDARD.encode(config), "netns": netns });
            std::fs::write(results.join(name), text.to_string()).unwrap();
        };
        let with = r#"{"name":"pods","plugins":[{"type":"bridge"},{"type":"ours"}]}"#;
        write(
            "before",
            &namespaces.join("cni-0").display().to_string(),
            r#"{"plugins":[{"type":"bridge"}]}"#,
        );
        write("odd", "", "{");
        std::fs::write(namespaces.join("cni-0"), "").unwrap();
        assert!(!needed("ours") && needed("bridge"));
        write("with", &namespaces.join("cni-1").display().to_string(), with);
        assert!(!needed("ours"), "its namespace is gone");
        std::fs::write(namespaces.join("cni-1"), "").unwrap();
        assert!(needed("ours"));
        std::fs::remove_file(results.join("with")).unwrap();
        assert!(!needed("ours"));
        write("elsewhere", "/proc/77/ns/net", with);
        assert!(needed("ours"), "who knows");
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).is_empty());
        let results = folder.path().join("results");
        std::fs::create_dir(&results).unwrap();
        std::fs::write(results.join("broken"), "{").unwrap();
        std::fs::write(results.join("fine"), r#"{"netns":"/run/netns/cni-1"}"#).unwrap();
        std::fs::create_dir(results.join("folder")).unwrap();
        assert_eq!(read(folder.path()), [entry(r#"{"netns":"/run/netns/cni-1"}"#)]);
    }
}
