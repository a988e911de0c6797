//! Deployments of gateway proxies: whether some pod is there, and if not, what the Deployment says about it.

use k8s_openapi::api::apps::v1 as api;
use meshwright_core::ObjectKey;
use meshwright_core::model::DeploymentState;

/// The Deployment of one revision of one Gateway's proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayDeployment {
    pub(crate) gateway: ObjectKey,
    pub(crate) state: DeploymentState,
}

/// None for a Deployment that was not made for a Gateway.
pub(crate) fn deployment(object: &api::Deployment) -> Option<GatewayDeployment> {
    let gateway = super::made_for_gateway(&object.metadata)?;
    let status = object.status.as_ref();
    let available = status.and_then(|status| status.available_replicas).and_then(|n| u32::try_from(n).ok());
    let state = match available {
        Some(ready) if ready > 0 => DeploymentState::Ready { ready },
        _ => failure(status).map_or(DeploymentState::Progressing, DeploymentState::Failed),
    };
    Some(GatewayDeployment { gateway, state })
}

/// What keeps pods from being made: quota, Pod Security, an admission webhook.
fn failure(status: Option<&api::DeploymentStatus>) -> Option<String> {
    let conditions = status?.conditions.as_deref()?;
    let failed = conditions.iter().find(|condition| {
        condition.type_.as_deref() == Some("ReplicaFailure") && condition.status.as_deref() == Some("True")
    })?;
    let reason = failed.reason.clone().unwrap_or_else(|| "ReplicaFailure".to_owned());
    Some(failed.message.clone().filter(|message| !message.is_empty()).unwrap_or(reason))
}

/// All revisions of one Gateway together: what works counts, then what fails.
pub(crate) fn combined<'a>(states: impl Iterator<Item = &'a DeploymentState>) -> DeploymentState {
    states.fold(DeploymentState::Absent, |all, one| match (all, one) {
        (DeploymentState::Ready { ready: a }, DeploymentState::Ready { ready: b }) => {
            DeploymentState::Ready { ready: a.saturating_add(*b) }
        }
        (DeploymentState::Ready { ready }, _) => DeploymentState::Ready { ready },
        (_, DeploymentState::Ready { ready }) => DeploymentState::Ready { ready: *ready },
        (DeploymentState::Failed(why), _) => DeploymentState::Failed(why),
        (_, DeploymentState::Failed(why)) => DeploymentState::Failed(why.clone()),
        (DeploymentState::Progressing, _) | (_, DeploymentState::Progressing) => DeploymentState::Progressing,
        (DeploymentState::Absent, DeploymentState::Absent) => DeploymentState::Absent,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::made_for;
    use super::*;
    use serde_json::{Value, json};

    fn state(status: Value) -> DeploymentState {
        let object = json!({"metadata": made_for("edge.example.com"),
            "spec": {"selector": {}, "template": {}}, "status": status});
        let found = deployment(&serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!(found.gateway, ObjectKey::new("shop", "edge.example.com"), "whatever its label can hold");
        found.state
    }

    #[test]
    fn the_deployments_own_words_say_why_there_is_no_pod() {
        let quota = "pods \"x\" is forbidden: exceeded quota: none";
        let conditions =
            json!([{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": quota}]);
        assert_eq!(state(json!({"conditions": conditions})), DeploymentState::Failed(quota.to_owned()));
        assert_eq!(state(json!({})), DeploymentState::Progressing);
        // One pod that works outweighs another that cannot be made.
        let some = json!({"availableReplicas": 1, "conditions": conditions});
        assert_eq!(state(some), DeploymentState::Ready { ready: 1 });
    }

    #[test]
    fn revisions_are_counted_together() {
        let (ready, failed) = (DeploymentState::Ready { ready: 2 }, DeploymentState::Failed("no".to_owned()));
        assert_eq!(combined([&failed, &ready, &ready].into_iter()), DeploymentState::Ready { ready: 4 });
        assert_eq!(combined([&DeploymentState::Progressing, &failed].into_iter()), failed);
        assert_eq!(combined([].into_iter()), DeploymentState::Absent);
    }
}
