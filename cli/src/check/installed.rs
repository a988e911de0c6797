//! What is wrong with the parts of an installed mesh.

use k8s_openapi::{
    api::{
        apps::v1::Deployment, autoscaling::v2::HorizontalPodAutoscaler, core::v1::Pod,
        policy::v1::PodDisruptionBudget,
    },
    jiff::Timestamp,
};
use kube::ResourceExt;
use meshwright_api::{MeshControlPlane, gateway::Gateway, labels};

use super::{Check, Finding, Report, absent::absent, members::members as of_members, mesh};
use crate::{
    client::Sought,
    gather::{Installed, Looked, OPERATOR_NAMESPACE},
    members::Members,
};

const STUCK: [&str; 7] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Looks at every part.
pub fn installed(seen: &Installed, members: Option<&Members>, now: Timestamp) -> Report {
    let operator = seen.operators.as_ref().ok().and_then(|all| all.first()?.namespace());
    let operator = operator.unwrap_or_else(|| OPERATOR_NAMESPACE.to_owned());
    let logs = format!("kubectl -n {operator} logs deployment/meshwright-operator --since=1h");
    let component = |wanted: &'static str| {
        seen.deployments.as_ref().map_err(Clone::clone).map(|all| {
            let fits = |d: &&Deployment| d.labels().get(labels::COMPONENT).is_some_and(|c| c == wanted);
            all.iter().filter(fits).cloned().collect::<Vec<_>>()
        })
    };
    let found = |count: usize| format!("{count} found");
    let the_mesh = Check::of("mesh", &seen.mesh, |sought| match (sought, absent(sought)) {
        (Sought::Found(mesh), _) => mesh::conditions(mesh, &logs),
        (_, missing) => ("none".to_owned(), missing.into_iter().collect()),
    });
    // Without the kind there is nothing of a mesh to look at.
    if matches!(seen.mesh, Ok(Sought::NotInstalled)) {
        return Report::new(vec![the_mesh]);
    }
    let mut checks = vec![
        Check::of("operator", &seen.operators, |o| operators(o)),
        the_mesh,
        Check::of("revisions", &seen.revisions, |r| mesh::revisions(r)),
        Check::of("control planes", &component(labels::COMPONENT_CONTROL_PLANE), |d| {
            available(
                d,
                "existing configuration goes on to work, but no proxy learns of changes or gets a certificate",
            )
        }),
        Check::of("gateway deployments", &component(labels::COMPONENT_GATEWAY), |d| {
            available(d, "fewer proxies carry this Gateway's traffic than should")
        }),
        Check::of("pods", &seen.pods, |p| (found(p.len()), p.iter().filter_map(pod).collect())),
        Check::of("autoscalers", &seen.autoscalers, |a| {
            (found(a.len()), a.iter().filter_map(scaling).collect())
        }),
        Check::of("disruption budgets", &seen.budgets, |b| {
            (found(b.len()), b.iter().filter_map(budget).collect())
        }),
        Check::of("Gateways", &seen.gateways, |g| {
            let probes = match &seen.mesh {
                Ok(Sought::Found(mesh)) => mesh::probes(mesh, g),
                _ => Vec::new(),
            };
            (found(g.len()), g.iter().filter_map(gateway).chain(probes).collect())
        }),
    ];
    let mesh: Option<Looked<&MeshControlPlane>> = match &seen.mesh {
        Ok(Sought::Found(mesh)) => Some(Ok(mesh)),
        Ok(_) => None,
        Err(reason) => Some(Err(reason.clone())),
    };
    if let Some(mesh) = &mesh {
        checks.push(Check::of("certificates", mesh, |m| mesh::certificates(m, now, &logs)));
        checks.push(Check::of("upgrade", mesh, |m| mesh::upgrade(m, now)));
    }
    checks.extend(members.into_iter().flat_map(of_members));
    Report::new(checks)
}

fn place(object: &impl ResourceExt) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn operators(operators: &[Deployment]) -> (String, Vec<Finding>) {
    if operators.is_empty() {
        let gone = Finding::problem(
            "there is no operator",
            "nothing is installed, mended, scaled or renewed; a mesh goes on to serve until its certificates run out, \
             within 30 days",
            "kubectl get deployments -A -l app.kubernetes.io/name=meshwright-operator",
        );
        return (String::new(), vec![gone]);
    }
    available(operators, "nothing is mended or renewed while no pod of the operator runs")
}

fn available(deployments: &[Deployment], why: &str) -> (String, Vec<Finding>) {
    let pods = |d: &Deployment| {
        let available = d.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
        (available, d.spec.replicas.unwrap_or(1))
    };
    let (there, wanted) = deployments.iter().map(pods).fold((0, 0), |sum, d| (sum.0 + d.0, sum.1 + d.1));
    let short = deployments.iter().filter(|d| pods(d).0 < pods(d).1).map(|d| {
        let ((namespace, name), (there, wanted)) = (place(d), pods(d));
        // Quota and Pod Security refusals are seen nowhere else.
        let conditions = d.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let failure = conditions.into_iter().find(|c| c.type_.as_deref() == Some("ReplicaFailure"));
        let failure = failure.and_then(|c| c.message.as_ref()).map(|m| format!(": {m}"));
        Finding::problem(
            format!(
                "Deployment {namespace}/{name}: {there} of {wanted} pods are available{}",
                failure.unwrap_or_default()
            ),
            why,
            format!("kubectl -n {namespace} describe deployment {name}"),
        )
    });
    (format!("{there} of {wanted} pods are available"), short.collect())
}

fn pod(pod: &Pod) -> Option<Finding> {
    let status = pod.status.as_ref()?;
    let (namespace, name) = place(pod);
    let describe = format!("kubectl -n {namespace} describe pod {name}");
    let scheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled");
    if let Some(condition) = scheduled.filter(|c| c.status == "False") {
        return Some(Finding::problem(
            format!(
                "pod {namespace}/{name}: no node takes it: {}",
                condition.message.as_deref().unwrap_or("-")
            ),
            "there is no room for it, or no node fits; a rollout or upgrade waits for it",
            describe,
        ));
    }
    let waiting =
        status.container_statuses.iter().flatten().filter_map(|c| c.state.as_ref()?.waiting.as_ref());
    let (reason, message) = waiting
        .filter_map(|w| Some((w.reason.as_deref()?, w.message.as_deref().unwrap_or("no more is known"))))
        .find(|(reason, _)| STUCK.contains(reason))?;
    let command = match reason {
        "CrashLoopBackOff" => format!("kubectl -n {namespace} logs {name} --previous"),
        _ => describe,
    };
    Some(Finding::problem(
        format!("pod {namespace}/{name}: {reason}: {message}"),
        "it does no work, and a rollout or upgrade waits for it",
        command,
    ))
}

fn scaling(autoscaler: &HorizontalPodAutoscaler) -> Option<Finding> {
    let (namespace, name) = place(autoscaler);
    let conditions = autoscaler.status.as_ref()?.conditions.as_ref()?;
    let inactive = conditions.iter().find(|c| c.type_ == "ScalingActive" && c.status == "False")?;
    Some(Finding::problem(
        format!(
            "HorizontalPodAutoscaler {namespace}/{name} cannot scale: {}",
            inactive.message.as_deref().unwrap_or("-")
        ),
        "the number of pods stays as it is, whatever the load",
        "kubectl get apiservices v1beta1.metrics.k8s.io",
    ))
}

// With unhealthy pods it should not allow any; that is told of the pods.
fn budget(budget: &PodDisruptionBudget) -> Option<Finding> {
    let (namespace, name) = place(budget);
    let status = budget.status.as_ref()?;
    let expected = status.expected_pods.filter(|e| *e > 0)?;
    let blocks = status.disruptions_allowed == Some(0) && status.current_healthy >= Some(expected);
    blocks.then(|| {
        Finding::problem(
            format!("PodDisruptionBudget {namespace}/{name} allows no eviction though all {expected} pods are healthy"),
            "a node drain, and so a node upgrade, hangs at these pods",
            format!("kubectl -n {namespace} describe pdb {name}"),
        )
    })
}

fn gateway(gateway: &Gateway) -> Option<Finding> {
    let (namespace, name) = place(gateway);
    let status = gateway.status.as_ref();
    let own = status.iter().flat_map(|s| s.conditions.iter().flatten());
    let own = own.filter(|c| c.status != "True" && ["Accepted", "Programmed"].contains(&c.type_.as_str()));
    let listeners = status.iter().flat_map(|s| s.listeners.iter().flatten());
    let listeners = listeners.flat_map(|l| l.conditions.iter().map(move |c| (l, c)));
    let bad = |c: &str| ["Accepted", "Programmed", "ResolvedRefs"].contains(&c);
    let listeners = listeners.filter(|(_, c)| c.status == "False" && bad(&c.type_));
    let own = own.map(|c| format!("{} is {}: {}", c.type_, c.status, c.message));
    let listeners =
        listeners.map(|(l, c)| format!("listener {}: {} is False: {}", l.name, c.type_, c.message));
    let mut what: Vec<String> = own.chain(listeners).collect();
    if status.is_none_or(|s| s.conditions.iter().flatten().all(|c| c.type_ != "Programmed")) {
        what.push("nobody has reported on it yet".to_owned());
    }
    (!what.is_empty()).then(|| {
        Finding::problem(
            format!("Gateway {namespace}/{name}: {}", what.join("; ")),
            "requests to it, or to that listener, are not answered as its routes say",
            format!("kubectl -n {namespace} describe gateway {name}"),
        )
    })
}
