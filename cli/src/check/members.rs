//! What keeps pods out of the mesh, or from being reached in it.

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Pod},
        networking::v1::{NetworkPolicy, NetworkPolicyPort},
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::ResourceExt;
use meshwright_api::{MeshNode, NODE_PORT};
use meshwright_core::mesh::Outside;

use super::{Check, Finding};
use crate::members::{Members, Stands, describe_proxies, is_there, name, node_of};

/// Looks at nodes, pods and what is around them.
pub(super) fn members(seen: &Members) -> Vec<Check> {
    vec![
        Check::of("nodes", &seen.mesh_nodes, |all| nodes(seen, all)),
        Check::of("pods of the mesh", &seen.pods, |all| pods(seen, all)),
        Check::of("network policies", &seen.policies, |all| {
            (format!("{} found", all.len()), policies(seen, all))
        }),
        Check::of("network plugin", &seen.cilium, |config| {
            let found = if config.is_some() { "Cilium" } else { "nothing known to be in the way" };
            (found.to_owned(), config.iter().flat_map(cilium).collect())
        }),
    ]
}

fn nodes(seen: &Members, mesh_nodes: &[MeshNode]) -> (String, Vec<Finding>) {
    let serves = |m: &&MeshNode| {
        m.status.as_ref().is_some_and(|s| s.revision == m.spec.revision && s.epoch == m.spec.epoch)
    };
    let served = mesh_nodes.iter().filter(serves).count();
    let why = "pods there are not in the mesh, or their proxy is not the one that should serve them; new pods of the mesh do not start";
    let unserved = mesh_nodes.iter().filter(|m| !serves(m)).map(|m| {
        let (node, revision) = (m.name_any(), &m.spec.revision);
        let by = m.status.as_ref().map_or("nobody", |s| s.revision.as_str());
        Finding::problem(
            format!("node {node} is to be served by revision {revision}, and is by {by}"),
            why,
            describe_proxies(&seen.namespace, revision),
        )
    });
    let known = |node: &String| mesh_nodes.iter().any(|m| m.name_any() == *node);
    let nodes = seen.nodes.as_ref().map(Vec::as_slice).unwrap_or_default();
    let without = nodes.iter().map(ResourceExt::name_any).filter(|node| !known(node)).map(|node| {
        let command = format!("kubectl -n {} get mnode", seen.namespace);
        Finding::problem(format!("node {node} has no MeshNode"), why, command)
    });
    (format!("{served} of {} served", mesh_nodes.len()), unserved.chain(without).collect())
}

fn pods(seen: &Members, all: &[Pod]) -> (String, Vec<Finding>) {
    let (mut findings, mut listed, mut members) = (Vec::new(), 0, 0);
    for pod in all.iter().filter(|pod| is_there(pod)) {
        let command = format!(
            "kubectl mesh describe pod -n {} {}",
            pod.namespace().unwrap_or_default(),
            pod.name_any()
        );
        let why = match seen.membership(pod) {
            Err(
                Outside::NotAsked | Outside::Disabled(_) | Outside::ClosedNamespace(_) | Outside::OwnProxy(_),
            ) => continue,
            // Its namespace wants it in, or it does itself.
            Err(outside) => outside.to_string(),
            Ok(()) => {
                members += 1;
                match seen.stands(pod) {
                    Stands::Listed(_) => {
                        listed += 1;
                        continue;
                    }
                    Stands::Awaited(why) => why,
                    Stands::Unheard => format!("the proxy of node {} says nothing of it", node_of(pod)),
                }
            }
        };
        let problem = format!("pod {} is to be in the mesh and is not: {why}", name(pod));
        findings.push(Finding::problem(problem, "its traffic is neither encrypted nor identified", command));
    }
    (format!("{listed} of {members} take mutual TLS"), findings)
}

fn policies(seen: &Members, all: &[NetworkPolicy]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for pod in seen.all() {
        let of_pod: Vec<_> = all.iter().filter(|p| is_for(p, pod)).collect();
        for way in [Way::In, Way::Out] {
            // They add up: what one of them allows no other one takes back.
            let Some(policy) = of_pod.iter().find(|p| way.rules(p).is_some()) else { continue };
            let mut rules = of_pod.iter().filter_map(|p| way.rules(p)).flatten();
            if rules.any(|ports| allows(ports.as_deref())) {
                continue;
            }
            let (namespace, policy) = (policy.namespace().unwrap_or_default(), policy.name_any());
            let direction = if way == Way::In { "to" } else { "from" };
            let finding = Finding::problem(
                format!(
                    "NetworkPolicy {namespace}/{policy} lets nothing {direction} pods of the mesh at port {NODE_PORT}"
                ),
                format!(
                    "every connection between them goes there, so none is left for pods such as {}",
                    name(pod)
                ),
                format!("kubectl -n {namespace} edit networkpolicy {policy}"),
            );
            if !findings.iter().any(|f| f.problem == finding.problem) {
                findings.push(finding);
            }
        }
    }
    findings
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    In,
    Out,
}

impl Way {
    /// The ports of each rule for this way; none where the policy says nothing of it.
    fn rules(self, policy: &NetworkPolicy) -> Option<Vec<Option<Vec<NetworkPolicyPort>>>> {
        let spec = policy.spec.clone().unwrap_or_default();
        let types = spec.policy_types.unwrap_or_default();
        let has = |kind: &str| types.iter().any(|t| t == kind);
        match self {
            Self::In if types.is_empty() || has("Ingress") => {
                Some(spec.ingress.into_iter().flatten().map(|rule| rule.ports).collect())
            }
            Self::Out if has("Egress") || types.is_empty() && spec.egress.is_some() => {
                Some(spec.egress.into_iter().flatten().map(|rule| rule.ports).collect())
            }
            _ => None,
        }
    }
}

fn is_for(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let selector = policy.spec.as_ref().and_then(|s| s.pod_selector.as_ref());
    policy.namespace() == pod.namespace() && selects(selector, pod)
}

/// Whether one of these ports is ours; no ports are all.
fn allows(ports: Option<&[NetworkPolicyPort]>) -> bool {
    let port = i32::from(NODE_PORT);
    let is_ours = |p: &NetworkPolicyPort| {
        let tcp = p.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        tcp && match &p.port {
            None => true,
            Some(IntOrString::Int(first)) => {
                *first == port || p.end_port.is_some_and(|end| *first <= port && port <= end)
            }
            Some(IntOrString::String(_)) => false,
        }
    };
    ports.is_none_or(|ports| ports.is_empty() || ports.iter().any(is_ours))
}

fn selects(selector: Option<&LabelSelector>, pod: &Pod) -> bool {
    let Some(selector) = selector else { return true };
    let label = |key: &str| pod.labels().get(key);
    let equal = selector.match_labels.iter().flatten().all(|(k, v)| label(k) == Some(v));
    let fits = selector.match_expressions.iter().flatten().all(|e| {
        let among = label(&e.key).is_some_and(|v| e.values.iter().flatten().any(|other| other == v));
        match e.operator.as_str() {
            "In" => among,
            "NotIn" => !among,
            "Exists" => label(&e.key).is_some(),
            _ => label(&e.key).is_none(),
        }
    });
    equal && fits
}

fn cilium(config: &ConfigMap) -> Vec<Finding> {
    let is = |key: &str| config.data.as_ref().and_then(|d| d.get(key)).is_some_and(|v| v == "true");
    let edit = "kubectl -n kube-system edit configmap cilium-config";
    let mut findings = Vec::new();
    if is("bpf-lb-sock") && !is("bpf-lb-sock-hostns-only") {
        findings.push(Finding::problem(
            "Cilium balances Services at the pods' sockets (bpf-lb-sock)",
            "the proxies never see which Service is called, so no route or policy of a Service holds; set bpf-lb-sock-hostns-only to true and restart Cilium's agents",
            edit,
        ));
    }
    if is("cni-exclusive") {
        findings.push(Finding::problem(
            "Cilium takes other network plugins out of the nodes' lists (cni-exclusive)",
            "pods of the mesh start without their redirection, unencrypted; set cni-exclusive to false and restart Cilium's agents",
            edit,
        ));
    }
    findings
}
