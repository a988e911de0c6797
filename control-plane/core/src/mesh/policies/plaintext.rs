//! Which ports of a pod refuse plaintext: by MeshTLSPolicies, and by whatever AuthorizationPolicies cover, because the proxy never sees
//! plaintext and would let in everybody that way.

use std::collections::BTreeSet;

use super::{Plaintext, Policies, RuleSet, of_namespace};
use crate::model::{MeshTlsPolicy, ObjectKey, Pod, World};

pub(super) fn of(policies: &Policies<'_>, key: &ObjectKey, pod: &Pod, enforced: &RuleSet) -> Plaintext {
    let chosen = deciding(policies.world, policies.root, key, pod);
    let said = chosen.map(by_policy).unwrap_or_default();
    match covered(enforced) {
        Covered::Everything => Plaintext { refused: true, except: BTreeSet::new() },
        Covered::Ports(ports) if said.refused => {
            Plaintext { except: said.except.difference(&ports).copied().collect(), ..said }
        }
        Covered::Ports(ports) => Plaintext { except: said.except.union(&ports).copied().collect(), ..said },
    }
}

fn by_policy(policy: &MeshTlsPolicy) -> Plaintext {
    let other = policy.ports.iter().filter(|(_, strict)| **strict != policy.strict);
    Plaintext { refused: policy.strict, except: other.map(|(port, _)| *port).collect() }
}

enum Covered {
    Everything,
    Ports(BTreeSet<u16>),
}

fn covered(enforced: &RuleSet) -> Covered {
    // Where something has to be allowed, nothing else is, on any port.
    if enforced.allow.is_some() || enforced.deny.iter().any(|rule| rule.ports.is_empty()) {
        return Covered::Everything;
    }
    Covered::Ports(enforced.deny.iter().flat_map(|rule| rule.ports.iter().copied()).collect())
}

/// How near a policy is to a pod; the nearest decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    Workload,
    Namespace,
    Mesh,
}

/// How near it is to a pod of that namespace with these labels; None if it is not for it at all.
pub(super) fn nearness(policy: &MeshTlsPolicy, root: &str, key: &ObjectKey, pod: &Pod) -> Option<Nearness> {
    let same_namespace = policy.meta.key.namespace == key.namespace;
    match policy.target.is_everything() {
        true if same_namespace => Some(Nearness::Namespace),
        true if policy.meta.key.namespace == root => Some(Nearness::Mesh),
        false if same_namespace && policy.target.selects(&pod.labels) => Some(Nearness::Workload),
        _ => None,
    }
}

/// The policy that decides for a pod: the nearest, and of those the oldest.
pub(super) fn deciding<'a>(
    world: &'a World,
    root: &'a str,
    key: &'a ObjectKey,
    pod: &Pod,
) -> Option<&'a MeshTlsPolicy> {
    let all = of_namespace(&world.mesh_tls_policies, &key.namespace)
        .chain(of_namespace(&world.mesh_tls_policies, root));
    let near = all.filter_map(|policy| Some((nearness(policy, root, key, pod)?, policy)));
    let first = near.min_by_key(|(near, policy)| (*near, policy.meta.created, &policy.meta.key));
    first.map(|(_, policy)| policy)
}
