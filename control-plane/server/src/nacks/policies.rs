//! What nodes' proxies refuse of policies: what is made of all policies of a pod, and the rules about requests of all pods of a node. Until they
//! take something else, they do what they did before.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::ObjectKey;
use meshwright_core::model::{ObjectId, ObjectKind};
use meshwright_xds::mesh::{RULES, pod_of_policy};
use meshwright_xds::{Event, TypeUrl};
use tokio::time::Instant;

use super::REMEMBERED;

/// See the module.
#[derive(Default)]
pub struct Policies {
    /// By stream and by what it is about.
    refused: BTreeMap<(u64, ObjectId), Refusal>,
}

struct Refusal {
    version: Arc<str>,
    /// The proxy's words.
    message: String,
    /// When its stream closed.
    closed: Option<Instant>,
}

impl Policies {
    /// Takes note of what happened on the stream of a node. Returns whether something else is refused than before, or will be at another time.
    pub fn on_event(&mut self, stream: u64, node: &str, event: &Event, now: Instant) -> bool {
        let object = |name: &str| {
            let (kind, name) = match pod_of_policy(name) {
                Some(uid) => (ObjectKind::Pod, uid),
                None if name == RULES => (ObjectKind::Node, node),
                None => return None,
            };
            Some(ObjectId { kind, key: ObjectKey::new("", name) })
        };
        match event {
            Event::Nack { kind: TypeUrl::ExtensionConfig, resources, message } => {
                let mut news = false;
                for (name, version) in resources {
                    let Some(object) = object(name) else { continue };
                    let refusal =
                        Refusal { version: version.clone(), message: message.clone(), closed: None };
                    let before = self.refused.insert((stream, object), refusal);
                    news |= before.is_none_or(|before| before.message != *message);
                }
                news
            }
            Event::Ack { kind: TypeUrl::ExtensionConfig, .. } if self.refused.is_empty() => false,
            Event::Ack { kind: TypeUrl::ExtensionConfig, resources, removed } => {
                let before = self.refused.len();
                let taken = resources.iter().map(|(name, version)| (name, Some(version)));
                for (name, version) in taken.chain(removed.iter().map(|name| (name, None))) {
                    let Some(taken) = object(name) else { continue };
                    // Whose refusal it was whose stream has closed nobody knows.
                    self.refused.retain(|(of, object), refusal| {
                        let is_over = refusal.closed.is_some() && version != Some(&refusal.version);
                        *object != taken || (*of != stream && !is_over)
                    });
                }
                self.refused.len() != before
            }
            Event::Closed { .. } => {
                let own = self.refused.iter_mut().filter(|((of, _), _)| *of == stream);
                own.map(|(_, refusal)| refusal.closed = Some(now)).count() > 0
            }
            _ => false,
        }
    }

    /// When something is to be forgotten, whatever happens.
    pub fn next_end(&self) -> Option<Instant> {
        self.refused.values().filter_map(|refusal| refusal.closed).min().map(|closed| closed + REMEMBERED)
    }

    /// Pods and nodes whose policies are not in force, with the proxies' words.
    pub fn rejections(&mut self, now: Instant) -> BTreeMap<ObjectId, String> {
        self.refused.retain(|_, refusal| refusal.closed.is_none_or(|closed| now < closed + REMEMBERED));
        let all = self.refused.iter();
        all.map(|((_, object), refusal)| (object.clone(), refusal.message.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
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

    fn closed() -> Event {
        Event::Closed { maybe_sent: Default::default() }
    }

    fn refused(policies: &mut Policies, now: Instant) -> Vec<String> {
        let all = policies.rejections(now).into_iter();
        all.map(|(object, words)| format!("{:?} {}: {words}", object.kind, object.key.name)).collect()
    }

    #[test]
    fn what_a_proxy_refuses_is_known_until_it_takes_something_else() {
        let (mut policies, name, now) = (Policies::default(), policy_name("u1"), Instant::now());
        let mut on =
            |stream: u64, event: &Event| policies.on_event(stream, &format!("n{stream}"), event, now);
        assert!(!on(1, &ack(&[&name])));
        assert!(!on(1, &nack(&["something else"], "x")));
        assert!(on(1, &nack(&[&name, RULES], "too long")));
        assert!(!on(1, &nack(&[&name], "too long")), "again");
        assert!(on(2, &nack(&[RULES], "no")));
        let all = ["Pod u1: too long", "Node n1: too long", "Node n2: no"];
        assert_eq!(refused(&mut policies, now), all);
        let mut on =
            |stream: u64, event: &Event| policies.on_event(stream, &format!("n{stream}"), event, now);
        assert!(on(1, &ack(&[&name])) && !on(1, &ack(&[&name])));
        assert_eq!(refused(&mut policies, now), ["Node n1: too long", "Node n2: no"]);
    }

    #[test]
    fn a_refusal_outlives_its_stream_until_the_proxy_is_back() {
        let (mut policies, name, start) = (Policies::default(), policy_name("u1"), Instant::now());
        assert!(policies.on_event(1, "n1", &nack(&[&name, RULES], "no"), start));
        assert!(policies.on_event(1, "n1", &closed(), start) && policies.next_end().is_some());
        let later = start + REMEMBERED / 2;
        assert_eq!(refused(&mut policies, later), ["Pod u1: no", "Node n1: no"]);
        // It is back, and refuses the one again; of the other it takes another version.
        assert!(policies.on_event(2, "n1", &nack(&[&name], "no"), later));
        assert!(
            !policies.on_event(3, "n1", &ack(&[RULES]), later),
            "another proxy of the node takes what this one does not"
        );
        let other = Event::Ack {
            kind: TypeUrl::ExtensionConfig,
            resources: vec![(RULES.into(), "2".into())],
            removed: Vec::new(),
        };
        assert!(policies.on_event(2, "n1", &other, later));
        let end = policies.next_end().unwrap();
        assert_eq!((refused(&mut policies, end), policies.next_end()), (vec!["Pod u1: no".to_owned()], None));
        // The last one never comes back.
        assert!(policies.on_event(2, "n1", &closed(), end));
        let end = policies.next_end().unwrap();
        assert_eq!(refused(&mut policies, end), [""; 0]);
    }
}
