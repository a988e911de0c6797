//! What happens to a pod: pure, from what the agent said, or stored when it said nothing.

use crate::{Answer, Failure, Namespaces, Pod, Reply};

/// Whether a pod starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It does.
    Starts,
    /// Not yet; the kubelet tries again. With what its event says.
    Waits(String),
}

/// Decides. A pod that is known to be in the mesh waits, as does one that may be because others of its namespace are by their own labels: it
/// would speak plaintext, which nobody asked for. One of a namespace without any, or that this node has never heard of, starts: what is
/// outside of the mesh must never be held up.
pub fn decide(pod: &Pod, reply: &Reply, stored: impl FnOnce() -> Namespaces) -> Decision {
    let Pod { namespace, name, .. } = pod;
    match reply {
        Reply::Answer(Answer::Captured | Answer::Outside) => Decision::Starts,
        Reply::Answer(Answer::Refused { why }) => {
            Decision::Waits(format!("pod {namespace}/{name} is in the mesh and waits for its proxy: {why}"))
        }
        Reply::Silence => Decision::Waits(format!(
            "pod {namespace}/{name} waits for its node's mesh proxy, which did not answer in time: look at the pods with label \
             meshwright.io/component=node on this node"
        )),
        Reply::Nobody(why) => {
            let stored = stored();
            let what = match stored.namespaces.get(namespace) {
                Some(true) => format!("namespace {namespace} is in the mesh"),
                _ if stored.mixed.contains(namespace) => {
                    format!("pods of namespace {namespace} are in the mesh by their own labels")
                }
                _ => return Decision::Starts,
            };
            Decision::Waits(format!(
                "{what}, and this node's mesh proxy is away ({why}): pod {namespace}/{name} starts as soon as it is back; look at the pods \
                 with label meshwright.io/component=node on this node"
            ))
        }
    }
}

impl Decision {
    /// As the result of a call.
    ///
    /// # Errors
    /// When the pod waits.
    pub fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Starts => Ok(()),
            Self::Waits(why) => Err(Failure::try_later(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decided(namespace: &str, reply: &Reply) -> Decision {
        let pod = Pod { namespace: namespace.into(), name: "cart-0".into(), uid: String::new() };
        let known = [("shop", true), ("plain", false), ("mixed", false)];
        let namespaces = known.map(|(name, joins)| (name.to_owned(), joins)).into();
        decide(&pod, reply, || Namespaces { namespaces, mixed: ["mixed".to_owned()].into() })
    }

    #[test]
    fn what_the_agent_says_counts() {
        for answer in [Answer::Captured, Answer::Outside] {
            assert_eq!(decided("shop", &Reply::Answer(answer)), Decision::Starts);
        }
        let refused = Reply::Answer(Answer::Refused { why: "no certificate".into() });
        let Decision::Waits(why) = decided("new", &refused) else { panic!("starts") };
        assert!(why.contains("new/cart-0") && why.contains("no certificate"), "{why}");
        assert!(matches!(decided("plain", &Reply::Silence), Decision::Waits(_)));
    }

    #[test]
    fn without_an_agent_only_pods_of_namespaces_in_the_mesh_wait() {
        let nobody = Reply::Nobody("connection refused".into());
        let Decision::Waits(why) = decided("shop", &nobody) else { panic!("starts") };
        assert!(why.contains("connection refused") && why.contains("meshwright.io/component=node"), "{why}");
        let Decision::Waits(why) = decided("mixed", &nobody) else { panic!("starts") };
        assert!(why.contains("own labels") && why.contains("connection refused"), "{why}");
        assert_eq!(decided("plain", &nobody), Decision::Starts);
        assert_eq!(decided("never-heard-of", &nobody), Decision::Starts);
    }
}
