//! AuthorizationPolicies of a pod.

use std::sync::Arc;

use super::{Attributes, Authorization, Caller, Policies, Rule, RuleSet};
use crate::model::{AuthorizationPolicy, AuthorizationRule, HttpAttributes, ObjectKey, Pod, Source};

pub(super) fn of(policies: &Policies<'_>, key: &ObjectKey, pod: &Pod) -> Authorization {
    let all: Vec<_> = policies.authorization_policies(key, pod).collect();
    let enforced = all.iter().copied().filter(|policy| !policy.dry_run);
    let enforced = rule_set(enforced, policies.trust_domain);
    let has_tried = all.iter().any(|policy| policy.dry_run);
    let tried = has_tried.then(|| rule_set(all.into_iter(), policies.trust_domain));
    Authorization { enforced, tried }
}

fn rule_set<'a>(policies: impl Iterator<Item = &'a AuthorizationPolicy>, trust_domain: &str) -> RuleSet {
    let mut set = RuleSet::default();
    for policy in policies {
        let rules = policy.rules.iter().map(|one| rule(one, policy.denies, trust_domain));
        // The first ALLOW policy shuts out everybody whom none of them lets in, also when it lets in nobody.
        let into = if policy.denies { &mut set.deny } else { set.allow.get_or_insert_default() };
        into.extend(rules);
    }
    set
}

fn rule(rule: &AuthorizationRule, denies: bool, trust_domain: &str) -> Rule {
    let callers = rule.sources.as_ref().and_then(|sources| {
        // What cannot be understood must let nobody in: it matches nobody for ALLOW, everybody for DENY.
        let is_understood = !sources.contains(&Source::Unknown);
        let known = sources.iter().filter_map(|source| caller(source, trust_domain));
        (is_understood || !denies).then(|| known.collect())
    });
    Rule {
        callers,
        ports: rule.ports.iter().copied().collect(),
        http: rule.http.iter().map(attributes).collect(),
    }
}

fn caller(source: &Source, trust_domain: &str) -> Option<Caller> {
    let of = |namespace: &str| format!("spiffe://{trust_domain}/ns/{namespace}/sa/");
    match source {
        Source::Spiffe(id) => Some(Caller::Id(id.as_str().into())),
        Source::ServiceAccount { namespace, name } => {
            Some(Caller::Id(Arc::from(format!("{}{name}", of(namespace)))))
        }
        Source::Namespace(namespace) => Some(Caller::Below(of(namespace).into())),
        Source::Unknown => None,
    }
}

fn attributes(attributes: &HttpAttributes) -> Attributes {
    let HttpAttributes { methods, paths, hosts, headers } = attributes.clone();
    Attributes { methods, paths, hosts, headers }
}
