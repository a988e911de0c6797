//! What nodes' proxies refuse of policies: what is made of all policies of a pod, and the rules about requests of all pods of a node. Until they
//! take something else, they do what they did before.

use std::collections::BTreeMap;

use meshwright_core::ObjectKey;
use meshwright_core::model::{ObjectId, ObjectKind};
use meshwright_xds::mesh::{RULES, pod_of_policy};
use meshwright_xds::{Event, TypeUrl};

/// See the module.
#[derive(Default)]
pub struct Policies {
    /// By stream and by what it is about: the proxy's words.
    refused: BTreeMap<(u64, ObjectId), String>,
}

impl Policies {
    /// Takes note of what happened on the stream of a node. Returns whether something else is refused than before.
    pub fn on_event(&mut self, stream: u64, node: &str, event: &Event) -> bool {
        let object = |name: &str| {
            let (kind, name) = match pod_of_policy(name) {
                Some(uid) => (ObjectKind::Pod, uid),
                None if name == RULES => (ObjectKind::Node, node),
                None => return None,
            };
            Some((stream, ObjectId { kind, key: ObjectKey::new("", name) }))
        };
        match event {
            Event::Nack { kind: TypeUrl::ExtensionConfig, resources, message } => {
                let refused: Vec<_> = resources.iter().filter_map(|(name, _)| object(name)).collect();
                let news = refused.iter().any(|key| self.refused.get(key) != Some(message));
                self.refused.extend(refused.into_iter().map(|key| (key, message.clone())));
                news
            }
            Event::Ack { kind: TypeUrl::ExtensionConfig, .. } if self.refused.is_empty() => false,
            Event::Ack { kind: TypeUrl::ExtensionConfig, resources, removed } => {
                let names = resources.iter().map(|(name, _)| name).chain(removed);
                let taken: Vec<_> = names.filter_map(|name| object(name)).collect();
                taken.into_iter().filter(|key| self.refused.remove(key).is_some()).count() > 0
            }
            Event::Closed { .. } => {
                let before = self.refused.len();
                self.refused.retain(|(of, _), _| *of != stream);
                self.refused.len() != before
            }
            _ => false,
        }
    }

    /// Pods and nodes whose policies are not in force, with the proxies' words.
    pub fn rejections(&self) -> BTreeMap<ObjectId, String> {
        self.refused.iter().map(|((_, object), words)| (object.clone(), words.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meshwright_xds::mesh::policy_name;

    use super::*;

    fn of(names: &[&str]) -> Vec<(Arc<str>, Arc<str>)> {
        names.iter().map(|&name| (name.into(), "1".into())).collect()
    }

    fn nack(names: &[&str], message: &str) -> Event {
        Event::Nack { kind: TypeUrl::ExtensionConfig, resources: of(names), message: message.to_owned() }
    }

    fn ack(names: &[&str]) -> Event {
        Event::Ack { kind: TypeUrl::ExtensionConfig, resources: of(names), removed: Vec::new() }
    }

    fn refused(policies: &Policies) -> Vec<String> {
        let all = policies.rejections().into_iter();
        all.map(|(object, words)| format!("{:?} {}: {words}", object.kind, object.key.name)).collect()
    }

    #[test]
    fn what_a_proxy_refuses_is_known_until_it_takes_something_else_or_is_gone() {
        let (mut policies, name) = (Policies::default(), policy_name("u1"));
        assert!(!policies.on_event(1, "n1", &ack(&[&name])));
        assert!(!policies.on_event(1, "n1", &nack(&["something else"], "x")));
        assert!(policies.on_event(1, "n1", &nack(&[&name, RULES], "too long")));
        assert!(!policies.on_event(1, "n1", &nack(&[&name], "too long")), "again");
        assert!(policies.on_event(2, "n2", &nack(&[RULES], "no")));
        assert_eq!(refused(&policies), ["Pod u1: too long", "Node n1: too long", "Node n2: no"]);
        assert!(policies.on_event(1, "n1", &ack(&[&name])) && !policies.on_event(1, "n1", &ack(&[&name])));
        assert_eq!(refused(&policies), ["Node n1: too long", "Node n2: no"]);
        assert!(policies.on_event(2, "n2", &Event::Closed { maybe_sent: Default::default() }));
        assert_eq!(refused(&policies), ["Node n1: too long"]);
    }
}
