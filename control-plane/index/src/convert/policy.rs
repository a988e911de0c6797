//! AuthorizationPolicy and MeshTLSPolicy.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use meshwright_api as api;
use meshwright_core::model::{
    AuthorizationPolicy, AuthorizationRule, AuthorizedPath, HttpAttributes, LabelOperator, LabelRequirement,
    LabelSelector, MeshTlsPolicy, Source, Target, Unreadable,
};

use serde::Deserialize;
use serde_json::Value;

use super::{meta, port};

/// The most characters of what is wrong that a status has.
const WORDS: usize = 300;

/// A policy of which nothing is decoded yet: one that does not decode is a policy all the same.
macro_rules! view {
    ($name:ident, $object:ty) => {
        #[derive(Debug, Clone, Deserialize, Resource)]
        #[resource(inherit = $object)]
        pub(crate) struct $name {
            pub(crate) metadata: ObjectMeta,
            #[serde(default)]
            spec: Value,
            #[serde(default)]
            status: Value,
        }

        impl $name {
            /// None where there is none that makes sense.
            pub(crate) fn status(&self) -> Option<api::PolicyStatus> {
                Deserialize::deserialize(&self.status).ok()
            }
        }
    };
}

view!(AuthorizationPolicyView, api::AuthorizationPolicy);
view!(MeshTlsPolicyView, api::MeshTLSPolicy);

pub(crate) fn authorization_policy(object: &AuthorizationPolicyView) -> AuthorizationPolicy {
    let meta = meta(&object.metadata);
    let spec = match api::AuthorizationPolicySpec::deserialize(&object.spec) {
        Ok(spec) => spec,
        Err(e) => {
            return AuthorizationPolicy {
                meta,
                target: readable_target(&object.spec),
                denies: false,
                dry_run: false,
                rules: Vec::new(),
                unreadable: unreadable(&e),
            };
        }
    };
    let namespace = meta.key.namespace.clone();
    AuthorizationPolicy {
        target: target(&spec.target_refs),
        denies: spec.action == api::AuthorizationAction::Deny,
        dry_run: spec.mode == api::AuthorizationMode::DryRun,
        rules: spec.rules.iter().map(|one| rule(one, &namespace)).collect(),
        meta,
        unreadable: None,
    }
}

pub(crate) fn mesh_tls_policy(object: &MeshTlsPolicyView) -> MeshTlsPolicy {
    let meta = meta(&object.metadata);
    let is_strict = |mode: api::TlsMode| mode == api::TlsMode::Strict;
    match api::MeshTLSPolicySpec::deserialize(&object.spec) {
        Ok(spec) => MeshTlsPolicy {
            meta,
            target: target(&spec.target_refs),
            strict: is_strict(spec.mode),
            ports: spec.ports.iter().map(|one| (port(one.port), is_strict(one.mode))).collect(),
            unreadable: None,
        },
        Err(e) => MeshTlsPolicy {
            meta,
            target: readable_target(&object.spec),
            strict: true,
            ports: BTreeMap::new(),
            unreadable: unreadable(&e),
        },
    }
}

fn unreadable(error: &serde_json::Error) -> Option<Unreadable> {
    let words = error.to_string().chars().take(WORDS).collect();
    Some(Unreadable { words, is_kept: false })
}

/// For whom a policy is that does not decode: for everybody where that does not decode either.
fn readable_target(spec: &Value) -> Target {
    let refs = spec.get("targetRefs").and_then(|refs| Vec::<api::TargetRef>::deserialize(refs).ok());
    target(&refs.unwrap_or_default())
}

fn target(refs: &[api::TargetRef]) -> Target {
    Target(refs.iter().map(|one| selector(&one.selector)).collect())
}

fn selector(selector: &api::Selector) -> LabelSelector {
    let requirement = |one: &api::SelectorRequirement| LabelRequirement {
        key: one.key.clone(),
        operator: match one.operator.as_str() {
            "In" => LabelOperator::In,
            "NotIn" => LabelOperator::NotIn,
            "Exists" => LabelOperator::Exists,
            "DoesNotExist" => LabelOperator::DoesNotExist,
            other => LabelOperator::Unknown(other.to_owned()),
        },
        values: one.values.clone(),
    };
    LabelSelector {
        match_labels: selector.match_labels.clone(),
        match_expressions: selector.match_expressions.iter().map(requirement).collect(),
    }
}

fn rule(rule: &api::AuthorizationRule, namespace: &str) -> AuthorizationRule {
    let sources = rule.sources.as_ref();
    let ports = rule.network_attributes.iter().flat_map(|attributes| &attributes.ports);
    AuthorizationRule {
        sources: sources.map(|all| all.iter().map(|one| source(one, namespace)).collect()),
        ports: ports.map(|number| port(*number)).collect(),
        http: rule.http.iter().map(attributes).collect(),
    }
}

fn source(source: &api::Source, namespace: &str) -> Source {
    match (source.type_, &source.spiffe, &source.service_account) {
        (api::SourceType::Spiffe, Some(id), None) => Source::Spiffe(id.clone()),
        (api::SourceType::ServiceAccount, None, Some(account)) => {
            let namespace = account.namespace.clone().unwrap_or_else(|| namespace.to_owned());
            match account.name.as_str() {
                "*" => Source::Namespace(namespace),
                name => Source::ServiceAccount { namespace, name: name.to_owned() },
            }
        }
        _ => Source::Unknown,
    }
}

fn attributes(http: &api::HttpAttributes) -> HttpAttributes {
    let path = |path: &api::PathMatch| match path.type_ {
        api::PathMatchType::Exact => AuthorizedPath::Exact(path.value.clone()),
        api::PathMatchType::PathPrefix => AuthorizedPath::Prefix(path.value.clone()),
    };
    HttpAttributes {
        methods: http.methods.clone(),
        paths: http.paths.iter().map(path).collect(),
        hosts: http.hosts.clone(),
        headers: http.headers.iter().map(|header| (header.name.clone(), header.value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn policy(spec: Value) -> AuthorizationPolicy {
        let object = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "AuthorizationPolicy",
            "metadata": {"namespace": "shop", "name": "p", "generation": 3}, "spec": spec});
        authorization_policy(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn an_empty_policy_allows_nothing_to_all_pods() {
        let found = policy(json!({}));
        assert!(found.target.is_everything() && !found.denies && !found.dry_run && found.rules.is_empty());
    }

    #[test]
    fn sources_are_of_the_policys_namespace_unless_they_say_another() {
        let sources = json!([
            {"type": "ServiceAccount", "serviceAccount": {"name": "web"}},
            {"type": "ServiceAccount", "serviceAccount": {"namespace": "edge", "name": "*"}},
            {"type": "SPIFFE", "spiffe": "spiffe://other/x"},
            {"type": "SPIFFE", "serviceAccount": {"name": "web"}},
        ]);
        let found = policy(
            json!({"action": "DENY", "mode": "DryRun", "rules": [{"sources": sources}, {"sources": []}, {}]}),
        );
        assert!(found.denies && found.dry_run);
        let expected = vec![
            Source::ServiceAccount { namespace: "shop".to_owned(), name: "web".to_owned() },
            Source::Namespace("edge".to_owned()),
            Source::Spiffe("spiffe://other/x".to_owned()),
            Source::Unknown,
        ];
        let sources: Vec<_> = found.rules.into_iter().map(|rule| rule.sources).collect();
        assert_eq!(sources, [Some(expected), Some(Vec::new()), None]);
    }

    #[test]
    fn requests_and_ports_are_taken_over() {
        let http = json!([{"methods": ["GET"], "paths": [{"value": "/a"}, {"type": "Exact", "value": "/b"}],
            "hosts": ["*.example.com"], "headers": [{"name": "X", "value": "1"}, {"name": "Y"}]}]);
        let found = policy(json!({"rules": [{"networkAttributes": {"ports": [80]}, "http": http}],
            "targetRefs": [{"selector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}));
        assert_eq!(found.rules[0].ports, [80]);
        let http = &found.rules[0].http[0];
        assert_eq!(
            http.paths,
            [AuthorizedPath::Prefix("/a".to_owned()), AuthorizedPath::Exact("/b".to_owned())]
        );
        assert_eq!(http.headers, [("X".to_owned(), Some("1".to_owned())), ("Y".to_owned(), None)]);
        let labels = |key: &str| [(key.to_owned(), String::new())].into();
        assert!(found.target.selects(&labels("a")) && !found.target.selects(&labels("b")));
    }

    #[test]
    fn a_policy_that_does_not_decode_lets_nobody_in_where_it_is_for() {
        let for_a = json!([{"selector": {"matchLabels": {"app": "a"}}}]);
        let app = |name: &str| [("app".to_owned(), name.to_owned())].into();
        let rule = json!({"http": [{"paths": [{"type": "Regex", "value": "x"}]}]});
        for spec in [
            json!({"action": "AUDIT", "targetRefs": for_a}),
            json!({"action": "DENY", "rules": [rule], "targetRefs": for_a}),
            json!({"mode": 7, "rules": [{}], "targetRefs": for_a}),
        ] {
            let found = policy(spec);
            assert!(found.unreadable.is_some_and(|found| !found.words.is_empty() && !found.is_kept));
            assert!(!found.denies && !found.dry_run && found.rules.is_empty());
            assert!(found.target.selects(&app("a")) && !found.target.selects(&app("b")));
        }
        let found = policy(json!({"rules": [{}], "targetRefs": [{"kind": "Deployment", "selector": {}}]}));
        assert!(found.rules.is_empty() && found.target.is_everything());

        let tls = |spec: Value| {
            let object = json!({"apiVersion": "meshwright.io/v1alpha1", "kind": "MeshTLSPolicy",
                "metadata": {"namespace": "shop", "name": "p"}, "spec": spec});
            mesh_tls_policy(&serde_json::from_value(object).unwrap())
        };
        let ports = json!([{"port": 80, "mode": "Permissive"}]);
        let found = tls(json!({"mode": "Loose", "ports": ports, "targetRefs": for_a}));
        assert!(found.strict && found.ports.is_empty() && found.unreadable.is_some());
        assert!(!found.target.selects(&app("b")));
        let found = tls(json!({"mode": "Permissive", "ports": [{"port": 80, "mode": "Strict"}]}));
        assert!(!found.strict && found.ports == [(80, true)].into() && found.unreadable.is_none());
    }
}
