use super::manifests;
use crate::args::{InstallArgs, Manifests};

fn install() -> String {
    manifests(&Manifests::Install(InstallArgs {
        operator_image: "registry.example/operator@sha256:1".to_owned(),
        releases: [
            "0.1.0=r.example/c@sha256:2,r.example/p@sha256:3",
            "0.2.0=r.example/c@sha256:4,r.example/p@sha256:5",
        ]
        .map(|release| release.parse().unwrap())
        .into(),
        namespace: "meshwright-system".to_owned(),
        pull_secrets: vec!["registry".to_owned()],
    }))
    .unwrap()
}

#[test]
fn the_installation_is_as_committed() {
    insta::assert_snapshot!("install", install());
}

#[test]
fn there_is_no_wildcard_and_no_escalation() {
    let yaml = install();
    assert!(!yaml.contains("'*'") && !yaml.contains("\"*\""), "wildcard");
    for verb in ["escalate", "impersonate"] {
        assert!(!yaml.contains(verb), "{verb}");
    }
    assert!(!yaml.contains("null"), "a field that says nothing");
}

#[test]
fn secrets_of_the_cluster_are_not_readable_by_the_operator() {
    for document in yaml_documents() {
        let (kind, name) = (document["kind"].as_str(), document["metadata"]["name"].as_str());
        if (kind, name) != (Some("ClusterRole"), Some(super::OPERATOR)) {
            continue;
        }
        for rule in document["rules"].as_sequence().unwrap() {
            let resources = rule["resources"].as_sequence().unwrap();
            assert!(!resources.iter().any(|r| r == "secrets"), "{rule:?}");
        }
    }
}

#[test]
fn the_operators_rights_are_the_last_to_go() {
    let kinds: Vec<_> = yaml_documents().iter().map(|d| d["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.first().map(String::as_str), Some("Namespace"));
    assert_eq!(kinds.last().map(String::as_str), Some("ClusterRoleBinding"));
}

fn yaml_documents() -> Vec<serde_yaml_ng::Value> {
    use serde::Deserialize;
    serde_yaml_ng::Deserializer::from_str(&install())
        .map(|d| serde_yaml_ng::Value::deserialize(d).unwrap())
        .filter(|d| !d.is_null())
        .collect()
}
