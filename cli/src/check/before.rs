//! Whether a cluster will do for an installation.

use k8s_openapi::api::core::v1::{Node, Service};
use kube::ResourceExt;
use meshwright_api::GATEWAY_API_VERSION;

use super::{Check, Finding, Level, Report};
use crate::gather::{Before, Definition, Looked, Right};

const OLDEST_MINOR: u32 = 34;
const NEWEST_MINOR: u32 = 38;

/// API groups by which other meshes are known.
const OTHERS: [(&str, &str); 5] = [
    ("networking.istio.io", "Istio"),
    ("linkerd.io", "Linkerd"),
    ("kuma.io", "Kuma"),
    ("consul.hashicorp.com", "Consul"),
    ("install.istio.io", "Istio's operator"),
];

/// Looks at everything that an installation needs.
pub fn before(seen: &Before) -> Report {
    Report::new(vec![
        Check::of("Kubernetes version", &seen.version, |v| version(*v)),
        rights(&seen.rights),
        Check::of("Gateway API", &seen.definitions, |d| definitions(d)),
        Check::of("existing mesh", &seen.meshes, |meshes| {
            let taken = meshes.iter().map(|m| {
                let (namespace, name) = (m.namespace().unwrap_or_default(), m.name_any());
                Finding::problem(
                    format!("MeshControlPlane {namespace}/{name} is here already"),
                    "a cluster holds one mesh; a second MeshControlPlane changes nothing",
                    "kubectl mesh status",
                )
            });
            ("no MeshControlPlane is here yet".to_owned(), taken.collect())
        }),
        Check::of("other meshes", &seen.groups, |g| others(g)),
        Check::of("nodes", &seen.nodes, |n| nodes(n)),
        Check::of("metrics", &seen.groups, |g| metrics(g)),
        Check::of("load balancer", &seen.services, |s| load_balancer(s)),
    ])
}

fn version((major, minor): (u32, u32)) -> (String, Vec<Finding>) {
    let fits = major == 1 && (OLDEST_MINOR..=NEWEST_MINOR).contains(&minor);
    let finding = Finding::problem(
        format!("Kubernetes {major}.{minor}: Meshwright is tested with 1.{OLDEST_MINOR} to 1.{NEWEST_MINOR}"),
        "an older API server lacks fields that the operator writes; a newer one may have changed them",
        "kubectl version",
    );
    (format!("{major}.{minor}"), if fits { Vec::new() } else { vec![finding] })
}

fn rights(rights: &[(Right, Looked<bool>)]) -> Check {
    let mut seen: Looked<Vec<Right>> = Ok(Vec::new());
    for (right, answer) in rights {
        match (answer, &mut seen) {
            (Err(reason), _) => seen = Err(reason.clone()),
            (Ok(false), Ok(missing)) => missing.push(*right),
            _ => {}
        }
    }
    Check::of("your rights", &seen, |missing| {
        let summary = "you may create what the install file holds".to_owned();
        (summary, missing.iter().map(|right| missing_right(*right)).collect())
    })
}

fn missing_right(Right { group, resource, verb, namespace }: Right) -> Finding {
    let kind = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    let at = namespace.map_or(String::new(), |n| format!(" -n {n}"));
    let place = namespace.map_or(String::new(), |n| format!(" in namespace {n}"));
    let (level, why) = match verb {
        "escalate" => (
            Level::Unknown,
            "the install file holds roles; without it you may create one only if you have every right in it yourself",
        ),
        "bind" => (
            Level::Unknown,
            "the install file binds roles; without it you may bind one only if you have every right in it yourself",
        ),
        _ => (
            Level::Problem,
            "an installation needs such an object; without this right it would be done in part only",
        ),
    };
    let command = format!("kubectl auth can-i {verb} {kind}{at}");
    Finding::new(level, format!("you may not {verb} {kind}{place}"), why, command)
}

fn definitions(found: &[Definition]) -> (String, Vec<Finding>) {
    let present: Vec<&Definition> = found.iter().filter(|d| d.version.is_some()).collect();
    if present.is_empty() {
        return (format!("absent; the operator installs {GATEWAY_API_VERSION}"), Vec::new());
    }
    if present.iter().all(|d| d.ours) {
        return ("installed by the operator, which keeps it up to date".to_owned(), Vec::new());
    }
    let foreign = present.iter().filter(|d| !d.ours);
    let old = foreign.filter(|d| d.version.as_deref().and_then(parse) < parse(GATEWAY_API_VERSION));
    let findings = old.map(|d| {
        Finding::problem(
            format!(
                "CustomResourceDefinition {}.gateway.networking.k8s.io is of {} and somebody else's; \
                 {GATEWAY_API_VERSION} or newer is needed",
                d.name,
                d.version.as_deref().unwrap_or_default()
            ),
            "the operator never changes what others installed, and no gateway is built until it fits",
            "kubectl get crd -o custom-columns='NAME:.metadata.name,RELEASE:\
             .metadata.annotations.gateway\\.networking\\.k8s\\.io/bundle-version'",
        )
    });
    ("installed by somebody else, new enough".to_owned(), findings.collect())
}

// A pre-release such as v1.7.0-rc.1 counts as the release before.
fn parse(version: &str) -> Option<(u32, u32, u32, bool)> {
    let (numbers, release) = match version.strip_prefix('v')?.split_once('-') {
        Some((numbers, _)) => (numbers, false),
        None => (version.strip_prefix('v')?, true),
    };
    let mut parts = numbers.split('.').map(str::parse);
    let mut part = || parts.next()?.ok();
    Some((part()?, part()?, part()?, release))
}

fn others(groups: &[String]) -> (String, Vec<Finding>) {
    let found = OTHERS.iter().filter(|(group, _)| groups.iter().any(|g| g == group));
    let findings = found.map(|(group, name)| {
        Finding::note(
            format!("{name} seems to be installed (API group {group})"),
            "both can live side by side, but a sidecar that it injects into a gateway pod takes its traffic; \
             keep injection off where Gateways of class meshwright are",
            "kubectl get namespaces --show-labels",
        )
    });
    let findings: Vec<_> = findings.collect();
    (if findings.is_empty() { "none" } else { "seen" }.to_owned(), findings)
}

fn nodes(nodes: &[Node]) -> (String, Vec<Finding>) {
    let is_usable = |node: &&Node| {
        let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        !cordoned && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    let usable = nodes.iter().filter(is_usable).count();
    let summary = format!("{usable} of {} take pods", nodes.len());
    let findings = match usable {
        0 => vec![Finding::problem(
            "no node is Ready and schedulable",
            "no pod of the mesh could start",
            "kubectl get nodes",
        )],
        1 => vec![Finding::note(
            "only one node takes pods",
            "when it goes, everything goes; two replicas on one node protect from a crash only",
            "kubectl get nodes",
        )],
        _ => Vec::new(),
    };
    (summary, findings)
}

fn metrics(groups: &[String]) -> (String, Vec<Finding>) {
    let served = groups.iter().any(|g| g == "metrics.k8s.io");
    let finding = Finding::problem(
        "the API group metrics.k8s.io is not served",
        "the autoscalers see no CPU use: control planes and gateways stay at their fewest pods under any load",
        "kubectl get apiservices v1beta1.metrics.k8s.io",
    );
    ("metrics.k8s.io is served".to_owned(), if served { Vec::new() } else { vec![finding] })
}

fn load_balancer(services: &[Service]) -> (String, Vec<Finding>) {
    let is_balanced = |s: &&Service| {
        s.spec.as_ref().and_then(|s| s.type_.as_deref()).is_some_and(|type_| type_ == "LoadBalancer")
    };
    let has_address = |s: &Service| {
        let status = s.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        status.and_then(|l| l.ingress.as_ref()).is_some_and(|i| !i.is_empty())
    };
    let wanted: Vec<&Service> = services.iter().filter(is_balanced).collect();
    let given = wanted.iter().filter(|s| has_address(s)).count();
    let summary = format!("{given} of {} Services of type LoadBalancer have an address", wanted.len());
    if given > 0 {
        return (summary, Vec::new());
    }
    let hint = Finding::note(
        "nothing shows that this cluster gives addresses to Services of type LoadBalancer",
        "a Gateway is Programmed only when its Service has an address; where nothing gives them out, \
         a GatewayParameters with service.type NodePort or ClusterIP does without",
        "kubectl explain gatewayparameters.spec.service",
    );
    (summary, vec![hint])
}
