//! A cluster that is not the checkout's own: used only on request, broken only where its label allows it.
//! Pure: (what was asked for, what is there) -> yes or a refusal that says what to do.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use anyhow::{Result, bail, ensure};

/// On the Namespace kube-system: whatever drains, kills or deletes may do so in this cluster.
const DISPOSABLE: &str = "meshwright.io/disposable";

/// Why something can be tried on a cluster on this machine only.
pub const AUDIT_LOG: &str = "it reads the API server's audit log";
pub const SIGNALS: &str = "it sends signals to processes of pods";
pub const PACKETS: &str = "it captures packets on the nodes";
pub const NETWORKS: &str = "it looks into the networks of pods";
pub const POWER: &str = "it cuts a node's power";

/// The context that `CLUSTER` and `CONTEXT` ask for; none is the checkout's own cluster. Empty is as good as unset.
///
/// # Errors
/// When they do not say clearly which cluster is meant, or the kubeconfig does not know the context.
pub fn chosen(
    cluster: &str,
    context: &str,
    contexts: impl FnOnce() -> Result<Vec<String>>,
) -> Result<Option<String>> {
    match (cluster, context) {
        ("" | "local", "") => Ok(None),
        ("" | "local", _) => {
            bail!(
                "CONTEXT={context} is for a cluster of your own: set CLUSTER=external too, or unset CONTEXT"
            )
        }
        ("external", "") => {
            bail!("CLUSTER=external needs CONTEXT=name too; the kubeconfig has {}", names(&contexts()?))
        }
        ("external", _) => {
            let known = contexts()?;
            ensure!(
                known.iter().any(|name| name == context),
                "the kubeconfig has no context {context}: set CONTEXT to one of {}, or KUBECONFIG to another file",
                names(&known)
            );
            Ok(Some(context.to_owned()))
        }
        _ => bail!("CLUSTER={cluster} is neither `local` (the checkout's own cluster) nor `external`"),
    }
}

fn names(contexts: &[String]) -> String {
    if contexts.is_empty() { "none".to_owned() } else { contexts.join(", ") }
}

/// Some programs are started in other folders, where a relative path would name another file.
///
/// # Errors
/// With the path that is relative.
pub fn absolute(kubeconfig: &OsStr) -> Result<()> {
    for path in std::env::split_paths(kubeconfig).filter(|path| !path.as_os_str().is_empty()) {
        ensure!(path.is_absolute(), "KUBECONFIG has {}: give the whole path", path.display());
    }
    Ok(())
}

/// Whether these labels of kube-system allow to break what is in the cluster.
///
/// # Errors
/// When they do not, with the command that changes it.
pub fn disposable(context: &str, labels: Option<&BTreeMap<String, String>>) -> Result<()> {
    ensure!(
        labels.and_then(|labels| labels.get(DISPOSABLE)).is_some_and(|value| value == "true"),
        "this drains nodes, kills pods and deletes namespaces, and nobody said that it may do so in context {context}; to say so:\n  \
         kubectl --context {context} label namespace kube-system {DISPOSABLE}=true"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(cluster: &str, context: &str) -> Result<Option<String>, String> {
        chosen(cluster, context, || Ok(vec!["kind".to_owned(), "prod".to_owned()])).map_err(|e| e.to_string())
    }

    #[test]
    fn the_checkouts_own_cluster_asks_for_no_kubeconfig() {
        for cluster in ["", "local"] {
            let choice = chosen(cluster, "", || bail!("the kubeconfig was read"));
            assert_eq!(choice.unwrap(), None);
        }
    }

    #[test]
    fn an_outside_cluster_is_used_only_by_both_words() {
        assert_eq!(asked("external", "kind"), Ok(Some("kind".to_owned())));
        assert!(
            asked("external", "")
                .unwrap_err()
                .contains("needs CONTEXT=name too; the kubeconfig has kind, prod")
        );
        assert!(asked("", "kind").unwrap_err().contains("set CLUSTER=external too"));
        assert!(asked("local", "kind").unwrap_err().contains("set CLUSTER=external too"));
        assert!(
            asked("external", "kin")
                .unwrap_err()
                .contains("no context kin: set CONTEXT to one of kind, prod")
        );
        assert!(asked("kind", "kind").unwrap_err().contains("neither `local`"));
        let unreadable = chosen("external", "kind", || bail!("no such file"));
        assert_eq!(unreadable.unwrap_err().to_string(), "no such file");
    }

    #[test]
    fn a_relative_kubeconfig_is_refused_wherever_it_stands() {
        for (list, right) in [("/a:/b", true), ("", true), ("/a:b", false)] {
            assert_eq!(absolute(OsStr::new(list)).is_ok(), right, "{list}");
        }
    }

    #[test]
    fn only_the_label_with_the_value_true_allows_to_break_a_cluster() {
        let labels = |value: &str| BTreeMap::from([(DISPOSABLE.to_owned(), value.to_owned())]);
        assert!(disposable("kind", Some(&labels("true"))).is_ok());
        let other = BTreeMap::from([("kubernetes.io/metadata.name".to_owned(), "true".to_owned())]);
        for wrong in [None, Some(&labels("false")), Some(&labels("")), Some(&other)] {
            let refusal = disposable("kind", wrong).unwrap_err().to_string();
            let command = "kubectl --context kind label namespace kube-system meshwright.io/disposable=true";
            assert!(refusal.ends_with(command), "{refusal}");
        }
    }
}
