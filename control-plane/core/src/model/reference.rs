//! ReferenceGrant and Secrets.

use std::fmt;
use std::sync::Arc;

use super::Meta;

/// A ReferenceGrant: objects in its namespace may be referred to from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReferenceGrant {
    /// Its namespace is the one that is opened.
    pub meta: Meta,
    /// Who may refer.
    pub from: Vec<GrantFrom>,
    /// To what.
    pub to: Vec<GrantTo>,
}

/// One of `spec.from`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrantFrom {
    /// Group of the referring object.
    pub group: String,
    /// Kind of the referring object.
    pub kind: String,
    /// Namespace of the referring object.
    pub namespace: String,
}

/// One of `spec.to`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GrantTo {
    /// Group of the target, empty for core.
    pub group: String,
    /// Kind of the target.
    pub kind: String,
    /// None means every object of that kind in the namespace.
    pub name: Option<String>,
}

/// What became of reading a Secret that a listener refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretState {
    /// There is no such Secret.
    Missing,
    /// The API server does not let us read it (yet): the operator's RoleBinding follows the grant.
    Unreadable(String),
    /// It is there but no usable certificate: wrong type, no PEM, key and certificate do not belong together.
    /// Says what, in lower case.
    Malformed(String),
    /// A certificate and its key.
    Ok(TlsCertificate),
}

/// A server certificate from a `kubernetes.io/tls` Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    /// `tls.crt`: PEM, leaf first.
    pub certificate_chain: Arc<[u8]>,
    /// `tls.key`.
    pub private_key: PrivateKey,
}

/// A PEM private key that does not show itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(pub Arc<[u8]>);

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
