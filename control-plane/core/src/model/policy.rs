//! Policies between workloads.

use std::collections::BTreeMap;

use super::{LabelSelector, Meta};

/// The pods of a policy's namespace that it is for: those that one of these selects, all if there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Target(pub Vec<LabelSelector>);

impl Target {
    /// Whether it is for all pods of the namespace, by saying nothing about them.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a pod of the namespace with these labels is meant.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.is_empty() || self.0.iter().any(|selector| selector.matches(labels))
    }
}

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AuthorizationPolicy {
    /// Name and age.
    pub meta: Meta,
    /// For whom.
    pub target: Target,
    /// DENY, or else ALLOW.
    pub denies: bool,
    /// Mode DryRun.
    pub dry_run: bool,
    /// A call matches if it matches one of these.
    pub rules: Vec<AuthorizationRule>,
    /// Set where it is not understood.
    pub unreadable: Option<Unreadable>,
}

/// A policy that does not decode, of another release for one. What is said of it refuses rather too much.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Unreadable {
    /// Why not.
    pub words: String,
    /// Everything else is what it said when it was understood. Otherwise it lets nobody in: no rule of ALLOW, or Strict.
    pub is_kept: bool,
}

/// Calls. All of it has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AuthorizationRule {
    /// Who calls: one of these; None is everybody.
    pub sources: Option<Vec<Source>>,
    /// To which ports of the pod; any if there are none.
    pub ports: Vec<u16>,
    /// Requests: one of these; any, and anything else, if there are none.
    pub http: Vec<HttpAttributes>,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// That SPIFFE id.
    Spiffe(String),
    /// That service account.
    ServiceAccount {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Any service account of that namespace.
    Namespace(String),
    /// Something that this program does not know: nobody for ALLOW, everybody for DENY.
    Unknown,
}

/// Attributes of requests. All that are there have to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct HttpAttributes {
    /// One of these.
    pub methods: Vec<String>,
    /// One of these.
    pub paths: Vec<AuthorizedPath>,
    /// One of these, or below one that begins with `*.`.
    pub hosts: Vec<String>,
    /// All of these: name and value, where a value is wanted.
    pub headers: Vec<(String, Option<String>)>,
}

/// A path, or what is below it, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AuthorizedPath {
    /// That path.
    Exact(String),
    /// That path and what is below it.
    Prefix(String),
}

/// A MeshTLSPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshTlsPolicy {
    /// Name and age.
    pub meta: Meta,
    /// For whom.
    pub target: Target,
    /// Mode Strict.
    pub strict: bool,
    /// Ports that have a mode of their own, and whether that is Strict.
    pub ports: BTreeMap<u16, bool>,
    /// Set where it is not understood.
    pub unreadable: Option<Unreadable>,
}
