//! What each policy's status says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::of_namespace;
use super::plaintext::{deciding, nearness};
use super::requests;
use crate::conditions::{ACCEPTED, PARTIALLY_INVALID, reason};
use crate::mesh::{Rules, membership};
use crate::model::{
    AuthorizationPolicy, MeshTlsPolicy, Meta, ObjectId, ObjectKey, ObjectKind, Pod, Unreadable, World,
};
use crate::status::{ConditionUpdate, Finding, PolicyStatus, PolicyStatuses};

/// How many names a message has.
const NAMED: usize = 3;

/// The statuses with those of these namespaces' policies looked at again.
pub(in crate::mesh) fn statuses<'a>(
    known: &Arc<PolicyStatuses>,
    namespaces: impl Iterator<Item = &'a str>,
    world: &World,
    rules: &Rules,
) -> Arc<PolicyStatuses> {
    let mut next = (**known).clone();
    for namespace in namespaces {
        let authorization: Vec<_> = of_namespace(&world.authorization_policies, namespace).collect();
        let tls: Vec<_> = of_namespace(&world.mesh_tls_policies, namespace).collect();
        let pods = match authorization.is_empty() && tls.is_empty() {
            true => Pods { world, root: &rules.root, members: Vec::new(), outside: Vec::new() },
            false => Pods::of(world, rules, namespace),
        };
        let found = authorization.iter().map(|one| (&one.meta, pods.authorization(one))).collect();
        replace(&mut next.authorization, namespace, found);
        let found = tls.iter().map(|one| (&one.meta, pods.tls(one))).collect();
        replace(&mut next.tls, namespace, found);
    }
    if next == **known { known.clone() } else { Arc::new(next) }
}

fn replace(
    all: &mut BTreeMap<ObjectKey, Arc<PolicyStatus>>,
    namespace: &str,
    found: Vec<(&Meta, PolicyStatus)>,
) {
    let from = all.range(ObjectKey::new(namespace, "")..);
    let known = from.take_while(|(key, _)| key.namespace == namespace).map(|(key, _)| key.clone());
    let gone: Vec<_> = known.filter(|key| !found.iter().any(|(meta, _)| meta.key == *key)).collect();
    gone.iter().for_each(|key| _ = all.remove(key));
    for (meta, status) in found {
        if all.get(&meta.key).is_none_or(|known| **known != status) {
            all.insert(meta.key.clone(), Arc::new(status));
        }
    }
}

type Named<'a> = (&'a ObjectKey, &'a Pod);

/// Pods that policies of one namespace can be for.
struct Pods<'a> {
    world: &'a World,
    root: &'a str,
    members: Vec<Named<'a>>,
    /// Of the namespace, and not in the mesh.
    outside: Vec<&'a Pod>,
}

impl<'a> Pods<'a> {
    fn of(world: &'a World, rules: &'a Rules, namespace: &str) -> Self {
        let is_member = |key: &ObjectKey, pod: &Pod| {
            let around = world.namespaces.get(&key.namespace).map(AsRef::as_ref);
            membership(pod, key, around, rules).is_ok()
        };
        let is_root = namespace == rules.root;
        let from = ObjectKey::new(if is_root { "" } else { namespace }, "");
        let all = world.pods.range(from..).take_while(|(key, _)| is_root || key.namespace == namespace);
        let (members, outside): (Vec<_>, Vec<_>) =
            all.map(|(key, pod)| (key, &**pod)).partition(|(key, pod)| is_member(key, pod));
        let outside = outside.into_iter().filter(|(key, _)| key.namespace == namespace).map(|(_, pod)| pod);
        Self { world, root: &rules.root, members, outside: outside.collect() }
    }

    fn authorization(&self, policy: &AuthorizationPolicy) -> PolicyStatus {
        let closed = "it allows nothing to the pods that it selects";
        understood(&policy.meta, policy.unreadable.as_ref(), closed, self.of_authorization(policy))
    }

    fn of_authorization(&self, policy: &AuthorizationPolicy) -> PolicyStatus {
        let here = |key: &ObjectKey| key.namespace == policy.meta.key.namespace;
        let selected =
            self.members.iter().filter(|(key, pod)| here(key) && policy.target.selects(&pod.labels));
        let selected: Vec<_> = selected.copied().collect();
        let count = selected.len();
        let outside = self.outside.iter().filter(|pod| policy.target.selects(&pod.labels)).count();
        if count == 0 {
            return status(&policy.meta, count, Err(nothing(outside)));
        }
        let mut says = Vec::new();
        says.push(match (policy.dry_run, policy.denies) {
            (true, _) => {
                format!("dry run: what it would refuse at {} is counted, and let in", self.at(&selected))
            }
            (false, true) => {
                format!("enforced at {}, which take no plaintext on the ports it names", self.at(&selected))
            }
            (false, false) => format!("enforced at {}, which take no plaintext", self.at(&selected)),
        });
        says.extend(self.not_captured(&selected));
        let http: Vec<_> = policy.rules.iter().filter(|rule| !rule.http.is_empty()).collect();
        if !http.is_empty() {
            let mut ports: Vec<_> = http.iter().flat_map(|rule| &rule.ports).map(u16::to_string).collect();
            ports.sort_unstable();
            ports.dedup();
            says.push(format!(
                "ports that take HTTP only because it looks at requests: {}",
                ports.join(", ")
            ));
        }
        if !policy.denies && policy.rules.is_empty() {
            says.push("it allows nothing".to_owned());
        }
        if outside > 0 {
            says.push(format!(
                "{} that it selects are not in the mesh, where it does nothing",
                pods(outside)
            ));
        }
        let mut status = status(&policy.meta, count, Ok(says.join("; ")));
        let partly = self.refused(policy, &selected).or_else(|| {
            let selected: Vec<_> = selected.iter().map(|(_, pod)| *pod).collect();
            self.not_http(policy, &selected)
        });
        status.conditions.extend(partly);
        status
    }

    /// Whether a node's proxy has it.
    fn is_captured(&self, pod: &Pod) -> bool {
        self.world.mesh_nodes.get(&pod.node).is_some_and(|node| node.pods.contains_key(&pod.uid))
    }

    /// At how many of them a policy does something.
    fn at(&self, selected: &[Named<'_>]) -> String {
        let captured = selected.iter().filter(|(_, pod)| self.is_captured(pod)).count();
        match captured == selected.len() {
            true => pods(captured),
            false => format!("{captured} of {}", pods(selected.len())),
        }
    }

    /// Those at which it does not.
    fn not_captured(&self, selected: &[Named<'_>]) -> Option<String> {
        let others = selected.iter().filter(|(_, pod)| !self.is_captured(pod)).map(|(key, _)| *key);
        let names = names(others)?;
        Some(format!("not captured by the proxy of their node yet, and open: {names}"))
    }

    /// Proxies that refuse what is made of it.
    fn refused(&self, policy: &AuthorizationPolicy, selected: &[Named<'_>]) -> Option<ConditionUpdate> {
        let words =
            |kind, name: &str| self.world.rejections.get(&ObjectId { kind, key: ObjectKey::new("", name) });
        let looks = policy.rules.iter().any(|rule| !rule.http.is_empty());
        let of = |pod: &Pod| {
            let of_node = looks.then(|| words(ObjectKind::Node, &pod.node)).flatten();
            words(ObjectKind::Pod, &pod.uid).or(of_node)
        };
        let refused = || selected.iter().filter_map(|(key, pod)| Some((*key, of(pod)?)));
        let (_, words) = refused().next()?;
        let message = format!(
            "proxies refuse what it and the others for these pods are together, and do what they did before: at {}: {words}. \
             Make rules fewer or shorter, and tell the mesh's authors",
            names(refused().map(|(key, _)| key)).unwrap_or_default()
        );
        let reason = reason::REJECTED_BY_PROXY;
        let generation = policy.meta.generation;
        Some(ConditionUpdate { message, ..ConditionUpdate::ok(PARTIALLY_INVALID, reason, generation) })
    }

    /// Ports that take HTTP only for the policy's sake, and are something else.
    fn not_http(&self, policy: &AuthorizationPolicy, selected: &[&Pod]) -> Option<ConditionUpdate> {
        let odd = requests::not_http(self.world, policy, selected);
        if odd.is_empty() {
            return None;
        }
        let ports: Vec<_> = odd.iter().map(|(port, by)| format!("{port} ({by})")).collect();
        let message = format!(
            "it looks at requests where something else than HTTP is spoken: at {}. These ports take HTTP only as long as it does: \
             take http out of the rules for them, or correct appProtocol and names of the Services' ports",
            ports.join(", ")
        );
        let reason = reason::UNSUPPORTED_PROTOCOL_BACKEND;
        Some(ConditionUpdate {
            message,
            ..ConditionUpdate::ok(PARTIALLY_INVALID, reason, policy.meta.generation)
        })
    }

    fn tls(&self, policy: &MeshTlsPolicy) -> PolicyStatus {
        let closed = "it is Strict for the pods that it selects";
        understood(&policy.meta, policy.unreadable.as_ref(), closed, self.of_tls(policy))
    }

    fn of_tls(&self, policy: &MeshTlsPolicy) -> PolicyStatus {
        let near = |(key, pod): &&(&ObjectKey, &Pod)| nearness(policy, self.root, key, pod);
        let selected: Vec<_> = self.members.iter().filter(|one| near(one).is_some()).collect();
        if selected.is_empty() {
            let outside = self.outside.iter().filter(|pod| policy.target.selects(&pod.labels)).count();
            return status(&policy.meta, 0, Err(nothing(outside)));
        }
        let count = selected.len();
        // An older one that is as near decides. A nearer one is no conflict: that is what it is for.
        let lost = selected.iter().filter_map(|one| {
            let (key, pod) = **one;
            let other = deciding(self.world, self.root, key, pod)?;
            let equal = nearness(other, self.root, key, pod) == near(one);
            (equal && other.meta.key != policy.meta.key).then_some(&other.meta.key)
        });
        let lost: Vec<_> = lost.collect();
        if lost.is_empty() {
            let selected: Vec<_> = selected.into_iter().copied().collect();
            let says = [Some(format!("in force for {}", self.at(&selected))), self.not_captured(&selected)];
            let says: Vec<_> = says.into_iter().flatten().collect();
            return status(&policy.meta, count, Ok(says.join("; ")));
        }
        let text = format!(
            "for {} of {} an older policy decides ({}): give each pod to one of them",
            lost.len(),
            pods(count),
            names(lost.iter().copied()).unwrap_or_default()
        );
        status(&policy.meta, count, Err(Finding::new(reason::CONFLICTED, text)))
    }
}

/// Some of these names, the first ones; None where there are none.
fn names<'a>(all: impl Iterator<Item = &'a ObjectKey>) -> Option<String> {
    let all: BTreeSet<String> = all.map(ToString::to_string).collect();
    let more = all.len().saturating_sub(NAMED);
    let named: Vec<_> = all.into_iter().take(NAMED).collect();
    let named = (!named.is_empty()).then(|| named.join(", "))?;
    Some(if more > 0 { format!("{named} and {more} more") } else { named })
}

/// The status, if this program understands the policy; otherwise what follows from that.
fn understood(
    meta: &Meta,
    unreadable: Option<&Unreadable>,
    closed: &str,
    status: PolicyStatus,
) -> PolicyStatus {
    let Some(Unreadable { words, is_kept }) = unreadable else { return status };
    let meanwhile = if *is_kept { "what it said before stays in force" } else { closed };
    let text = format!("this control plane does not understand it, until then {meanwhile}: {words}");
    let finding = Finding::new(reason::INVALID, text);
    PolicyStatus { conditions: vec![ConditionUpdate::bad(ACCEPTED, &finding, meta.generation)], ..status }
}

fn nothing(outside: usize) -> Finding {
    let text = match outside {
        0 => "no pod has the labels that it selects: correct targetRefs, or the labels of the pods' template"
            .to_owned(),
        _ => format!(
            "{} that it selects are not in the mesh, where it does nothing: label them or their namespace meshwright.io/mesh=enabled",
            pods(outside)
        ),
    };
    Finding::new(reason::TARGET_NOT_FOUND, text)
}

fn pods(count: usize) -> String {
    if count == 1 { "1 pod".to_owned() } else { format!("{count} pods") }
}

fn status(meta: &Meta, pods: usize, said: Result<String, Finding>) -> PolicyStatus {
    let condition = match said {
        Ok(message) => {
            ConditionUpdate { message, ..ConditionUpdate::ok(ACCEPTED, reason::ACCEPTED, meta.generation) }
        }
        Err(finding) => ConditionUpdate::bad(ACCEPTED, &finding, meta.generation),
    };
    PolicyStatus { conditions: vec![condition], pods: u32::try_from(pods).unwrap_or(u32::MAX) }
}
