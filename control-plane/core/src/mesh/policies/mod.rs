//! What policies make of a pod: whom it lets in, and which of its ports take plaintext.

mod authorization;
mod plaintext;
mod requests;
pub(super) mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Rules;
use crate::model::{AuthorizationPolicy, AuthorizedPath, MeshTlsPolicy, ObjectKey, Pod, World};

/// Everything that policies say about a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodPolicy {
    /// Which ports refuse plaintext.
    pub plaintext: Plaintext,
    /// Ports on which plaintext of the kubelet is taken in any case. Empty where all take it.
    pub probes: BTreeSet<u16>,
    /// Whom it lets in.
    pub authorization: Authorization,
}

/// Ports that refuse plaintext.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plaintext {
    /// Whether those do that are not named.
    pub refused: bool,
    /// Those with which it is the other way round.
    pub except: BTreeSet<u16>,
}

impl Plaintext {
    /// Whether this port refuses it.
    pub fn refuses(&self, port: u16) -> bool {
        self.refused != self.except.contains(&port)
    }

    /// Whether some port refuses it.
    pub fn refuses_any(&self) -> bool {
        self.refused || !self.except.is_empty()
    }
}

/// Whom a pod lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorization {
    /// What is enforced.
    pub enforced: RuleSet,
    /// What would be if the policies that are only tried were enforced, too; None where there are none.
    pub tried: Option<RuleSet>,
}

/// Calls that are let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// One of these has to match; None lets in everybody.
    pub allow: Option<Vec<Rule>>,
    /// None of these may match.
    pub deny: Vec<Rule>,
}

/// Calls. All of it has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Who calls: one of these; None is everybody.
    pub callers: Option<BTreeSet<Caller>>,
    /// To one of these ports, or to any if there are none.
    pub ports: BTreeSet<u16>,
    /// Requests: one of these; anything if there are none.
    pub http: Vec<Attributes>,
}

/// Who calls, by the certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Caller {
    /// That SPIFFE id.
    Id(Arc<str>),
    /// A SPIFFE id that begins like this, with the slash at its end.
    Below(Arc<str>),
}

/// Attributes of requests. All that are there have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// One of these.
    pub methods: Vec<String>,
    /// One of these.
    pub paths: Vec<AuthorizedPath>,
    /// One of these, or below one that begins with `*.`.
    pub hosts: Vec<String>,
    /// All of these: name and value, where a value is wanted.
    pub headers: Vec<(String, Option<String>)>,
}

impl RuleSet {
    /// Whether everybody is let in.
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }

    /// What is known before any request: who is let in if some request may be, and refused if none may.
    pub fn of_connections(&self) -> Self {
        let any_request = |rule: &Rule| Rule { http: Vec::new(), ..rule.clone() };
        Self {
            allow: self.allow.as_ref().map(|rules| rules.iter().map(any_request).collect()),
            deny: self.deny.iter().filter(|rule| rule.http.is_empty()).cloned().collect(),
        }
    }

    /// Ports of which some rule looks at requests.
    pub fn http_ports(&self) -> BTreeSet<u16> {
        let rules = self.rules().filter(|rule| !rule.http.is_empty());
        rules.flat_map(|rule| rule.ports.iter().copied()).collect()
    }

    /// All rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.allow.iter().flatten().chain(&self.deny)
    }
}

impl Authorization {
    /// Ports that take HTTP only, because some rule looks at requests there.
    pub fn http_ports(&self) -> BTreeSet<u16> {
        let sets = self.tried.iter().chain([&self.enforced]);
        sets.flat_map(RuleSet::http_ports).collect()
    }
}

/// The policies behind that, for who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce<'a> {
    /// AuthorizationPolicies that select the pod, also those that are only tried.
    pub authorization: Vec<&'a AuthorizationPolicy>,
    /// The MeshTLSPolicy that decides.
    pub tls: Option<&'a MeshTlsPolicy>,
    /// What comes of all of them.
    pub plaintext: Plaintext,
}

/// What is in force for a member of the mesh.
pub fn in_force<'a>(world: &'a World, rules: &'a Rules, key: &'a ObjectKey, pod: &'a Pod) -> InForce<'a> {
    // Nothing here depends on identities.
    let policies = Policies { world, root: &rules.root, trust_domain: "" };
    let found = policies.of(key, pod).unwrap_or_default();
    let of_namespace = of_namespace(&world.authorization_policies, &key.namespace);
    InForce {
        authorization: of_namespace.filter(|policy| policy.target.selects(&pod.labels)).collect(),
        tls: plaintext::deciding(world, &rules.root, key, pod),
        plaintext: found.plaintext,
    }
}

/// Finds what holds for pods.
pub(super) struct Policies<'a> {
    pub world: &'a World,
    /// The mesh's namespace.
    pub root: &'a str,
    pub trust_domain: &'a str,
}

impl Policies<'_> {
    /// What policies say about a member of the mesh; None if nothing.
    pub fn of(&self, key: &ObjectKey, pod: &Pod) -> Option<PodPolicy> {
        let authorization = authorization::of(self, key, pod);
        let plaintext = plaintext::of(self, key, pod, &authorization.enforced);
        if !plaintext.refuses_any() && authorization == Authorization::default() {
            return None;
        }
        let probes = if plaintext.refuses_any() { pod.probes.clone() } else { BTreeSet::new() };
        Some(PodPolicy { plaintext, probes, authorization })
    }

    /// The AuthorizationPolicies that select a pod.
    fn authorization_policies<'a>(
        &'a self,
        key: &'a ObjectKey,
        pod: &'a Pod,
    ) -> impl Iterator<Item = &'a AuthorizationPolicy> {
        let of_namespace = of_namespace(&self.world.authorization_policies, &key.namespace);
        of_namespace.filter(|policy| policy.target.selects(&pod.labels))
    }
}

/// The objects of one namespace.
fn of_namespace<'a, T>(
    all: &'a BTreeMap<ObjectKey, Arc<T>>,
    namespace: &'a str,
) -> impl Iterator<Item = &'a T> {
    let from = all.range(ObjectKey::new(namespace, "")..);
    from.take_while(move |(key, _)| key.namespace == namespace).map(|(_, object)| &**object)
}
