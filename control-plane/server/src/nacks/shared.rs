//! What proxies of other replicas refuse. Replicas tell the writer of statuses by annotations on the status Lease, the one object that each
//! of them may patch: `refusals.meshwright.io/<pod>`. Clocks of replicas are not compared: a note that does not change any more is of a
//! replica that is gone.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use meshwright_core::ObjectKey;
use meshwright_core::model::{ObjectId, ObjectKind};
use meshwright_k8s::lease::Leadership;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

const PREFIX: &str = "refusals.meshwright.io/";
/// How often a note is written anew, and read. Each one makes a renewal of the Lease conflict, which costs the holder one more request.
pub(super) const BEAT: Duration = Duration::from_secs(15);
/// A note that did not change for this long is nobody's.
const SILENT: Duration = Duration::from_secs(60);
const REQUEST: Duration = Duration::from_secs(4);
/// All annotations of an object together may have 256 kB.
const MAX_OBJECTS: usize = 20;
const MAX_WORDS: usize = 200;

type Rejections = BTreeMap<ObjectId, String>;

#[derive(Serialize, Deserialize)]
struct Note {
    /// Another with each writing.
    beat: u64,
    refused: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    kind: String,
    namespace: String,
    name: String,
    words: String,
}

/// This replica's end of it.
pub struct Shared {
    leases: Api<Lease>,
    lease: String,
    key: String,
    leadership: Leadership,
    beat: u64,
    /// Whether there may be a note of ours.
    noted: bool,
    heard: Heard,
}

impl Shared {
    /// Notes of this pod on this Lease; read while `leadership` lasts.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        lease: String,
        pod: &str,
        leadership: Leadership,
    ) -> Self {
        let leases = Api::namespaced(client, namespace);
        let heard = Heard::default();
        Self { leases, lease, key: key(pod), leadership, beat: 0, noted: false, heard }
    }

    /// Tells others, or hears them.
    pub(super) async fn exchange(&mut self, own: &Rejections) {
        let leader = self.leadership.is_leader();
        let mut changes: BTreeMap<String, Value> = BTreeMap::new();
        if leader {
            match timeout(REQUEST, self.leases.get(&self.lease)).await {
                Ok(Ok(lease)) => {
                    let notes = lease.metadata.annotations.unwrap_or_default();
                    // Of a container of this pod that was there before, if not of ours.
                    self.noted |= notes.contains_key(&self.key);
                    let silent = self.heard.take(notes, &self.key, Instant::now());
                    changes.extend(silent.into_iter().map(|key| (key, Value::Null)));
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "could not read what other replicas' proxies refuse")
                }
                Err(_) => tracing::debug!("reading what other replicas' proxies refuse timed out"),
            }
        } else {
            self.heard = Heard::default();
        }
        let has_note = !leader && !own.is_empty();
        if has_note {
            self.beat += 1;
            changes.insert(self.key.clone(), Value::String(note(self.beat, own)));
        } else if self.noted {
            changes.insert(self.key.clone(), Value::Null);
        }
        if !changes.is_empty() && self.patch(&changes).await {
            self.noted = has_note;
        }
    }

    async fn patch(&self, changes: &BTreeMap<String, Value>) -> bool {
        let patch = Patch::Merge(json!({"metadata": {"annotations": changes}}));
        match timeout(REQUEST, self.leases.patch(&self.lease, &PatchParams::default(), &patch)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => tracing::warn!(%error, "could not tell other replicas what proxies refuse"),
            Err(_) => tracing::warn!("telling other replicas what proxies refuse timed out"),
        }
        false
    }

    /// Ours and those of others, as far as they are for us to report.
    pub(super) fn with_others(&self, own: &Rejections) -> Rejections {
        let mut all = self.heard.rejections();
        all.extend(own.iter().map(|(object, words)| (object.clone(), words.clone())));
        all
    }
}

/// What the notes of others say, and since when.
#[derive(Default)]
struct Heard(BTreeMap<String, (String, Instant)>);

impl Heard {
    /// Takes what is there now; returns the keys of those that said nothing new for too long.
    fn take(&mut self, annotations: BTreeMap<String, String>, own: &str, now: Instant) -> Vec<String> {
        let mut last = std::mem::take(&mut self.0);
        let mut silent = Vec::new();
        for (key, text) in annotations {
            if !key.starts_with(PREFIX) || key == own {
                continue;
            }
            let since = last.remove(&key).filter(|(known, _)| *known == text).map_or(now, |(_, since)| since);
            if now.duration_since(since) >= SILENT {
                silent.push(key.clone());
            }
            self.0.insert(key, (text, since));
        }
        silent.iter().for_each(|key| drop(self.0.remove(key)));
        silent
    }

    fn rejections(&self) -> Rejections {
        let notes = self.0.values().filter_map(|(text, _)| serde_json::from_str::<Note>(text).ok());
        notes.flat_map(|note| note.refused).filter_map(rejection).collect()
    }
}

fn note(beat: u64, own: &Rejections) -> String {
    let entry = |(object, words): (&ObjectId, &String)| Entry {
        kind: kind(object.kind).to_owned(),
        namespace: object.key.namespace.clone(),
        name: object.key.name.clone(),
        words: words.chars().take(MAX_WORDS).collect(),
    };
    let note = Note { beat, refused: own.iter().take(MAX_OBJECTS).map(entry).collect() };
    // Strings and a number always serialize.
    serde_json::to_string(&note).unwrap_or_default()
}

fn rejection(entry: Entry) -> Option<(ObjectId, String)> {
    use ObjectKind::{Gateway, GrpcRoute, HttpRoute, Node, Pod, TcpRoute};
    let kinds = [Gateway, HttpRoute, GrpcRoute, TcpRoute, Pod, Node];
    let kind = kinds.into_iter().find(|one| kind(*one) == entry.kind)?;
    Some((ObjectId { kind, key: ObjectKey::new(entry.namespace, entry.name) }, entry.words))
}

fn kind(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Gateway => "Gateway",
        ObjectKind::HttpRoute => "HTTPRoute",
        ObjectKind::GrpcRoute => "GRPCRoute",
        ObjectKind::TcpRoute => "TCPRoute",
        ObjectKind::Pod => "Pod",
        ObjectKind::Node => "Node",
    }
}

/// The name in an annotation's key has at most 63 characters; what tells pods apart is at the end.
fn key(pod: &str) -> String {
    let end = pod.char_indices().rev().nth(62).map_or(pod, |(start, _)| &pod[start..]);
    format!("{PREFIX}{}", end.trim_start_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_heard_until_it_is_silent_for_too_long() {
        let object = ObjectId { kind: ObjectKind::HttpRoute, key: ObjectKey::new("shop", "cart") };
        let pod = ObjectId { kind: ObjectKind::Pod, key: ObjectKey::new("", "u1") };
        let own = Rejections::from([(object, "no such thing".to_owned()), (pod, "too long".to_owned())]);
        let annotations = |beat| {
            BTreeMap::from([
                (key("cp-2"), note(beat, &own)),
                (key("cp-1"), "ours".to_owned()),
                (key("cp-3"), "no note".to_owned()),
                ("meshwright.io/revision".to_owned(), "mesh-1".to_owned()),
            ])
        };
        let (mut heard, start) = (Heard::default(), Instant::now());
        assert!(heard.take(annotations(1), &key("cp-1"), start).is_empty());
        assert_eq!(heard.rejections(), own);
        assert_eq!(heard.take(annotations(2), &key("cp-1"), start + SILENT), [key("cp-3")]);
        assert_eq!(heard.rejections(), own);
        let silent = heard.take(annotations(2), &key("cp-1"), start + SILENT * 2);
        assert!(silent.contains(&key("cp-2")));
        assert!(heard.rejections().is_empty());
    }

    #[test]
    fn keys_are_short_enough_and_notes_too() {
        let long = format!("{}-5f6d7c8b9-abcde", "a.".repeat(60));
        let name = key(&long).strip_prefix(PREFIX).unwrap().to_owned();
        assert!(name.len() <= 63 && name.ends_with("-abcde") && name.starts_with('a'));
        assert_eq!(key("cp-1"), "refusals.meshwright.io/cp-1");
        let one =
            |n: usize| ObjectId { kind: ObjectKind::Gateway, key: ObjectKey::new("shop", n.to_string()) };
        let own: Rejections = (0..1000).map(|n| (one(n), "x".repeat(10_000))).collect();
        assert!(note(u64::MAX, &own).len() < 8 * 1024);
    }
}
