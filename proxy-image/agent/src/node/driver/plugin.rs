//! The network plugin's side of the driver.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use meshwright_cni::{Answer, Namespaces, Request};
use meshwright_proto::nodes::NodeOrder;
use meshwright_runtime::CancellationToken;
use tokio::{sync::mpsc, time::Instant};

use super::Driver;
use crate::node::{
    args::Paths,
    claim::Claims,
    duty::Duty,
    keep::uid_of,
    netns::known_as,
    plugin::{
        install::{Installation, Outcome},
        server::{self, Question},
    },
    store,
};

/// Less than the plugin's own patience, so that a pod's event says what was waited for.
const PATIENCE: Duration = Duration::from_secs(25);
/// A pod that a connected control plane has not mentioned for this long does not exist for it, as the kubelet's static pods do not, and is
/// not in the mesh.
const UNKNOWN: Duration = Duration::from_secs(90);
/// How often the node's list is looked at.
const ENSURE: Duration = Duration::from_secs(2);

/// Somebody waits for an answer.
struct Waiting {
    question: Question,
    namespace: Option<PathBuf>,
    since: Instant,
}

/// What the driver keeps of it.
pub struct Plugin {
    installation: Installation,
    pub(super) questions: (mpsc::Sender<Question>, mpsc::Receiver<Question>),
    waiting: Vec<Waiting>,
    /// When pods were asked about first that the control plane has not mentioned.
    unknown: BTreeMap<String, Instant>,
    serves: Option<CancellationToken>,
    ensured: Option<Instant>,
    /// The last thing that was wrong with the node's list, so that it is said once.
    trouble: Option<String>,
    /// The order whose namespaces are stored.
    stored: Option<Arc<NodeOrder>>,
}

impl Plugin {
    pub(super) fn new(paths: &Paths) -> Self {
        Self {
            installation: Installation::new(paths),
            questions: mpsc::channel(64),
            waiting: Vec::new(),
            unknown: BTreeMap::new(),
            serves: None,
            ensured: None,
            trouble: None,
            stored: None,
        }
    }

    /// From now on plugins ask us, if they do not yet.
    pub(super) fn begin(&mut self, claims: &Claims) {
        if self.serves.is_some() {
            return;
        }
        let stop = CancellationToken::new();
        match claims.acting(|| server::open(&self.installation.socket())) {
            Ok(listener) => {
                tokio::spawn(server::serve(listener, self.questions.0.clone(), stop.clone()));
                self.serves = Some(stop);
            }
            Err(e) => self.complain(&e, "listen for the network plugin"),
        }
        (self.ensured, self.stored) = (None, None);
    }

    /// Somebody else answers from now on. Who still waits is not answered, and asks again.
    pub(super) fn end(&mut self) {
        self.serves.take().into_iter().for_each(|stop| stop.cancel());
        self.waiting.clear();
    }

    /// Whether the control plane has had long enough to mention a pod that it does not mention.
    fn is_nobodys(&mut self, uid: &str, live_since: Option<Instant>, now: Instant) -> bool {
        self.unknown.retain(|_, first| now < *first + 10 * UNKNOWN);
        let first = *self.unknown.entry(uid.to_owned()).or_insert(now);
        live_since.is_some_and(|since| now >= since.max(first) + UNKNOWN)
    }

    /// Takes it from the node.
    pub(super) fn uninstall(&mut self, claims: &Arc<Claims>) {
        if self.serves.is_none() {
            return;
        }
        self.waiting.drain(..).for_each(|waiting| _ = waiting.question.reply.send(Answer::Outside));
        match claims.acting(|| self.installation.remove()) {
            Ok(()) => {
                tracing::info!("took the network plugin out of the node's list");
                self.end();
            }
            Err(e) => self.complain(&e, "take the network plugin out of the node's list"),
        }
    }

    fn complain(&mut self, error: &anyhow::Error, what: &str) {
        let trouble = format!("{error:#}");
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::error!(error = trouble, "{what}");
            self.trouble = Some(trouble);
        }
    }

    fn ensure(&mut self, claims: &Claims, written: &prometheus_client::metrics::counter::Counter) {
        match claims.acting(|| self.installation.ensure()) {
            Ok(outcome) => {
                self.trouble = None;
                if outcome == Outcome::Written {
                    written.inc();
                    tracing::info!("the network plugin is in the node's list");
                }
            }
            Err(e) => self.complain(&e, "install the network plugin"),
        }
    }

    fn store(&mut self, claims: &Claims, order: &Arc<NodeOrder>) {
        if self.stored.as_ref().is_some_and(|stored| Arc::ptr_eq(stored, order)) {
            return;
        }
        let is_same =
            |stored: &Arc<NodeOrder>| stored.namespaces == order.namespaces && stored.mixed == order.mixed;
        if !self.stored.as_ref().is_some_and(is_same) {
            let namespaces = order.namespaces.iter().map(|(name, joins)| (name.clone(), *joins)).collect();
            let stored = Namespaces { namespaces, mixed: order.mixed.iter().cloned().collect() };
            let file = self.installation.namespaces();
            if let Err(e) = claims.acting(|| store::write_json(&file, &stored)) {
                return self.complain(&e, "store which namespaces are in the mesh");
            }
        }
        self.stored = Some(order.clone());
    }
}

impl Driver {
    pub(super) fn on_question(&mut self, question: Question) {
        let now = Instant::now();
        let request = &question.request;
        let namespace = known_as(&self.args.paths.netns_dir, &request.netns);
        let order = self.order();
        if let (Some(namespace), Some(uid)) = (&namespace, uid_of(&order, request)) {
            self.keep.announced(uid, namespace.clone(), request.addresses.clone(), now);
        }
        self.plugin.waiting.push(Waiting { question, namespace, since: now });
    }

    /// Keeps it installed, and answers whom it can.
    pub(super) fn serve_plugin(&mut self, said: &super::turn::Said, now: Instant) {
        if !matches!(self.duty, Duty::Serves(_)) {
            return;
        }
        // Not while it may be about to be taken away.
        if said.order.claim.is_some() && self.plugin.ensured.is_none_or(|ensured| now >= ensured + ENSURE) {
            self.plugin.ensured = Some(now);
            self.plugin.ensure(&self.hands.claims, &self.metrics.installed);
        }
        self.plugin.store(&self.hands.claims, &said.order);
        for waiting in std::mem::take(&mut self.plugin.waiting) {
            match self.answer(&waiting, said, now) {
                // Who asked may have given up.
                Some(answer) => _ = waiting.question.reply.send(answer),
                None => self.plugin.waiting.push(waiting),
            }
        }
    }

    /// None as long as it has to wait.
    fn answer(&mut self, waiting: &Waiting, said: &super::turn::Said, now: Instant) -> Option<Answer> {
        let Waiting { question, namespace, since } = waiting;
        let (request, nowhere) = (&question.request, PathBuf::new());
        let waited = now.duration_since(*since);
        let verdict = self.keep.verdict(self.world(said), request, namespace.as_ref().unwrap_or(&nowhere));
        let why = match verdict {
            Ok(answer) => {
                if answer == Answer::Captured {
                    self.metrics.waited.observe(waited.as_secs_f64());
                }
                return Some(answer);
            }
            Err(why) => why,
        };
        let live_since = self.outlets.heard.borrow().live_since;
        let is_member = uid_of(&said.order, request).is_some_and(|uid| said.order.members.contains_key(uid));
        if !is_member && self.plugin.is_nobodys(&request.uid, live_since, now) {
            let Request { namespace, name, uid, .. } = request;
            tracing::warn!(
                namespace,
                name,
                uid,
                "the control plane knows nothing of a pod, it starts outside of the mesh"
            );
            return Some(Answer::Outside);
        }
        if namespace.is_none() {
            let (netns, directory) = (&request.netns, self.args.paths.netns_dir.display());
            return Some(Answer::Refused {
                why: format!("its network namespace {netns} is not in {directory}"),
            });
        }
        (waited >= PATIENCE).then(|| self.refused(question, &why))
    }

    fn refused(&self, question: &Question, why: &str) -> Answer {
        let refusal = self
            .relay
            .refusal(&question.request.uid)
            .map(|words| format!("; envoy refused a listener: {words}"));
        let away = self.outlets.heard.borrow().live_since.is_none();
        let away = if away { "; the control plane cannot be reached" } else { "" };
        Answer::Refused { why: format!("{why}{}{away}", refusal.unwrap_or_default()) }
    }
}
