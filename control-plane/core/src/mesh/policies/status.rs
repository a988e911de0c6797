//! What each policy's status says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::of_namespace;
use super::plaintext::{deciding, nearness};
use super::requests;
use crate::conditions::{ACCEPTED, PARTIALLY_INVALID, reason};
use crate::mesh::{Rules, membership};
use crate::model::{AuthorizationPolicy, MeshTlsPolicy, Meta, ObjectKey, Pod, World};
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

/// Pods that policies of one namespace can be for.
struct Pods<'a> {
    world: &'a World,
    root: &'a str,
    members: Vec<(&'a ObjectKey, &'a Pod)>,
    /// Of the namespace, and not in the mesh.
    outside: Vec<&'a Pod>,
}

impl<'a> Pods<'a> {
    fn of(world: &'a World, rules: &'a Rules, namespace: &str) -> Self {
        let is_member = |key: &ObjectKey, pod: &Pod| {
            let around = world.namespaces.get(&key.namespace).map(AsRef::as_ref);
            membership(pod, key, around, rules).is_ok()
        };
        let all = world.pods.iter().filter(|(key, _)| namespace == rules.root || key.namespace == namespace);
        let (members, outside): (Vec<_>, Vec<_>) =
            all.map(|(key, pod)| (key, &**pod)).partition(|(key, pod)| is_member(key, pod));
        let outside = outside.into_iter().filter(|(key, _)| key.namespace == namespace).map(|(_, pod)| pod);
        Self { world, root: &rules.root, members, outside: outside.collect() }
    }

    fn authorization(&self, policy: &AuthorizationPolicy) -> PolicyStatus {
        let here = |key: &ObjectKey| key.namespace == policy.meta.key.namespace;
        let selected =
            self.members.iter().filter(|(key, pod)| here(key) && policy.target.selects(&pod.labels));
        let selected: Vec<_> = selected.map(|(_, pod)| *pod).collect();
        let count = selected.len();
        let outside = self.outside.iter().filter(|pod| policy.target.selects(&pod.labels)).count();
        if count == 0 {
            return status(&policy.meta, count, Err(nothing(outside)));
        }
        let mut says = Vec::new();
        says.push(match (policy.dry_run, policy.denies) {
            (true, _) => format!("dry run: what it would refuse at {} is counted, and let in", pods(count)),
            (false, true) => {
                format!("enforced at {}, which take no plaintext on the ports it names", pods(count))
            }
            (false, false) => format!("enforced at {}, which take no plaintext", pods(count)),
        });
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
        status.conditions.extend(self.not_http(policy, &selected));
        status
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
            return status(&policy.meta, count, Ok(format!("in force for {}", pods(count))));
        }
        let mut names: Vec<_> = lost.iter().map(ToString::to_string).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(NAMED);
        let text = format!(
            "for {} of {} an older policy decides ({}): give each pod to one of them",
            lost.len(),
            pods(count),
            names.join(", ")
        );
        status(&policy.meta, count, Err(Finding::new(reason::CONFLICTED, text)))
    }
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
