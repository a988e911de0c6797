//! What plugin and agent say to each other: one line of JSON each way. The plugin on the node may be older or newer than the agent, so fields
//! are only ever added.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::{Deserialize, Serialize};

/// A pod gets its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty where the container runtime does not tell.
    #[serde(default)]
    pub uid: String,
    /// Path of its network namespace on the node.
    pub netns: String,
    /// The addresses that the plugins before us gave it, without the length of their prefixes.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// Whether it may start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Answer {
    /// It is in the mesh, and its redirection stands.
    Captured,
    /// It is not in the mesh.
    Outside,
    /// It is in the mesh, and must not start yet.
    Refused {
        /// For the pod's event: what was waited for.
        why: String,
    },
}

/// What the agent stored last, for when it does not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Every namespace, and whether its pods are in the mesh unless they say otherwise.
    pub namespaces: BTreeMap<String, bool>,
    /// Those whose pods are not in the mesh unless they say otherwise, and of which some do.
    #[serde(default)]
    pub mixed: BTreeSet<String>,
}

impl Namespaces {
    /// What is stored in the file. Nothing, if it is absent or cannot be read: then no namespace was ever heard of.
    pub fn read(file: &Path) -> Self {
        std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_stays_as_it_is() {
        let request = Request {
            namespace: "shop".into(),
            name: "cart-0".into(),
            uid: "u1".into(),
            netns: "/run/netns/cni-1".into(),
            addresses: vec!["10.0.0.1".into()],
        };
        let text = r#"{"namespace":"shop","name":"cart-0","uid":"u1","netns":"/run/netns/cni-1","addresses":["10.0.0.1"]}"#;
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        let sparse = r#"{"namespace":"shop","name":"cart-0","netns":"/run/netns/cni-1","later":1}"#;
        let expected = Request { uid: String::new(), addresses: Vec::new(), ..request };
        assert_eq!(serde_json::from_str::<Request>(sparse).unwrap(), expected);
        for (answer, text) in [
            (Answer::Captured, r#"{"outcome":"captured"}"#),
            (Answer::Outside, r#"{"outcome":"outside"}"#),
            (Answer::Refused { why: "no".into() }, r#"{"outcome":"refused","why":"no"}"#),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
            assert_eq!(serde_json::from_str::<Answer>(text).unwrap(), answer);
        }
    }

    #[test]
    fn a_file_that_is_absent_or_broken_knows_no_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("namespaces");
        assert_eq!(Namespaces::read(&file), Namespaces::default());
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Namespaces::read(&file), Namespaces::default());
        std::fs::write(&file, r#"{"namespaces":{"shop":true}}"#).unwrap();
        let stored = Namespaces::read(&file);
        assert_eq!(stored.namespaces, [("shop".to_owned(), true)].into());
        assert!(stored.mixed.is_empty(), "as an older agent stores it");
    }
}
