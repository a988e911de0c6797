//! Names that the operator, the control plane and the agent must agree on.

use sha2::{Digest, Sha256};

/// Longest name that is valid as a Service, a label value and a pod's host name.
const DNS_LABEL_MAX: usize = 63;

/// Eight hex characters that change when `input` changes.
pub fn short_hash(input: &[u8]) -> String {
    Sha256::digest(input).iter().take(4).map(|b| format!("{b:02x}")).collect()
}

/// Name of the Deployment, Service, ServiceAccount, HPA and PDB made for a Gateway:
/// `<gateway>-meshwright`, cut and completed by a hash where that would pass 63 characters.
pub fn gateway_resources(gateway: &str) -> String {
    fit(&format!("{gateway}-{}", crate::GATEWAY_CLASS))
}

/// Name of the Deployment and HPA of a Gateway's proxies of one revision: each revision has its own.
pub fn gateway_workload(gateway: &str, revision: &str) -> String {
    let hash = revision.rsplit('-').next().unwrap_or(revision);
    fit(&format!("{gateway}-{}-{hash}", crate::GATEWAY_CLASS))
}

/// Name of the DaemonSet and ServiceAccount of a revision's node proxies.
pub fn node_resources(revision: &str) -> String {
    fit(&format!("{revision}-node"))
}

/// SPIFFE id of a revision's agent on one node. No service account can get it: theirs have no `/node/`.
pub fn node_id(trust_domain: &str, namespace: &str, revision: &str, node: &str) -> String {
    format!("{}/node/{node}", spiffe_id(trust_domain, namespace, &node_resources(revision)))
}

/// Name of the MeshRevision with this snapshot (any stable serialisation of it).
pub fn revision(mesh: &str, snapshot: &[u8]) -> String {
    format!("{mesh}-{}", short_hash(snapshot))
}

/// `name` itself where it is a valid DNS label, otherwise its head and a hash of all of it.
pub fn fit(name: &str) -> String {
    let label = name.replace('.', "-");
    if label.len() <= DNS_LABEL_MAX && label == name {
        return label;
    }
    let head: String = label.chars().take(DNS_LABEL_MAX - 9).collect();
    format!("{}-{}", head.trim_end_matches('-'), short_hash(name.as_bytes()))
}

/// Lease whose holder writes Gateway API status.
pub fn status_lease(mesh: &str) -> String {
    format!("{mesh}-status")
}

/// SPIFFE id of the operator where it asks control planes. Names of namespaces have no dots, so no service account can get it.
pub fn operator_id(trust_domain: &str) -> String {
    spiffe_id(trust_domain, crate::GROUP, "operator")
}

/// SPIFFE id of a service account.
pub fn spiffe_id(trust_domain: &str, namespace: &str, service_account: &str) -> String {
    format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}")
}
