//! Carries out what [`Keep`] decides, and tells everybody who needs to know.

mod admit;
mod plugin;
mod turn;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use meshwright_proto::nodes::{NodeOrder, NodeReport};
use meshwright_runtime::CancellationToken;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use super::{
    admission::Admissions,
    args::Args,
    claim::Claims,
    duty::Duty,
    farewell::Farewell,
    find,
    follow::Heard,
    hands::Hands,
    keep::{Keep, Task},
    metrics::Metrics,
    naming::Naming,
    netns::is_namespace,
    nft::Nft,
    rules::Ports,
    store,
    takers::Takers,
    wallet::Wallet,
};
use crate::relay::Relay;

/// Without any news: whether namespaces are still there, who serves.
const TICK: Duration = Duration::from_secs(1);
/// Each task takes a thread, and some a process.
const AT_ONCE: usize = 16;
/// How often what the container runtime wrote down is read, while somebody is sought.
const SEARCH: Duration = Duration::from_millis(500);
/// How often the rules for probes are set anew, while pods change.
const PROBES: Duration = Duration::from_millis(50);
/// How often connections are counted while we wait for their end.
const COUNT: Duration = Duration::from_millis(500);

/// What others tell the driver and hear from it.
pub struct Outlets {
    /// The control plane's word.
    pub heard: watch::Receiver<Heard>,
    /// Uids of the report that the control plane has.
    pub listed: watch::Receiver<Option<BTreeSet<String>>>,
    /// Identities with a certificate.
    pub certified: watch::Receiver<Arc<BTreeSet<String>>>,
    /// Identities that need one.
    pub wanted: watch::Sender<BTreeSet<String>>,
    /// What the control plane is told.
    pub report: watch::Sender<NodeReport>,
    /// Pods' certificates.
    pub wallet: Wallet,
}

enum Event {
    Ended(Task, Result<usize, String>),
    Found(Vec<(String, PathBuf)>),
    Connected(usize),
    Probes(String, anyhow::Result<()>),
    Looked(String, anyhow::Result<BTreeSet<IpAddr>>),
    Cut(String, anyhow::Result<usize>),
}

/// See the module.
pub struct Driver {
    args: Args,
    outlets: Outlets,
    relay: Relay,
    opened: watch::Receiver<Arc<BTreeSet<String>>>,
    hands: Hands,
    keep: Keep,
    admissions: Admissions,
    naming: Naming,
    duty: Duty,
    metrics: Metrics,
    plugin: plugin::Plugin,
    events: (mpsc::UnboundedSender<Event>, mpsc::UnboundedReceiver<Event>),
    slots: Arc<Semaphore>,
    /// Since when we serve, and whether everything that stood before stands again: until then a report would take pods away.
    serving: Option<Serving>,
    ending_since: Option<Instant>,
    farewell: Farewell,
    /// Connections that are left when we end.
    connected: Option<usize>,
    count: Repeated,
    search: Repeated,
    probes: Repeated,
    looked: Option<Instant>,
    stored: Stored,
}

/// Something that is done again and again, and once at a time.
#[derive(Default)]
struct Repeated {
    under_way: bool,
    last: Option<Instant>,
}

impl Repeated {
    /// Whether to begin now.
    fn begins(&mut self, every: Duration, now: Instant) -> bool {
        if self.under_way || self.last.is_some_and(|last| now < last + every) {
            return false;
        }
        *self = Self { under_way: true, last: Some(now) };
        true
    }
}

struct Serving {
    since: Instant,
    settled: bool,
    epoch: i64,
}

/// What is written down, as it was written last.
#[derive(Default)]
struct Stored {
    redirected: store::AllRedirected,
    namespaces: BTreeMap<String, String>,
    /// The node's rules for probes; none before they were set for the first time.
    probes: Option<String>,
}

impl Driver {
    /// Takes up what a process before us left in the directory that we share with Envoy. Envoy still has its listeners: whoever configures it
    /// next must know where they are, or would take them away.
    ///
    /// # Errors
    /// When the node's directory cannot be used.
    pub fn new(args: &Args, relay: &Relay, outlets: Outlets, metrics: Metrics) -> anyhow::Result<Self> {
        let claims = Arc::new(Claims::open(&args.paths.node_dir, &args.workload.revision)?);
        let ports = Ports { outbound: args.outbound_port, inbound: args.inbound_port };
        let (nft, wallet) = (Nft::new(args.paths.nft.clone()), outlets.wallet.clone());
        let hands = Hands { nft, claims, ports, wallet, takers: Takers::default() };
        let mut keep = Keep::new([ports.outbound, ports.inbound]);
        let namespaces: BTreeMap<String, String> = store::read_json(&namespaces_file(args));
        for (uid, path) in &namespaces {
            keep.inherited(uid, path.into(), Instant::now());
        }
        keep.forget_lost(is_namespace, Instant::now());
        relay.inherit_namespaces(namespaces.clone());
        Ok(Self {
            plugin: plugin::Plugin::new(&args.paths),
            opened: relay.opened(),
            relay: relay.clone(),
            args: args.clone(),
            outlets,
            hands,
            keep,
            admissions: Admissions::default(),
            naming: Naming::default(),
            duty: Duty::StandsBy,
            metrics,
            events: mpsc::unbounded_channel(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            serving: None,
            ending_since: None,
            farewell: Farewell::default(),
            connected: None,
            count: Repeated::default(),
            search: Repeated::default(),
            probes: Repeated::default(),
            looked: None,
            stored: Stored { namespaces, ..Stored::default() },
        })
    }

    /// Runs until nothing is left to do after `ending`.
    ///
    /// # Errors
    /// When somebody who has to be told anything is gone.
    pub async fn run(mut self, ending: CancellationToken) -> anyhow::Result<()> {
        loop {
            let next = self.turn(ending.is_cancelled());
            if self.ending_since.is_some() && self.duty == Duty::Left {
                return Ok(());
            }
            tokio::select! {
                Some(event) = self.events.1.recv() => self.on_event(event),
                Some(question) = self.plugin.questions.1.recv() => self.on_question(question),
                changed = self.outlets.heard.changed() => changed?,
                changed = self.outlets.listed.changed() => changed?,
                changed = self.outlets.certified.changed() => changed?,
                changed = self.opened.changed() => changed?,
                () = tokio::time::sleep_until(next) => {}
                () = ending.cancelled(), if self.ending_since.is_none() => {}
            }
            // Pods come in bursts: one look for all that has happened.
            while let Ok(event) = self.events.1.try_recv() {
                self.on_event(event);
            }
            while let Ok(question) = self.plugin.questions.1.try_recv() {
                self.on_question(question);
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Ended(task, outcome) => {
                // A pod that ends takes its namespace with it in the middle of anything.
                if let (Err(e), true) = (&outcome, is_namespace(&task.namespace)) {
                    self.metrics.failures.inc();
                    tracing::warn!(uid = task.uid, job = ?task.job.0, error = e, "act in a pod's namespace");
                }
                self.keep.ended(&task, outcome, now);
            }
            Event::Found(found) => {
                self.search.under_way = false;
                for (uid, namespace) in found {
                    tracing::info!(uid, namespace = %namespace.display(), "found a pod's namespace");
                    self.keep.found(&uid, namespace, now);
                }
            }
            Event::Probes(script, outcome) => {
                self.probes.under_way = false;
                match outcome {
                    Ok(()) => self.stored.probes = Some(script),
                    Err(e) => {
                        self.metrics.failures.inc();
                        tracing::warn!(error = %format!("{e:#}"), "let the kubelet's probes through");
                    }
                }
            }
            Event::Looked(uid, Ok(callers)) => self.admissions.looked(&uid, callers, now),
            Event::Cut(uid, Ok(count)) => {
                if count > 0 {
                    tracing::info!(
                        uid,
                        connections = count,
                        "ended connections of callers that are refused now"
                    );
                }
                self.admissions.ended(&uid, true, now);
            }
            Event::Looked(uid, Err(e)) | Event::Cut(uid, Err(e)) => {
                self.metrics.failures.inc();
                tracing::warn!(uid, error = %format!("{e:#}"), "end connections of callers that are refused now");
                self.admissions.ended(&uid, false, now);
            }
            Event::Connected(count) => {
                self.count.under_way = false;
                self.connected = Some(count);
            }
        }
    }

    fn spawn(&self, act: impl FnOnce() -> Event + Send + 'static) {
        let (events, slots) = (self.events.0.clone(), self.slots.clone());
        tokio::spawn(async move {
            // The semaphore is never closed.
            let Ok(_slot) = slots.acquire_owned().await else { return };
            if let Ok(event) = tokio::task::spawn_blocking(act).await {
                // Nobody hears it any more when we end.
                let _ = events.send(event);
            }
        });
    }

    fn perform(&self, task: Task) {
        let hands = self.hands.clone();
        self.spawn(move || {
            let outcome = hands.perform(&task).map_err(|e| format!("{e:#}"));
            Event::Ended(task, outcome)
        });
    }

    fn search(&mut self, sought: Vec<find::Sought>, now: Instant) {
        if sought.is_empty() || !self.search.begins(SEARCH, now) {
            return;
        }
        let (cache, directory) = (self.args.paths.cni_cache_dir.clone(), self.args.paths.netns_dir.clone());
        self.spawn(move || Event::Found(find::find(&cache, &directory, &sought)));
    }

    /// Whoever serves the node has its rules for probes. Before pods refuse anything, so that no probe fails.
    fn let_probes_through(&mut self, script: String, now: Instant) {
        let is_known = self.stored.probes.as_ref() == Some(&script);
        if self.serving.is_none() || is_known || !self.probes.begins(PROBES, now) {
            return;
        }
        let hands = self.hands.clone();
        self.spawn(move || {
            let outcome = hands.probes(&script);
            Event::Probes(script, outcome)
        });
    }

    fn order(&self) -> Arc<NodeOrder> {
        self.outlets.heard.borrow().order.clone().unwrap_or_default()
    }

    /// While we end, how many connections are left.
    fn count(&mut self, now: Instant) {
        if self.count.begins(COUNT, now) {
            let (hands, namespaces) = (self.hands.clone(), self.keep.all_namespaces());
            self.spawn(move || Event::Connected(hands.connected(&namespaces)));
        }
    }
}

fn namespaces_file(args: &Args) -> PathBuf {
    args.run_dir.join("namespaces.json")
}
