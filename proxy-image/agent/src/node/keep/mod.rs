//! All pods of the node that are in the mesh, on their way in or on their way out. Pure: what the control plane, Envoy and the node say goes
//! in, what is to be done comes out.

pub mod pod;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use meshwright_cni::{Answer, Request};
use meshwright_proto::nodes::{CapturedPod, Member, NodeOrder, PodPolicy};
use tokio::time::Instant;

use super::{find::Sought, rules::Guard, store::AllRedirected};
use pod::{Job, Pod, Seen};

/// So many that wait are told of.
const AWAITING: usize = 20;

/// What the rest of the world says at one moment.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The control plane's last word.
    pub order: &'a NodeOrder,
    /// Identities with a certificate.
    pub certified: &'a BTreeSet<String>,
    /// Pods whose listeners Envoy has taken.
    pub opened: &'a BTreeSet<String>,
    /// Pods of the report that the control plane has; none while it has none.
    pub listed: Option<&'a BTreeSet<String>>,
    /// We are who sets rules on this node.
    pub serves: bool,
    /// No pod is to be in the mesh any more, whatever the order says.
    pub leaves: bool,
}

impl World<'_> {
    fn member(&self, uid: &str) -> Option<&Member> {
        self.order.members.get(uid).filter(|_| !self.leaves)
    }
}

/// A network that a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sandbox {
    namespace: PathBuf,
    addresses: Vec<String>,
}

/// Something to be done in the namespace of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// The pod.
    pub uid: String,
    /// Its namespace.
    pub namespace: PathBuf,
    /// What to do; told back with its end.
    pub job: (Job, u64),
    /// The ports to which the pod was ever redirected.
    pub ports: BTreeSet<u16>,
    /// Rules of ours may be there already.
    pub redirected: bool,
    /// Plaintext that the pod refuses.
    pub guard: Guard,
    /// SPIFFE id of the pod; empty while it is not known.
    pub identity: String,
}

/// See the module.
#[derive(Debug)]
pub struct Keep {
    ports: [u16; 2],
    pods: BTreeMap<String, Pod>,
    /// What the network plugin told, also of pods of which the control plane has not said anything yet.
    sandboxes: BTreeMap<String, Sandbox>,
    /// Identities of pods that are here, the last ones known.
    identities: BTreeMap<String, String>,
}

impl Keep {
    /// No pod yet. What is captured goes to these ports.
    pub fn new(ports: [u16; 2]) -> Self {
        Self { ports, pods: BTreeMap::new(), sandboxes: BTreeMap::new(), identities: BTreeMap::new() }
    }

    /// Rules that were set before we were, or by who served before us.
    pub fn restore(&mut self, redirected: &AllRedirected, now: Instant) {
        for (uid, known) in redirected {
            let pod = self.pods.entry(uid.clone()).or_insert_with(|| Pod::new(now));
            pod.restore(known.netns.clone(), known.ports.iter().copied(), now);
        }
    }

    /// A process before us had Envoy listen there. Who is no member any more leaves from there: its connections are in it.
    pub fn inherited(&mut self, uid: &str, namespace: PathBuf, now: Instant) {
        self.pods.entry(uid.to_owned()).or_insert_with(|| Pod::new(now));
        self.announced(uid, namespace, Vec::new(), now);
    }

    /// The network plugin says that a pod got its network.
    pub fn announced(&mut self, uid: &str, namespace: PathBuf, addresses: Vec<String>, now: Instant) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.found(namespace.clone(), now);
        }
        self.sandboxes.insert(uid.to_owned(), Sandbox { namespace, addresses });
    }

    /// The namespace of a pod was found.
    pub fn found(&mut self, uid: &str, namespace: PathBuf, now: Instant) {
        if let Some(pod) = self.pods.get_mut(uid).filter(|pod| pod.is_sought()) {
            pod.found(namespace, now);
        }
    }

    /// Forgets namespaces that are not there any more.
    pub fn forget_lost(&mut self, exists: impl Fn(&Path) -> bool, now: Instant) {
        self.sandboxes.retain(|_, sandbox| exists(&sandbox.namespace));
        for pod in self.pods.values_mut() {
            if pod.namespace().is_some_and(|namespace| !exists(namespace)) {
                pod.lost(now);
            }
        }
    }

    /// A task has ended, see [`Pod::ended`].
    pub fn ended(&mut self, task: &Task, outcome: Result<usize, String>, now: Instant) {
        if let Some(pod) = self.pods.get_mut(&task.uid) {
            pod.ended(task.job, outcome, now);
        }
    }

    /// Nobody waits for connections any more.
    pub fn give_up(&mut self) {
        self.pods.values_mut().for_each(Pod::give_up);
    }

    /// What to do now.
    pub fn advance(&mut self, world: World<'_>, now: Instant) -> Vec<Task> {
        let members = world.order.members.iter().filter(|_| !world.leaves);
        for (uid, member) in members {
            self.identities.insert(uid.clone(), member.identity.clone());
            let sandbox = self.sandboxes.get(uid);
            self.pods.entry(uid.clone()).or_insert_with(|| {
                let mut pod = Pod::new(now);
                sandbox.into_iter().for_each(|sandbox| pod.found(sandbox.namespace.clone(), now));
                pod
            });
        }
        let mut tasks = Vec::new();
        for (uid, pod) in &mut self.pods {
            let seen = seen(uid, world, self.identities.get(uid));
            let redirected = pod.is_redirected();
            // Who leaves is sent plaintext before long.
            let policy = world.order.policies.get(uid).filter(|_| seen.wanted);
            pod.guards(&guard(policy), now);
            let job = pod.step(seen, now);
            if pod.is_redirected() {
                pod.redirects_to(self.ports);
            }
            if let (Some(job), Some(namespace)) = (job, pod.namespace()) {
                let ports = pod.ports().iter().copied().chain(self.ports).collect();
                let identity = self.identities.get(uid).cloned().unwrap_or_default();
                let (uid, namespace, guard) = (uid.clone(), namespace.clone(), pod.guard().clone());
                tasks.push(Task { uid, namespace, job, ports, redirected, guard, identity });
            }
        }
        self.pods.retain(|_, pod| !pod.is_gone());
        let (pods, sandboxes) = (&self.pods, &self.sandboxes);
        self.identities.retain(|uid, _| pods.contains_key(uid) || sandboxes.contains_key(uid));
        tasks
    }

    /// When to look again, if nothing happens.
    pub fn wakes(&self) -> Option<Instant> {
        self.pods.values().filter_map(Pod::wakes).min()
    }

    /// Where Envoy is to have pods' listeners, by uid.
    pub fn namespaces(&self) -> BTreeMap<String, String> {
        let listens = self.pods.iter().filter_map(|(uid, pod)| Some((uid, pod.listens_in()?)));
        listens.map(|(uid, path)| (uid.clone(), path.display().to_string())).collect()
    }

    /// All namespaces of pods, also of those whose listeners are closed.
    pub fn all_namespaces(&self) -> Vec<PathBuf> {
        self.pods.values().filter_map(|pod| pod.namespace().cloned()).collect()
    }

    /// Pods whose namespaces have rules of ours.
    pub fn redirected(&self) -> AllRedirected {
        let redirected = self.pods.iter().filter(|(_, pod)| pod.is_redirected());
        let known = redirected.filter_map(|(uid, pod)| {
            let netns = pod.namespace()?.clone();
            Some((
                uid.clone(),
                super::store::Redirected { netns, ports: pod.ports().iter().copied().collect() },
            ))
        });
        known.collect()
    }

    /// Identities that need a certificate: also those of pods that leave, as long as Envoy listens in them.
    pub fn identities(&self) -> BTreeSet<String> {
        let kept = self.pods.iter().filter(|(_, pod)| pod.is_sought() || pod.listens_in().is_some());
        kept.filter_map(|(uid, _)| self.identities.get(uid).cloned()).collect()
    }

    /// Pods that are to be in the mesh, have addresses, and whose namespaces are not known.
    pub fn sought(&self, world: World<'_>) -> Vec<Sought> {
        let sought = self.pods.iter().filter(|(_, pod)| pod.is_sought());
        let members = sought.filter_map(|(uid, _)| Some((uid, world.member(uid)?)));
        let found = members.map(|(uid, Member { namespace, name, addresses, .. })| Sought {
            uid: uid.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            addresses: addresses.clone(),
        });
        found.filter(|sought| !sought.addresses.is_empty()).collect()
    }

    /// Pods that take mutual TLS, by uid. One without any address is of no use to anybody.
    pub fn captured(&self, world: World<'_>) -> Vec<CapturedPod> {
        let captured = self.pods.iter().filter(|(_, pod)| pod.is_captured());
        let reported = captured.filter_map(|(uid, _)| {
            let member = world.member(uid)?;
            let sandbox = self.sandboxes.get(uid).filter(|_| member.addresses.is_empty());
            let addresses =
                sandbox.map_or_else(|| member.addresses.clone(), |sandbox| sandbox.addresses.clone());
            (!addresses.is_empty()).then(|| CapturedPod { uid: uid.clone(), addresses })
        });
        reported.collect()
    }

    /// Pods that take mutual TLS, and where.
    pub fn captured_in(&self) -> impl Iterator<Item = (String, PathBuf)> {
        let captured = self.pods.iter().filter(|(_, pod)| pod.is_captured());
        captured.filter_map(|(uid, pod)| Some((uid.clone(), pod.namespace()?.clone())))
    }

    /// Ports that the node's own probes reach in any case, by the addresses of pods that refuse other plaintext.
    pub fn probes(&self, world: World<'_>) -> BTreeMap<IpAddr, BTreeSet<u16>> {
        let mut probes = BTreeMap::<IpAddr, BTreeSet<u16>>::new();
        for (uid, pod) in self.pods.iter().filter(|(_, pod)| pod.is_redirected() && pod.guard().refuses_any())
        {
            let told = self.sandboxes.get(uid).map(|sandbox| &sandbox.addresses);
            let addresses =
                world.member(uid).map(|member| &member.addresses).into_iter().chain(told).flatten();
            for address in addresses.filter_map(|address| address.parse().ok()) {
                probes.entry(address).or_default().extend(&pod.guard().probes);
            }
        }
        probes.retain(|_, ports| !ports.is_empty());
        probes
    }

    /// Uids of pods that take mutual TLS, or would as soon as we serve.
    pub fn prepared(&self, world: World<'_>) -> Vec<String> {
        let prepared = self.pods.iter().filter(|(uid, pod)| pod.is_prepared() && world.member(uid).is_some());
        prepared.map(|(uid, _)| uid.clone()).collect()
    }

    /// The other members, by uid, and what they wait for.
    pub fn awaiting(&self, world: World<'_>) -> HashMap<String, String> {
        let waits = self.pods.iter().filter(|(uid, pod)| !pod.is_prepared() && world.member(uid).is_some());
        let why =
            |(uid, pod): (&String, &Pod)| (uid.clone(), pod.why(seen(uid, world, self.identities.get(uid))));
        waits.map(why).take(AWAITING).collect()
    }

    /// Whether every pod that is on its way in and can arrive has arrived; while we do not serve, as far as it can without rules.
    pub fn is_settled(&self, world: World<'_>) -> bool {
        let sought = self.sought(world);
        let arriving = |(_, pod): &(&String, &Pod)| match world.serves {
            true => pod.is_arriving(),
            false => pod.is_arriving() && !pod.is_open(),
        };
        sought.is_empty()
            && !self.pods.iter().filter(|(uid, _)| world.member(uid).is_some()).any(|pod| arriving(&pod))
    }

    /// Whether no pod is left that has rules of ours.
    pub fn is_cleared(&self) -> bool {
        !self.pods.values().any(Pod::is_redirected)
    }

    /// What the network plugin is told about a pod: none as long as it has to wait, with the reason.
    pub fn verdict(&self, world: World<'_>, request: &Request, namespace: &Path) -> Result<Answer, String> {
        let uid = uid_of(world.order, request);
        if let Some(pod) = uid.filter(|uid| world.member(uid).is_some()).and_then(|uid| self.pods.get(uid)) {
            let here = pod.namespace().is_some_and(|known| known == namespace);
            if here && pod.is_captured() {
                return Ok(Answer::Captured);
            }
            let seen = uid.map(|uid| seen(uid, world, self.identities.get(uid))).unwrap_or_default();
            return Err(pod.why(seen));
        }
        let order = world.order;
        let outside = world.leaves || order.outside.contains(&request.uid);
        let has_members = order.namespaces.get(&request.namespace) == Some(&true)
            || order.mixed.contains(&request.namespace);
        match has_members && !outside {
            true => Err("the control plane has not said yet whether it is in the mesh".to_owned()),
            false => Ok(Answer::Outside),
        }
    }

    /// Whether it has looked at the pod.
    pub fn knows(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    /// How many pods are in each stage.
    pub fn stages(&self) -> BTreeMap<&'static str, i64> {
        let mut stages = BTreeMap::new();
        self.pods.values().for_each(|pod| *stages.entry(pod.stage()).or_default() += 1);
        stages
    }
}

fn guard(policy: Option<&PodPolicy>) -> Guard {
    let Some(PodPolicy { refused, except, probes, admission: _, version: _ }) = policy else {
        return Guard::default();
    };
    let ports = |all: &[u32]| all.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
    Guard { refused: *refused, except: ports(except), probes: ports(probes) }
}

/// Uid of the pod, also where the container runtime does not tell it.
pub fn uid_of<'a>(order: &'a NodeOrder, request: &'a Request) -> Option<&'a str> {
    if !request.uid.is_empty() {
        return Some(&request.uid);
    }
    let named = |member: &Member| member.namespace == request.namespace && member.name == request.name;
    order.members.iter().find(|(_, member)| named(member)).map(|(uid, _)| uid.as_str())
}

fn seen(uid: &str, world: World<'_>, identity: Option<&String>) -> Seen {
    let wanted = world.member(uid).is_some();
    // What the stream took is not written yet, and what is written not read by everybody.
    let is_listed = |listed: &BTreeSet<String>| {
        listed.contains(uid) || world.order.listed.iter().any(|listed| listed == uid)
    };
    Seen {
        wanted,
        leaves: world.leaves,
        serves: world.serves,
        certified: identity.is_some_and(|identity| world.certified.contains(identity)),
        opened: world.opened.contains(uid),
        told: !wanted && world.listed.is_some_and(|listed| !is_listed(listed)),
    }
}

#[cfg(test)]
mod tests;
