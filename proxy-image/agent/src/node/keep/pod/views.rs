//! What others see of a pod.

use std::{collections::BTreeSet, path::PathBuf};

use super::{Pod, Seen, Stage};

impl Pod {
    /// Where Envoy is to have its listeners.
    pub fn listens_in(&self) -> Option<&PathBuf> {
        let listens =
            !matches!(self.stage, Stage::Sought | Stage::Closing { .. } | Stage::Clearing | Stage::Gone);
        self.namespace.as_ref().filter(|_| listens)
    }

    /// Its namespace, if that is known.
    pub fn namespace(&self) -> Option<&PathBuf> {
        self.namespace.as_ref()
    }

    /// Rules of ours may be in its namespace.
    pub fn is_redirected(&self) -> bool {
        self.redirected && self.namespace.is_some()
    }

    /// The ports to which it was ever redirected.
    pub fn ports(&self) -> &BTreeSet<u16> {
        &self.ports
    }

    /// From now on it may be redirected to these.
    pub fn redirects_to(&mut self, ports: [u16; 2]) {
        self.ports.extend(ports);
    }

    /// Its redirection stands: it takes mutual TLS.
    pub fn is_captured(&self) -> bool {
        self.stage == Stage::Captured
    }

    /// It takes mutual TLS, or would as soon as its rules are set.
    pub fn is_prepared(&self) -> bool {
        self.is_captured() || self.stage == Stage::Open && self.tried
    }

    /// It is on its way in, and nothing is known that would keep it from arriving.
    pub fn is_arriving(&self) -> bool {
        self.problem.is_none() && matches!(self.stage, Stage::Opening | Stage::Open)
    }

    /// It has all it can have without rules.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open | Stage::Captured)
    }

    /// Its namespace is not known.
    pub fn is_sought(&self) -> bool {
        self.stage == Stage::Sought
    }

    /// Nothing of it is left.
    pub fn is_gone(&self) -> bool {
        self.stage == Stage::Gone
    }

    /// What it waits for, for who asks.
    pub fn why(&self, seen: Seen) -> String {
        let waits = match self.stage {
            Stage::Sought => "its network namespace is not known",
            Stage::Opening if !seen.certified => "there is no certificate for its identity yet",
            Stage::Opening if !seen.opened => "envoy has not taken its listeners yet",
            Stage::Opening => "envoy does not listen in it yet",
            Stage::Open if !seen.serves && !self.tried => "envoy has not shown that it takes mutual TLS",
            Stage::Open if !seen.serves => "another revision's proxy serves this node",
            Stage::Open => "its redirection is not set yet",
            Stage::Captured => "nothing",
            _ => "it was not in the mesh a moment ago",
        };
        match &self.problem {
            Some(problem) => format!("{waits} ({problem})"),
            None => waits.to_owned(),
        }
    }

    /// As metrics name it.
    pub fn stage(&self) -> &'static str {
        match self.stage {
            Stage::Sought => "sought",
            Stage::Opening => "opening",
            Stage::Open => "open",
            Stage::Captured => "captured",
            Stage::Unlisted { .. } => "unlisted",
            Stage::Parting { .. } => "parting",
            Stage::Closing { .. } | Stage::Clearing | Stage::Gone => "closing",
        }
    }
}
