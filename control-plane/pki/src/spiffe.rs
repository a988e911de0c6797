//! SPIFFE ids, read strictly: two spellings of one identity would be two identities to somebody.

use std::{fmt, str::FromStr};

use crate::Error;

/// `spiffe://<trust domain>/<path>`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    text: String,
    path: usize,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn workload(trust_domain: &str, namespace: &str, account: &str) -> Result<Self, Error> {
        let id: Self = format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{account}").parse()?;
        // A slash within a part would make one identity out of another's parts.
        if id.trust_domain() != trust_domain || id.service_account() != Some((namespace, account)) {
            return Err(Error::SpiffeId(id.text, "a part contains a slash"));
        }
        Ok(id)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path]
    }

    /// The path, with its leading slash.
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Namespace and service account, if the path has our form.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let mut parts = self.path().split('/').skip(1);
        let form = (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next());
        match form {
            ("ns", namespace, "sa", account, None) => Some((namespace, account)),
            _ => None,
        }
    }

    /// Namespace, service account and node of a node's agent: `/ns/<namespace>/sa/<service account>/node/<node>`. Such an id is no
    /// service account's, because those have no more parts.
    pub fn node_agent(&self) -> Option<(&str, &str, &str)> {
        let mut parts = self.path().split('/').skip(1);
        let head = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        match (head, (parts.next()?, parts.next()?, parts.next())) {
            (("ns", namespace, "sa", account), ("node", node, None)) => Some((namespace, account, node)),
            _ => None,
        }
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let error = |why| Err(Error::SpiffeId(text.chars().take(256).collect(), why));
        let Some(rest) = text.strip_prefix(SCHEME) else { return error("the scheme is not spiffe://") };
        if text.len() > 2048 {
            return error("longer than 2048 bytes");
        }
        let Some(slash) = rest.find('/') else { return error("no path") };
        let (trust_domain, path) = rest.split_at(slash);
        let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if trust_domain.is_empty() || trust_domain.len() > 255 || !trust_domain.bytes().all(lower) {
            return error("the trust domain is empty, too long or not of a-z 0-9 . _ -");
        }
        for segment in path.split('/').skip(1) {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if segment.is_empty() || segment == "." || segment == ".." || !segment.bytes().all(known) {
                return error("a path segment is empty, relative or not of a-z A-Z 0-9 . _ -");
            }
        }
        Ok(Self { text: text.to_owned(), path: SCHEME.len() + slash })
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.text
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
