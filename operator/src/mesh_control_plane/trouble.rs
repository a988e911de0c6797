//! What keeps the pods of a revision from working, and whether waiting helps. Pure.

use k8s_openapi::{
    api::{apps::v1::Deployment, core::v1::Pod},
    jiff::{SignedDuration, Timestamp},
};
use kube::ResourceExt;
use meshwright_api::{labels, names};

use super::{dereference::Seen, measure::Measured};
use crate::{
    gateway::sizes,
    pods,
    upgrade::machine::{PATIENCE, Trouble},
};

/// So many containers that ended by themselves within minutes, and none of the other revision, are no accident.
const RESTARTS: i32 = 3;
/// So long ago is another story.
const LATELY: SignedDuration = SignedDuration::from_mins(10);

fn age(pod: &Pod, now: Timestamp) -> std::time::Duration {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    std::time::Duration::try_from(now.duration_since(created)).unwrap_or_default()
}

/// How often containers of a revision ended by themselves lately, beyond those of the others: what ends those too is not its doing.
fn restarts(seen: &Seen, revision: &str, component: &str, now: Timestamp) -> i32 {
    let upgrade = seen.fresh.status.as_ref().and_then(|s| s.upgrade.as_ref());
    let after = upgrade.map_or(now - LATELY, |p| p.started.0.max(now - LATELY));
    let (its, others): (Vec<&Pod>, Vec<&Pod>) = seen
        .items
        .iter()
        .filter(|p| p.labels().get(labels::COMPONENT).is_some_and(|c| c == component))
        .partition(|p| pods::is_of(p, revision, component));
    pods::restarts(its.into_iter(), after) - pods::restarts(others.into_iter(), after)
}

/// Pods that a revision has of its own: their component, one word for their crashes, and what they are.
type Own = (&'static str, &'static str, &'static str);
const CONTROL_PLANE: Own = (labels::COMPONENT_CONTROL_PLANE, "ControlPlaneCrashes", "the control plane");
const NODE_PROXIES: Own = (labels::COMPONENT_NODE, "NodeProxyCrashes", "node proxies");

/// What keeps a control plane's pods from running.
pub fn control_plane(seen: &Seen, revision: &str, now: Timestamp) -> Option<Trouble> {
    own(seen, revision, CONTROL_PLANE, now)
}

/// What keeps a revision's node proxies from running.
pub fn nodes(seen: &Seen, revision: &str, now: Timestamp) -> Option<Trouble> {
    own(seen, revision, NODE_PROXIES, now)
}

fn own(seen: &Seen, revision: &str, own: Own, now: Timestamp) -> Option<Trouble> {
    let (component, crashes, what) = own;
    let of = || seen.items.iter().filter(|p| pods::is_of(p, revision, component));
    let restarts = restarts(seen, revision, component, now);
    let waits = of().find_map(|p| pods::waiting(p).map(|w| (p, w)));
    if let Some((pod, (reason, message))) = waits {
        let image = reason.contains("Image");
        let cause = if image { "ImageCannotBePulled" } else { crashes };
        // Where another pod has the image, it is a node or a registry for a moment.
        let lasting = match image {
            true => age(pod, now) >= PATIENCE && !of().any(pods::has_run),
            false => restarts >= RESTARTS,
        };
        let message = format!("pod {}: {reason}: {message}", pod.name_any());
        return Some(Trouble { cause: cause.to_owned(), message, lasting });
    }
    if restarts >= RESTARTS {
        let message = format!("containers of {what} ended by themselves {restarts} times");
        return Some(Trouble { cause: crashes.to_owned(), message, lasting: true });
    }
    let unscheduled = of().find_map(|p| pods::unschedulable(p).map(|why| (p, why)));
    unscheduled.map(|(pod, why)| Trouble {
        cause: "NoRoom".to_owned(),
        message: format!("pod {} has no node: {why}", pod.name_any()),
        lasting: false,
    })
}

/// Proxies of the new revision that do not become ready, with the cause that its control plane knows: one that does not go away by
/// waiting before others.
pub fn proxies(
    seen: &Seen,
    measured: &Measured,
    (from, to): (&str, &str),
    now: Timestamp,
) -> Option<Trouble> {
    let of_new = seen.items.iter().filter(|p| pods::is_of(p, to, labels::COMPONENT_GATEWAY));
    let unready = of_new.filter(|p| is_waited_for(p, now));
    unready.map(|pod| proxy(pod, seen, measured, (from, to), now)).min_by_key(|trouble| !trouble.lasting)
}

// Not ready, after a time in which it should have become so.
fn is_waited_for(pod: &Pod, now: Timestamp) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !pods::is_ready(pod) && age(pod, now) >= PATIENCE
}

fn proxy(
    pod: &Pod,
    seen: &Seen,
    measured: &Measured,
    (from, revision): (&str, &str),
    now: Timestamp,
) -> Trouble {
    let proxies = || seen.items.iter().filter(|p| pods::is_of(p, revision, labels::COMPONENT_GATEWAY));
    let of = (
        pod.namespace().unwrap_or_default(),
        pod.labels().get(labels::GATEWAY_NAME).cloned().unwrap_or_default(),
    );
    // What the old proxies of the same Gateway lack too is not the new version's doing.
    let alike = seen.items.iter().any(|old| {
        pods::is_of(old, from, labels::COMPONENT_GATEWAY)
            && old.namespace().as_ref() == Some(&of.0)
            && old.labels().get(labels::GATEWAY_NAME) == Some(&of.1)
            && is_waited_for(old, now)
    });
    let short = |d: &Deployment| sizes::ready_of(d) < d.spec.replicas.unwrap_or(0);
    let alike = alike || seen.gateways.get(&of).is_some_and(|g| g.deployments.get(from).is_some_and(short));
    let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    if let Some(why) = pods::unschedulable(pod) {
        let message = format!("pod {name} has no node: {why}");
        return Trouble { cause: "NoRoom".to_owned(), message, lasting: false };
    }
    if let Some((reason, message)) = pods::waiting(pod) {
        let image = reason.contains("Image");
        let cause = if image { "ImageCannotBePulled" } else { "ProxyCrashes" };
        let message = format!("pod {name}: {reason}: {message}");
        let again = || restarts(seen, revision, labels::COMPONENT_GATEWAY, now) >= RESTARTS;
        let lasting = !alike && if image { !proxies().any(pods::has_run) } else { again() };
        return Trouble { cause: cause.to_owned(), message, lasting };
    }
    // Images are pulled, nodes get lost: only one that runs and has never been ready tells of its version.
    let idle = pods::never_ready_for(pod, now);
    let (cause, what) = match &measured.proxies {
        // Anybody may ask for a certificate in vain; only beside a proxy that waits for one does that say something.
        Some(p) if p.certificates_refused > p.certificates_signed => (
            "CertificatesRefused",
            format!("; its control plane refused {} certificates", p.certificates_refused),
        ),
        Some(p) if p.configurations_refused > 0 => {
            ("ConfigurationRefused", format!("; Envoy refused {} configurations", p.configurations_refused))
        }
        _ => ("ProxiesNotReady", "; its control plane gives it no complete configuration".to_owned()),
    };
    // A label may be a shortened name.
    let is_it = |g: &String| g.split_once('/').is_some_and(|(ns, n)| ns == of.0 && names::fit(n) == of.1);
    // What the old proxies refuse too is a user's doing; the new ones, which have nothing older, wait for its mending.
    let behind = measured.behind.as_ref().is_none_or(|behind| behind.iter().any(is_it));
    let lasting = !alike && !behind && idle.is_some_and(|idle| idle >= PATIENCE);
    let message = format!("pod {name} is not ready after {} s{what}", idle.unwrap_or_default().as_secs());
    Trouble { cause: cause.to_owned(), message, lasting }
}
