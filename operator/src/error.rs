//! Errors by what to do about them. Every step has its own error type; each says its class, and the requeue follows
//! from the class here and nowhere else.

use std::time::Duration;

use kube::{core::Status, runtime::controller::Action};

/// How long a settled object waits for a reconcile that no event asked for.
const RESYNC: Duration = Duration::from_secs(3600);
/// A conflict is mostly over as soon as the cache has the newer object; one that is not must not be a busy loop.
const SOON: Duration = Duration::from_millis(250);
const LAST_CONFLICT: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(120);
/// The object goes with its namespace, which brings an event; this is for one that a stranger's finalizer keeps.
const GOING: Duration = Duration::from_secs(300);
/// Cause that the API server gives where something is to be made in a namespace that is being deleted.
const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Only a change by a user helps; a watch brings it.
    Terminal,
    /// Nothing is wrong, something is not there yet.
    Waiting(Duration),
    /// Somebody else wrote first: read again.
    Conflict,
    /// The request failed; back off per object.
    Transient,
    /// The API server refused it: a missing right, a quota, an admission policy. Back off longer: a person must act.
    Refused,
}

impl Class {
    /// Class of a request's error.
    pub fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.is_conflict() || status.is_already_exists() => Self::Conflict,
            kube::Error::Api(status) if is_going(status) => Self::Waiting(GOING),
            kube::Error::Api(status) if status.is_forbidden() || status.is_invalid() => Self::Refused,
            _ => Self::Transient,
        }
    }

    /// As a metric label: a closed set.
    pub fn label(self) -> &'static str {
        match self {
            Self::Terminal => "terminal",
            Self::Waiting(_) => "waiting",
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::Refused => "refused",
        }
    }
}

fn is_going(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == NAMESPACE_TERMINATING)
}

/// When to come back after the `failures`-th failure in a row.
pub fn requeue(class: Class, failures: u32) -> Action {
    let doubled =
        |first: Duration| first.saturating_mul(1 << failures.saturating_sub(1).min(7)).min(LAST_RETRY);
    match class {
        Class::Terminal => Action::requeue(RESYNC),
        Class::Waiting(time) => Action::requeue(time),
        Class::Conflict => Action::requeue(doubled(SOON).min(LAST_CONFLICT)),
        Class::Transient => Action::requeue(doubled(FIRST_RETRY)),
        // A right that was granted a moment ago reaches the authorizer a moment later, so the first retry is quick.
        Class::Refused => Action::requeue(doubled(SOON * 2)),
    }
}

/// After a success, `soonest` being when something is due.
pub fn settled(soonest: Option<Duration>) -> Action {
    Action::requeue(soonest.map_or(RESYNC, |d| d.clamp(SOON, RESYNC)))
}

/// The whole chain of an error in one line; each part says only its own.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_goes_with_its_namespace_is_nobodys_fault() {
        let refused = |reason: &str| {
            let status = json!({"status": "Failure", "reason": "Forbidden", "code": 403,
                "details": {"name": "edge", "kind": "serviceaccounts", "causes": [{"reason": reason, "field": "metadata.namespace"}]}});
            Class::of(&kube::Error::Api(serde_json::from_value(status).unwrap()))
        };
        assert_eq!(refused("NamespaceTerminating"), Class::Waiting(GOING));
        assert_eq!(refused("FieldValueForbidden"), Class::Refused);
    }

    #[test]
    fn backs_off_up_to_a_limit() {
        assert_eq!(requeue(Class::Transient, 1), Action::requeue(Duration::from_secs(1)));
        assert_eq!(requeue(Class::Transient, 3), Action::requeue(Duration::from_secs(4)));
        assert_eq!(requeue(Class::Transient, 400), Action::requeue(LAST_RETRY));
        assert_eq!(requeue(Class::Conflict, 1), Action::requeue(SOON));
        assert_eq!(requeue(Class::Conflict, 4), Action::requeue(SOON * 8));
        assert_eq!(requeue(Class::Conflict, 400), Action::requeue(LAST_CONFLICT));
    }
}
