//! AuthorizationPolicy and MeshTLSPolicy.

use meshwright_api as api;
use meshwright_core::model::{
    AuthorizationPolicy, AuthorizationRule, AuthorizedPath, HttpAttributes, LabelOperator, LabelRequirement,
    LabelSelector, MeshTlsPolicy, Source, Target,
};

use super::{meta, port};

pub(crate) fn authorization_policy(object: &api::AuthorizationPolicy) -> AuthorizationPolicy {
    let meta = meta(&object.metadata);
    let namespace = meta.key.namespace.clone();
    AuthorizationPolicy {
        target: target(&object.spec.target_refs),
        denies: object.spec.action == api::AuthorizationAction::Deny,
        dry_run: object.spec.mode == api::AuthorizationMode::DryRun,
        rules: object.spec.rules.iter().map(|one| rule(one, &namespace)).collect(),
        meta,
    }
}

pub(crate) fn mesh_tls_policy(object: &api::MeshTLSPolicy) -> MeshTlsPolicy {
    let is_strict = |mode: api::TlsMode| mode == api::TlsMode::Strict;
    let ports = object.spec.ports.iter().map(|one| (port(one.port), is_strict(one.mode)));
    MeshTlsPolicy {
        meta: meta(&object.metadata),
        target: target(&object.spec.target_refs),
        strict: is_strict(object.spec.mode),
        ports: ports.collect(),
    }
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
    use serde_json::{Value, json};

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
}
