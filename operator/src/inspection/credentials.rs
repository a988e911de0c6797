//! Who the operator is to control planes: a leaf that it signs for itself with the root key, in memory only.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use meshwright_pki::{
    Error, Identity, SpiffeId, certs_from_pem, new_csr, sign_leaf,
    tls::{DynamicIdentity, DynamicRoots},
    validity,
};

use crate::certificates::root::Root;

/// Short, because nothing can take such a certificate back.
const LIFE: Duration = Duration::from_secs(3600);

/// What handshakes with control planes need.
#[derive(Debug)]
pub(super) struct Credentials {
    root: String,
    id: SpiffeId,
    renew: Timestamp,
    /// What is shown.
    pub identity: DynamicIdentity,
    /// What the other side's chain must end at.
    pub roots: DynamicRoots,
}

impl Credentials {
    pub fn new(root: &Root, id: SpiffeId, now: Timestamp) -> Result<Self, Error> {
        let identity = DynamicIdentity::default();
        let roots = DynamicRoots::new(&certs_from_pem(&root.pem)?)?;
        let renew = sign(root, &id, &identity, now)?;
        Ok(Self { root: root.fingerprint.clone(), id, renew, identity, roots })
    }

    /// Whether they are of this root and for this id.
    pub fn are_for(&self, root: &Root, id: &SpiffeId) -> bool {
        self.root == root.fingerprint && self.id == *id
    }

    /// Signs anew at half of the life.
    pub fn keep_fresh(&mut self, root: &Root, now: Timestamp) -> Result<(), Error> {
        if now >= self.renew {
            self.renew = sign(root, &self.id, &self.identity, now)?;
        }
        Ok(())
    }
}

// Directly by the root: every verifier of ours has the root as its anchor, and a chain of one needs no intermediate.
fn sign(root: &Root, id: &SpiffeId, identity: &DynamicIdentity, now: Timestamp) -> Result<Timestamp, Error> {
    let (key, csr) = new_csr()?;
    let leaf = sign_leaf(&root.authority, &csr, id, &[], now, LIFE)?;
    let until = validity(&leaf)?.until;
    identity.set(&Identity { chain: vec![leaf], key })?;
    Ok(now + until.duration_since(now) / 2)
}

#[cfg(test)]
mod tests {
    use meshwright_pki::{certs_to_pem, fingerprint, new_root};

    use super::*;

    #[test]
    fn they_are_renewed_at_half_of_their_life_and_not_before() {
        let now = Timestamp::now();
        let root = root(now);
        let id = SpiffeId::workload("cluster.local", "meshwright-system", "meshwright-operator").unwrap();
        let mut credentials = Credentials::new(&root, id.clone(), now).unwrap();
        let first = credentials.renew;
        assert_eq!(first.as_second(), now.as_second() + 1800);
        credentials.keep_fresh(&root, now + Duration::from_secs(1700)).unwrap();
        assert_eq!(credentials.renew, first);
        credentials.keep_fresh(&root, now + Duration::from_secs(1801)).unwrap();
        assert!(credentials.renew > first);
        assert!(credentials.are_for(&root, &id));
        assert!(!credentials.are_for(&self::root(now), &id), "another root");
    }

    fn root(now: Timestamp) -> Root {
        let authority = new_root("cluster.local", now, Duration::from_secs(86_400)).unwrap();
        let cert = authority.cert().clone();
        Root {
            secret: "meshwright-system/mesh.default.root".to_owned(),
            pem: certs_to_pem(std::slice::from_ref(&cert)),
            fingerprint: fingerprint(&cert),
            not_after: validity(&cert).unwrap().until,
            authority,
        }
    }
}
