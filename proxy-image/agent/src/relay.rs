//! The relay between the control plane and Envoy. It ends the delta protocol on both sides: this file shares the
//! pure [`state`] between the two streams.

pub mod pods;
pub mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use meshwright_xds::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Event, MaybeSent, Resource, Snapshot, TypeUrl,
};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{mpsc, watch};

use pods::Pods;
use state::{Configured, State};

/// Shared by the stream to the control plane, the stream to Envoy and the identity task.
#[derive(Clone)]
pub struct Relay(Arc<Inner>);

struct Inner {
    // One lock for state and both outlets, so that messages leave in the order of the decisions behind them.
    shared: Mutex<Shared>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    configured: watch::Sender<Configured>,
    opened: watch::Sender<Arc<BTreeSet<String>>>,
}

#[derive(Default)]
struct Shared {
    state: State,
    /// Of a node's proxy.
    pods: Option<Pods>,
    /// The process that Envoy was when it opened its last stream, if it says.
    envoy: Option<String>,
    restarts: Counter,
    upstream: Option<mpsc::UnboundedSender<DeltaDiscoveryRequest>>,
    maybe_sent: MaybeSent,
    stream: u64,
    refused: u64,
}

impl Default for Relay {
    fn default() -> Self {
        Self::new(Shared::default())
    }
}

impl Relay {
    /// That of a node's proxy; pods' namespaces are put into what it hands on.
    pub fn of_node(pods: Pods) -> Self {
        Self::new(Shared { pods: Some(pods), state: State::on_demand(), ..Shared::default() })
    }

    fn new(shared: Shared) -> Self {
        let snapshots = watch::Sender::new(Arc::new(shared.state.snapshot().clone()));
        let (configured, opened) = (watch::Sender::default(), watch::Sender::default());
        Self(Arc::new(Inner { shared: Mutex::new(shared), snapshots, configured, opened }))
    }

    /// Uids of the pods whose listeners Envoy has taken.
    pub fn opened(&self) -> watch::Receiver<Arc<BTreeSet<String>>> {
        self.0.opened.subscribe()
    }

    /// Where pods' network namespaces are, by uid: everything, each time.
    pub fn set_namespaces(&self, namespaces: BTreeMap<String, String>) {
        self.with(|shared| shared.pods.as_mut().map(|pods| pods.set_namespaces(namespaces)));
        self.touch();
    }

    /// The same, as a process before this one said it: Envoy may have listeners there that nobody sends any more.
    pub fn inherit_namespaces(&self, namespaces: BTreeMap<String, String>) {
        self.with(|shared| shared.pods.as_mut().map(|pods| pods.inherit(namespaces)));
        self.touch();
    }

    /// Why Envoy refused a listener of the pod, if it did.
    pub fn refusal(&self, uid: &str) -> Option<String> {
        self.with(|shared| shared.pods.as_ref()?.refusal(uid))
    }

    /// Whether Envoy has taken a pod's policy in this version.
    pub fn has_taken_policy(&self, uid: &str, version: &str) -> bool {
        let name = meshwright_xds::mesh::policy_name(uid);
        self.with(|shared| shared.state.has_taken(TypeUrl::ExtensionConfig, &name, version))
    }

    /// Whether Envoy does not take a pod's policy in this version.
    pub fn has_refused_policy(&self, uid: &str, version: &str) -> bool {
        let name = meshwright_xds::mesh::policy_name(uid);
        self.with(|shared| shared.state.has_refused(TypeUrl::ExtensionConfig, &name, version))
    }

    /// Whether it is that of a node's proxy.
    pub fn is_of_node(&self) -> bool {
        self.with(|shared| shared.pods.is_some())
    }

    /// How often another Envoy came than the one before.
    pub fn restarts(&self) -> Counter {
        self.with(|shared| shared.restarts.clone())
    }

    /// Envoy opened a stream, and says which process it is.
    pub fn envoy_is(&self, process: String) {
        let before = self.with(|shared| shared.envoy.replace(process.clone()));
        if before.is_some_and(|before| before != process) {
            tracing::warn!(process, "envoy was started anew");
            self.with(|shared| shared.restarts.inc());
            self.envoy_restarted();
        }
    }

    /// What Envoy should have.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.0.snapshots.subscribe()
    }

    /// How far this Envoy is.
    pub fn configured(&self) -> watch::Receiver<Configured> {
        self.0.configured.subscribe()
    }

    /// How many responses Envoy has refused.
    pub fn refused(&self) -> u64 {
        self.with(|shared| shared.refused)
    }

    /// A secret of our own; it never reaches the control plane.
    pub fn set_local_secret(&self, secret: Resource) {
        self.apply(|state| {
            state.set_local_secret(secret);
            Vec::new()
        });
    }

    /// Takes a secret of our own away.
    pub fn remove_local_secret(&self, name: &str) {
        self.apply(|state| {
            state.remove_local_secret(name);
            Vec::new()
        });
    }

    /// A new stream to the control plane; the receiver has what to send on it.
    pub fn connect_upstream(&self) -> mpsc::UnboundedReceiver<DeltaDiscoveryRequest> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.with(|shared| shared.upstream = Some(sender));
        self.apply(State::on_upstream_connected);
        receiver
    }

    /// The stream to the control plane is gone.
    pub fn disconnect_upstream(&self) {
        self.with(|shared| shared.upstream = None);
    }

    /// A response of the control plane.
    pub fn on_upstream(&self, response: DeltaDiscoveryResponse) {
        self.apply(|state| state.on_upstream(response));
    }

    /// Envoy opened a stream. Returns its number and what Envoy may still hold from its last one.
    pub fn open_downstream(&self) -> (u64, MaybeSent) {
        self.apply(|state| {
            state.envoy_disconnected();
            Vec::new()
        });
        self.with(|shared| {
            shared.stream += 1;
            (shared.stream, shared.maybe_sent.clone())
        })
    }

    /// Something happened on a stream to Envoy. The end of an old stream may be noticed after the new one began;
    /// what it says by then is void.
    pub fn on_downstream(&self, stream: u64, event: Event) {
        if self.with(|shared| shared.stream != stream) {
            return;
        }
        if let Event::Closed { maybe_sent } = &event {
            self.with(|shared| shared.maybe_sent = maybe_sent.clone());
        }
        if let Event::Nack { kind, resources, message } = &event {
            self.with(|shared| shared.refused += 1);
            let names: Vec<_> = resources.iter().map(|(name, _)| name).collect();
            tracing::warn!(%kind, ?names, message, "envoy rejected configuration");
        }
        let is_refusal = matches!(event, Event::Nack { kind: TypeUrl::Listener, .. });
        let (event, again) = self.with(|shared| match &mut shared.pods {
            Some(pods) => {
                let asks = pods.asks(&event);
                (pods.on_downstream(event), is_refusal || asks)
            }
            None => (event, false),
        });
        self.apply(|state| {
            if again {
                state.touch();
            }
            state.on_downstream(event)
        });
    }

    /// A new Envoy process has nothing, and may take what the old one refused.
    pub fn envoy_restarted(&self) {
        let of_node = self.with(|shared| {
            shared.maybe_sent = MaybeSent::default();
            shared.pods.as_mut().map(Pods::envoy_restarted).is_some()
        });
        self.apply(|state| {
            state.envoy_restarted();
            if of_node {
                state.touch();
            }
            Vec::new()
        });
    }

    fn touch(&self) {
        self.apply(|state| {
            state.touch();
            Vec::new()
        });
    }

    fn apply(&self, change: impl FnOnce(&mut State) -> Vec<DeltaDiscoveryRequest>) {
        self.with(|shared| {
            let before = shared.state.snapshot().generation();
            let requests = change(&mut shared.state);
            if shared.state.snapshot().generation() != before {
                let snapshot = shared.state.snapshot();
                let rendered = shared.pods.as_mut().map(|pods| pods.render(snapshot));
                self.0.snapshots.send_replace(Arc::new(rendered.unwrap_or_else(|| snapshot.clone())));
            }
            if let Some(pods) = &shared.pods {
                let opened = Arc::new(pods.opened());
                self.0.opened.send_if_modified(|known| {
                    let changed = *known != opened;
                    *known = opened;
                    changed
                });
            }
            let configured = shared.state.configured();
            self.0.configured.send_if_modified(|known| std::mem::replace(known, configured) != configured);
            if let Some(upstream) = &shared.upstream {
                for request in requests {
                    // A closed channel means that the stream ended; the next one starts with everything.
                    let _ = upstream.send(request);
                }
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.0.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
