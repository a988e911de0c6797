//! What pods' inbound listeners refer to, by pods that leave. Pure.
//!
//! Without the extension that it refers to a listener takes no connection at all. The control plane stops to send it when the pod is no member
//! any more, to the pod's own node perhaps first of all: who has not heard that yet still sends mutual TLS. So as long as Envoy has the
//! listener it has the extension; and as policies are not about the pod any more, that lets everybody in, as plaintext is let in. Requests over
//! connections from before go on likewise, also of pods that stay and of which there is no policy any more.

use std::{collections::BTreeSet, sync::Arc};

use super::Name;
use meshwright_xds::{
    Resource, Resources,
    mesh::{RULES, is_open_policy, open_policy, policy_name, rules_with},
};

/// See the module.
#[derive(Debug, Default)]
pub struct Policies {
    /// Pods that were let go of here.
    left: BTreeSet<String>,
    /// The rules about requests as they were made last: from these, with these pods.
    rules: Option<(Arc<Resource>, Vec<String>, Arc<Resource>)>,
}

impl Policies {
    /// What Envoy gets of these extensions, while it has listeners of these pods.
    pub fn render<'a>(&mut self, source: &Resources, uids: impl Iterator<Item = &'a String>) -> Resources {
        let mut all = source.clone();
        let (mut left, mut open) = (BTreeSet::new(), Vec::new());
        for uid in uids {
            let name = policy_name(uid);
            match source.get(&name) {
                Some(policy) if is_open_policy(uid, policy) => open.push(uid.clone()),
                Some(_) => {}
                None if source.is_absent(&name) => {
                    all.insert(open_policy(uid));
                    left.insert(uid.clone());
                    open.push(uid.clone());
                }
                // It came back, and Envoy does not take what it is to have now: what we gave is not for members.
                None if self.left.contains(uid) => {
                    all.remove(&name);
                    left.insert(uid.clone());
                }
                None => {}
            }
        }
        self.left = left;
        if let Some(rules) = source.get(RULES) {
            self.rules(rules, open).into_iter().for_each(|rules| all.insert(rules));
        }
        all
    }

    fn rules(&mut self, source: &Arc<Resource>, open: Vec<String>) -> Option<Arc<Resource>> {
        if let Some((before, with, made)) = &self.rules
            && Arc::ptr_eq(before, source)
            && *with == open
        {
            return Some(made.clone());
        }
        let edited = rules_with(source, open.iter().map(String::as_str))?;
        let version = super::version(source.version(), Some(edited.version()));
        let made = Arc::new(Resource::with_version(RULES, version, edited.body().clone()));
        self.rules = Some((source.clone(), open, made.clone()));
        Some(made)
    }

    /// The version that the control plane gave it.
    pub fn as_sent((name, version): (Name, Name)) -> (Name, Name) {
        let sent = version.split('@').next().filter(|_| *name == *RULES).map(Arc::from);
        (name, sent.unwrap_or(version))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Any;

    use super::*;

    fn closed(uid: &str) -> Resource {
        Resource::new(policy_name(uid), Any::default())
    }

    fn source(all: &[Resource], absent: &[&str]) -> Resources {
        let mut source = Resources::default();
        source.set_partial(true);
        all.iter().for_each(|one| source.insert(one.clone()));
        absent.iter().for_each(|uid| source.remove(&policy_name(uid)));
        source
    }

    fn is_open(all: &Resources, uid: &str) -> Option<bool> {
        Some(is_open_policy(uid, all.get(&policy_name(uid))?))
    }

    #[test]
    fn a_pod_that_leaves_is_open_and_nothing_that_is_unknown_is() {
        let uids = ["u1", "u2", "u3"].map(str::to_owned);
        let mut policies = Policies::default();
        let out = policies.render(&source(&[closed("u1")], &["u2", "u9"]), uids.iter());
        assert_eq!(["u1", "u2", "u3"].map(|uid| is_open(&out, uid)), [Some(false), Some(true), None]);
        assert!(out.is_absent(&policy_name("u9")), "it has no listener any more");
        assert!(!out.is_absent(&policy_name("u3")), "nobody has said so");
        // It comes back, with what Envoy refuses.
        let out = policies.render(&source(&[closed("u1"), closed("u2")], &[]), uids.iter());
        assert_eq!(is_open(&out, "u2"), Some(false));
        policies.render(&source(&[], &["u2"]), uids.iter());
        let out = policies.render(&source(&[], &[]), uids.iter());
        assert!(out.is_absent(&policy_name("u2")) && !out.is_absent(&policy_name("u1")));
        // Its listener is closed.
        policies.render(&source(&[], &["u2"]), uids.iter());
        let out = policies.render(&source(&[], &["u2"]), uids[..1].iter());
        assert!(out.is_absent(&policy_name("u2")));
    }

    #[test]
    fn rules_about_requests_follow_and_are_told_by_the_version_that_was_sent() {
        let rules = meshwright_xds::mesh::rules_with(&made(), [].into_iter()).unwrap();
        let uids = ["u1", "u2"].map(str::to_owned);
        let mut policies = Policies::default();
        let before = source(&[rules.clone(), open_policy("u1")], &[]);
        let of = |all: &Resources| all.get(RULES).unwrap().clone();
        let (one, again) =
            (of(&policies.render(&before, uids.iter())), of(&policies.render(&before, uids.iter())));
        assert!(Arc::ptr_eq(&one, &again), "nothing has changed");
        let two = of(&policies.render(&source(&[rules.clone(), open_policy("u1")], &["u2"]), uids.iter()));
        assert!(one.version() != two.version() && one.body() != two.body());
        for made in [one, two] {
            let sent = Policies::as_sent((made.name().clone(), made.version().clone()));
            assert_eq!(sent, (rules.name().clone(), rules.version().clone()));
        }
        let other: (Name, Name) = ("pod/u1/policy".into(), "1@2".into());
        assert_eq!(Policies::as_sent(other.clone()), other);
    }

    /// What a control plane makes of a node without policies.
    fn made() -> Resource {
        let shared = meshwright_xds::mesh::Shared::new("td");
        let ports = meshwright_xds::mesh::Ports { outbound: 1, inbound: 2 };
        let mesh = meshwright_core::mesh::Mesh::default();
        let snapshot = meshwright_xds::mesh::node(&shared, &mesh, "n1", ports);
        (**snapshot.get(meshwright_xds::TypeUrl::ExtensionConfig, RULES).unwrap()).clone()
    }
}
