//! What an upgrade finds around it: Kubernetes, budgets of others, Gateways that go their own way.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::{Api, ResourceExt, api::ListParams};
use meshwright_api::{
    gateway::{Gateway, GatewayClass},
    labels, names,
};

use super::{Seen, measure::Measured};
use crate::{context::Context, reconciler};

/// How the control plane begins to say that a proxy refused what it was given.
const REFUSED: &str = "a proxy refused the configuration";

/// What the preflight looks at beyond our own objects.
pub async fn before(ctx: &Context, seen: &Seen, measured: &mut Measured) {
    let mut unseen = Vec::new();
    let version =
        ctx.client.apiserver_version().await.map_err(|e| unseen.push(format!("Kubernetes' version: {e}")));
    measured.kubernetes = version.ok().and_then(|v| v.minor.trim_end_matches('+').parse().ok());
    let budgets = Api::<PodDisruptionBudget>::all(ctx.client.clone()).list(&ListParams::default()).await;
    let budgets = budgets.map_err(|e| unseen.push(format!("PodDisruptionBudgets: {e}")));
    let ours = |o: &PodDisruptionBudget| {
        o.labels().get(labels::MANAGED_BY).map(String::as_str) == Some(labels::MANAGER)
    };
    let selects = |o: &PodDisruptionBudget| {
        let selector = o.spec.as_ref().and_then(|s| s.selector.as_ref());
        let wanted = selector.and_then(|s| s.match_labels.as_ref());
        seen.items.iter().any(|pod| {
            pod.namespace() == o.namespace()
                && wanted
                    .is_some_and(|w| !w.is_empty() && w.iter().all(|(k, v)| pod.labels().get(k) == Some(v)))
        })
    };
    let foreign = budgets.map(|b| b.items).unwrap_or_default().into_iter().filter(|o| !ours(o) && selects(o));
    measured.foreign_budgets =
        foreign.map(|o| format!("{}/{}", o.namespace().unwrap_or_default(), o.name_any())).collect();
    let gateways = gateways(ctx).await.map_err(|e| unseen.push(format!("Gateways: {e}"))).unwrap_or_default();
    measured.behind = Some(gateways.iter().filter(|g| is_behind(g)).map(describe).collect());
    let classes =
        reconciler::list::<GatewayClass>(Api::all(ctx.client.clone()), &ListParams::default()).await;
    let classes = classes.map_err(|e| unseen.push(format!("GatewayClasses: {e}"))).ok();
    let has_proxies = |g: &&Gateway| {
        let key = (g.namespace().unwrap_or_default(), names::fit(&g.name_any()));
        seen.gateways.contains_key(&key)
    };
    let left = gateways.iter().filter(has_proxies);
    let left = left.filter_map(|g| Some(format!("{} ({})", describe(g), left_alone(g, classes.as_deref())?)));
    measured.unmanaged = left.collect();
    // Nothing begins on half a picture.
    measured.unseen = (!unseen.is_empty()).then(|| unseen.join("; "));
}

/// Why the proxies of a Gateway are left as they are.
fn left_alone(gateway: &Gateway, classes: Option<&[GatewayClass]>) -> Option<String> {
    if gateway.metadata.deletion_timestamp.is_some() {
        return Some("it is being deleted, and a finalizer holds it".to_owned());
    }
    let class = &gateway.spec.gateway_class_name;
    if classes.is_some_and(|all| all.iter().all(|c| c.name_any() != *class)) {
        return Some(format!("there is no GatewayClass {class}"));
    }
    let mut conditions = gateway.status.iter().flat_map(|s| s.conditions.iter().flatten());
    // Whatever else is not accepted of it, its proxies go on with the rest, and follow.
    let refused = conditions.find(|c| c.type_ == "Accepted" && c.reason == "InvalidParameters")?;
    Some(format!("not accepted: {}", refused.message))
}

/// A proxy of it goes on with an older configuration; its control plane says so in its status.
pub fn is_behind(gateway: &Gateway) -> bool {
    let conditions = gateway.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.status == "False" && c.message.starts_with(REFUSED))
}

/// Namespace and name.
pub fn describe(gateway: &Gateway) -> String {
    format!("{}/{}", gateway.namespace().unwrap_or_default(), gateway.name_any())
}

/// All of them.
pub async fn gateways(ctx: &Context) -> kube::Result<Vec<Gateway>> {
    let gateways = reconciler::list(Api::all(ctx.client.clone()), &ListParams::default()).await;
    gateways.inspect_err(|error| tracing::warn!(%error, "could not list Gateways"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_gateway_that_follows_nobody_says_why() {
        let class: GatewayClass =
            object(json!({"metadata": {"name": "meshwright"}, "spec": {"controllerName": "c"}}));
        let classes = std::slice::from_ref(&class);
        let gateway = |reason: &str| -> Gateway {
            object(json!({"metadata": {"name": "web", "namespace": "shop"},
                "spec": {"gatewayClassName": "meshwright", "listeners": []},
                "status": {"conditions": [{"type": "Accepted", "status": "False", "reason": reason,
                    "message": "GatewayParameters shop/small is not there", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        };
        assert_eq!(left_alone(&gateway("UnsupportedValue"), Some(classes)), None);
        assert_eq!(
            left_alone(&gateway("UnsupportedValue"), None),
            None,
            "classes that cannot be seen are no reason"
        );
        assert!(
            left_alone(&gateway("UnsupportedValue"), Some(&[]))
                .unwrap()
                .contains("no GatewayClass meshwright")
        );
        assert!(left_alone(&gateway("InvalidParameters"), Some(classes)).unwrap().contains("shop/small"));
        let mut going = gateway("UnsupportedValue");
        going.metadata.deletion_timestamp = Some(object(json!("2026-01-01T00:00:00Z")));
        assert!(left_alone(&going, Some(classes)).unwrap().contains("being deleted"));
    }
}
