use std::time::Duration;

use meshwright_core::model::{HttpRouteFilter, PathModifier};
use serde_json::{Value, json};

use super::*;

fn convert(spec: Value) -> HttpRoute {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "shop", "name": "cart"}, "spec": spec,
    });
    http_route(&serde_json::from_value(object).unwrap())
}

#[test]
fn defaults_of_matches_and_backends_are_the_apis() {
    let route = convert(json!({
        "parentRefs": [{"name": "edge", "sectionName": "http", "port": 80}],
        "rules": [{"matches": [{"path": {"value": "/a"}}, {"headers": [{"name": "x", "value": "1"}]}],
            "backendRefs": [{"name": "cart", "port": 8080}, {"name": "old", "port": 80, "weight": 0}]}],
    }));
    assert_eq!(route.parent_refs[0].namespace, None);
    assert_eq!(route.parent_refs[0].port, Some(80));
    let rule = &route.rules[0];
    assert_eq!(rule.matches[0].path, PathMatch::Prefix("/a".to_owned()));
    assert_eq!(rule.matches[1].path, PathMatch::default());
    assert_eq!(rule.matches[1].headers[0].value, StringMatch::Exact("1".to_owned()));
    assert_eq!((rule.backend_refs[0].weight, rule.backend_refs[1].weight), (1, 0));
}

#[test]
fn methods_expressions_timeouts_and_retries_come_through() {
    let route = convert(json!({"rules": [{
        "matches": [{"method": "DELETE", "path": {"type": "Exact", "value": "/x"},
            "queryParams": [{"name": "q", "type": "RegularExpression", "value": "a+"}]}],
        "timeouts": {"request": "1m", "backendRequest": "500ms"},
        "retry": {"codes": [503], "attempts": 2, "backoff": "10ms"},
        "sessionPersistence": {},
    }]}));
    let rule = &route.rules[0];
    assert_eq!(rule.matches[0].method.as_deref(), Some("DELETE"));
    assert_eq!(rule.matches[0].query_params[0].value, StringMatch::RegularExpression("a+".to_owned()));
    assert_eq!(rule.request_timeout, Some(Duration::from_secs(60)));
    assert_eq!(rule.backend_request_timeout, Some(Duration::from_millis(500)));
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!((retry.codes.as_slice(), retry.attempts), ([503].as_slice(), Some(2)));
    assert_eq!(rule.unsupported_fields, ["sessionPersistence"]);
}

#[test]
fn filters_of_rules_and_backends_are_read_alike() {
    let filters = json!([
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}], "remove": ["c"]}},
        {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/n"}}},
        {"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301, "port": 8443}},
        {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "m", "port": 80}, "percent": 5}},
        {"type": "ExtensionRef", "extensionRef": {"group": "x", "kind": "y", "name": "z"}},
        {"type": "RequestMirror"},
    ]);
    let route =
        convert(json!({"rules": [{"filters": filters, "backendRefs": [{"name": "b", "filters": filters}]}]}));
    let rule = &route.rules[0];
    assert_eq!(rule.filters, rule.backend_refs[0].filters);
    let [headers, rewrite, redirect, mirror, extension, empty] = rule.filters.as_slice() else { panic!() };
    let HttpRouteFilter::RequestHeaderModifier(headers) = headers else { panic!() };
    assert_eq!((headers.set.len(), headers.remove.len()), (1, 1));
    let HttpRouteFilter::UrlRewrite(rewrite) = rewrite else { panic!() };
    assert_eq!(rewrite.path, Some(PathModifier::ReplacePrefixMatch("/n".to_owned())));
    let HttpRouteFilter::RequestRedirect(redirect) = redirect else { panic!() };
    assert_eq!(
        (redirect.scheme.as_deref(), redirect.status_code, redirect.port),
        (Some("https"), Some(301), Some(8443))
    );
    let HttpRouteFilter::RequestMirror(mirror) = mirror else { panic!() };
    assert_eq!(mirror.fraction, Some((5, 100)));
    assert_eq!(extension, &HttpRouteFilter::Unsupported("ExtensionRef".to_owned()));
    assert!(matches!(empty, HttpRouteFilter::Unsupported(_)));
}
