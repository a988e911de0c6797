//! Nodes and MeshNodes change all the time: heartbeats, pods that join. A mesh is looked at again only for what it depends on: which nodes
//! there are, whether they are well, and who serves them.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use futures::{StreamExt, channel::mpsc::UnboundedSender};
use k8s_openapi::api::core::v1;
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use meshwright_api::{MeshNode, Standby};
use meshwright_runtime::CancellationToken;
use serde::de::DeserializeOwned;

use crate::context::Context;

/// Tells of such changes.
pub(super) async fn watch(ctx: Arc<Context>, stop: CancellationToken, changed: UnboundedSender<()>) {
    tokio::join!(
        follow(Api::<v1::Node>::all(ctx.client.clone()), is_well, &stop, &changed),
        follow(Api::<MeshNode>::all(ctx.client.clone()), served_by, &stop, &changed),
    );
}

fn is_well(node: &v1::Node) -> Option<String> {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone())
}

type Served = (String, i64, Option<(String, i64)>, Option<Standby>);

fn served_by(node: &MeshNode) -> Served {
    let status = node.status.as_ref().map(|s| (s.revision.clone(), s.epoch));
    let standby = node.status.as_ref().and_then(|s| s.standby.clone());
    (node.spec.revision.clone(), node.spec.epoch, status, standby)
}

async fn follow<K, V>(api: Api<K>, view: fn(&K) -> V, stop: &CancellationToken, changed: &UnboundedSender<()>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    V: PartialEq,
{
    let kind = K::kind(&());
    let mut known = Known::default();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = stop.cancelled() => return,
        };
        match event {
            // An end of the other side is the end of the controller.
            Some(Ok(event)) => {
                if known.learns(event, view) && changed.unbounded_send(()).is_err() {
                    return;
                }
            }
            Some(Err(error)) => tracing::debug!(%error, %kind, "watch"),
            None => return,
        }
    }
}

type Key = (Option<String>, String);

/// What was seen last of each object.
struct Known<V> {
    now: BTreeMap<Key, V>,
    /// While all of them are told anew.
    anew: BTreeMap<Key, V>,
}

impl<V> Default for Known<V> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), anew: BTreeMap::new() }
    }
}

impl<V: PartialEq> Known<V> {
    /// Whether the event says something new.
    fn learns<K: ResourceExt>(&mut self, event: Event<K>, view: fn(&K) -> V) -> bool {
        let key = |object: &K| (object.namespace(), object.name_any());
        match event {
            Event::Init => {
                self.anew.clear();
                false
            }
            Event::InitApply(object) => {
                self.anew.insert(key(&object), view(&object));
                false
            }
            Event::InitDone => {
                let before = std::mem::replace(&mut self.now, std::mem::take(&mut self.anew));
                before != self.now
            }
            Event::Apply(object) => {
                let now = view(&object);
                let before = self.now.get(&key(&object));
                let is_new = before != Some(&now);
                self.now.insert(key(&object), now);
                is_new
            }
            Event::Delete(object) => self.now.remove(&key(&object)).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: &str, heartbeat: i32) -> v1::Node {
        serde_json::from_value(json!({"metadata": {"name": name, "resourceVersion": heartbeat.to_string()},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    #[test]
    fn only_what_matters_is_told_and_a_watch_that_begins_anew_tells_what_it_missed() {
        let mut known = Known::default();
        let mut learns = |event| known.learns(event, is_well);
        assert!(!learns(Event::Init) && !learns(Event::InitApply(node("a", "True", 1))));
        assert!(learns(Event::InitDone), "the first list");
        assert!(!learns(Event::Apply(node("a", "True", 2))), "a heartbeat");
        assert!(learns(Event::Apply(node("a", "Unknown", 3))) && learns(Event::Apply(node("b", "True", 4))));
        assert!(learns(Event::Delete(node("b", "True", 5))) && !learns(Event::Delete(node("b", "True", 5))));
        assert!(!learns(Event::Init) && !learns(Event::InitApply(node("a", "Unknown", 6))));
        assert!(!learns(Event::InitDone), "nothing was missed");
        assert!(!learns(Event::Init) && learns(Event::InitDone), "it is gone");
    }
}
