use http::Method;
use meshwright_api::{
    GatewayParametersSpec, MeshControlPlane, MeshRevision,
    gateway::{Gateway, ReferenceGrant},
};
use serde_json::{Value, json};

use super::{Held, Parameters, Seen, There, build, dereference::anchors, secret_access::permitted, validate};
use crate::{
    apply::tests::{Answer, not_found, server},
    upgrade::routing::{Behind, Part, Routing, Size},
};

fn gateway(spec: Value) -> Gateway {
    let mut object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "shop", "uid": "gateway-uid"},
        "spec": {"gatewayClassName": "meshwright", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    });
    for (key, value) in spec.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn held() -> Held {
    let mesh: MeshControlPlane = serde_json::from_value(json!({
        "apiVersion": "meshwright.io/v1alpha1", "kind": "MeshControlPlane",
        "metadata": {"name": "mesh", "namespace": "prod"}, "spec": {"profile": "Production"},
    }))
    .unwrap();
    let lead = Part { revision: "mesh-0a1b2c3d".to_owned(), size: Size::Scaled };
    let routing = Routing { behind: Behind::Only(lead.revision.clone()), lead, other: None };
    Held { mesh, routing, there: There::default() }
}

pub(super) fn revision(name: &str) -> Value {
    json!({
        "apiVersion": "meshwright.io/v1alpha1", "kind": "MeshRevision",
        "metadata": {"name": name, "namespace": "prod"},
        "spec": {
            "mesh": "mesh", "version": "0.1.0", "trustDomain": "cluster.local", "workloadTTL": "24h",
            "images": {"controlPlane": "cp", "proxy": "registry.example/proxy:1"},
            "controlPlane": {}, "gateways": {"resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}, "spreadZones": true},
        },
    })
}

fn seen() -> Seen {
    let revision: MeshRevision = serde_json::from_value(revision("mesh-0a1b2c3d")).unwrap();
    Seen {
        revisions: [("mesh-0a1b2c3d".to_owned(), revision)].into(),
        anchors: "PEM".to_owned(),
        of_class: Parameters::None,
        of_gateway: Parameters::None,
    }
}

fn bodies(gateway: &Gateway, seen: &Seen) -> Vec<Value> {
    let valid = validate(gateway, &held(), seen).unwrap();
    let objects = build::gateway(&valid).unwrap().into_desired().unwrap();
    objects.into_iter().map(|d| d.body).collect()
}

fn of_kind<'a>(bodies: &'a [Value], kind: &str) -> &'a Value {
    bodies.iter().find(|b| b["kind"] == kind).unwrap()
}

#[test]
fn gateways_are_rendered_as_released() {
    let infrastructure = json!({"labels": {"team": "a"}, "annotations": {"note": "x"}});
    insta::assert_yaml_snapshot!(
        "gateway",
        bodies(&gateway(json!({"infrastructure": infrastructure})), &seen())
    );
}

#[test]
fn a_changed_listener_restarts_no_pod() {
    let before = bodies(&gateway(json!({})), &seen());
    let listeners = json!([
        {"name": "http", "port": 8080, "protocol": "HTTP"}, {"name": "b", "port": 8080, "protocol": "HTTP"},
        {"name": "c.example", "port": 443, "protocol": "HTTPS"}]);
    let after = bodies(&gateway(json!({"listeners": listeners})), &seen());
    assert_eq!(of_kind(&before, "Deployment"), of_kind(&after, "Deployment"));
    let ports = of_kind(&after, "Service")["spec"]["ports"].as_array().unwrap();
    let named: Vec<_> =
        ports.iter().map(|p| (p["port"].as_i64().unwrap(), p["name"].as_str().unwrap())).collect();
    assert_eq!(named, [(443, "port-443"), (8080, "http")]);
}

#[test]
fn infrastructure_reaches_account_pods_and_service_and_does_not_override_ours() {
    let infrastructure = json!({"labels": {"team": "a", "meshwright.io/component": "mine"}});
    let bodies = bodies(&gateway(json!({"infrastructure": infrastructure})), &seen());
    for path in [
        "ServiceAccount/metadata",
        "Service/metadata",
        "Deployment/metadata",
        "Deployment/spec/template/metadata",
    ] {
        let (kind, pointer) = path.split_once('/').unwrap();
        let labels = &of_kind(&bodies, kind).pointer(&format!("/{pointer}")).unwrap()["labels"];
        assert_eq!(
            (&labels["team"], &labels["meshwright.io/component"]),
            (&json!("a"), &json!("gateway")),
            "{path}"
        );
    }
}

#[test]
fn parameters_of_the_gateway_come_before_those_of_its_class() {
    let parameters = |value: Value| {
        Parameters::Found(Box::new(serde_json::from_value::<GatewayParametersSpec>(value).unwrap()))
    };
    let mut seen = seen();
    seen.of_class = parameters(
        json!({"service": {"type": "NodePort"}, "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}),
    );
    seen.of_gateway =
        parameters(json!({"autoscaling": {"minReplicas": 1}, "resources": {"requests": {"cpu": "2"}}}));
    let valid = validate(&gateway(json!({})), &held(), &seen).unwrap();
    assert_eq!(valid.service.as_str(), "NodePort");
    assert_eq!(valid.plan.min, 1);
    let requests: Vec<_> = valid.parts[0].resources.requests.values().map(|q| q.0.as_str()).collect();
    assert_eq!(requests, ["2", "1Gi"]);
}

#[test]
fn a_reference_that_leads_nowhere_is_refused() {
    let mut seen = seen();
    seen.of_gateway = Parameters::Missing("GatewayParameters shop/none".to_owned());
    let error = validate(&gateway(json!({})), &held(), &seen).unwrap_err();
    assert!(error.to_string().contains("shop/none"), "{error}");
    seen.of_gateway = Parameters::UnknownKind("ConfigMap of group \"\"".to_owned());
    assert!(validate(&gateway(json!({})), &held(), &seen).is_err());
}

#[test]
fn only_what_this_very_gateway_owns_is_removed_when_it_leaves() {
    let owner = |uid: &str, controller| k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
        uid: uid.to_owned(),
        controller: Some(controller),
        ..Default::default()
    };
    let gateway = gateway(json!({}));
    assert!(super::is_owned(&[owner("gateway-uid", true)], &gateway));
    assert!(!super::is_owned(&[owner("earlier-uid", true)], &gateway));
    assert!(!super::is_owned(&[owner("gateway-uid", false)], &gateway));
    assert!(!super::is_owned(&[], &gateway));
}

fn grant(namespace: &str, from: &str, name: Option<&str>) -> ReferenceGrant {
    serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": namespace},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": from}],
            "to": [{"group": "", "kind": "Secret", "name": name}],
        },
    }))
    .unwrap()
}

#[test]
fn secrets_are_readable_only_where_a_reference_is_permitted() {
    let listener = |reference: Value| {
        let tls = json!({"certificateRefs": [reference]});
        gateway(json!({"listeners": [{"name": "a", "port": 443, "protocol": "HTTPS", "tls": tls}]}))
    };
    let names = |gateway: &Gateway, grants: &[ReferenceGrant]| {
        permitted(&[gateway], grants, "meshwright-system").into_iter().collect::<Vec<_>>()
    };
    let own = listener(json!({"name": "cert"}));
    assert_eq!(names(&own, &[]), ["shop"]);
    let other = listener(json!({"name": "cert", "namespace": "kube-system"}));
    assert!(names(&other, &[]).is_empty());
    assert_eq!(names(&other, &[grant("kube-system", "shop", None)]), ["kube-system"]);
    assert_eq!(names(&other, &[grant("kube-system", "shop", Some("cert"))]), ["kube-system"]);
    assert!(names(&other, &[grant("kube-system", "shop", Some("another"))]).is_empty());
    assert!(names(&other, &[grant("kube-system", "elsewhere", None)]).is_empty());
    assert!(names(&other, &[grant("elsewhere", "shop", None)]).is_empty());
    let roots = listener(json!({"name": "prod.mesh.root", "namespace": "meshwright-system"}));
    assert!(names(&roots, &[grant("meshwright-system", "shop", None)]).is_empty());
    assert!(
        permitted(&[&own], &[], "shop").is_empty(),
        "not by a Gateway in the operator's namespace either"
    );
    let no_secret = listener(json!({"name": "cert", "kind": "ConfigMap"}));
    assert!(names(&no_secret, &[]).is_empty());
}

#[test]
fn a_limit_alone_lowers_the_request_that_it_would_contradict() {
    let mut seen = seen();
    let parameters: GatewayParametersSpec =
        serde_json::from_value(json!({"resources": {"limits": {"memory": "64Mi"}}})).unwrap();
    seen.of_gateway = Parameters::Found(Box::new(parameters));
    let merged = validate(&gateway(json!({})), &held(), &seen).unwrap().parts.remove(0).resources;
    let merged = serde_json::to_value(merged).unwrap();
    assert_eq!(merged, json!({"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}));
}

const CONFIG_MAP: &str = "/api/v1/namespaces/shop/configmaps/web-meshwright";

#[tokio::test]
async fn a_lost_root_leaves_a_gateway_its_trust_anchors() {
    const ROOT: &str = "/api/v1/namespaces/meshwright-system/secrets/prod.mesh.root";
    let anchors = async |owner: &str| {
        let there = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": "PEM"},
            "metadata": {"name": "web-meshwright", "namespace": "shop", "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": owner,
                "controller": true}]}});
        let answers =
            vec![Answer(Method::GET, ROOT, 404, not_found()), Answer(Method::GET, CONFIG_MAP, 200, there)];
        let (ctx, mock) = server(answers);
        let found = anchors(&ctx, &held().mesh, &gateway(json!({}))).await;
        mock.finish();
        found.ok()
    };
    assert_eq!(anchors("gateway-uid").await.as_deref(), Some("PEM"));
    assert_eq!(anchors("somebody-else").await, None);
}

#[test]
fn proxies_of_a_release_that_is_not_known_are_left_as_they_are() {
    let (mut held, mut seen) = (held(), seen());
    let newer = Part { revision: "mesh-ffffffff".to_owned(), size: Size::Held };
    held.routing.other = Some(newer);
    let mut revision = seen.revisions["mesh-0a1b2c3d"].clone();
    revision.metadata.name = Some("mesh-ffffffff".to_owned());
    revision.spec.version = "9.0.0".to_owned();
    seen.revisions.insert("mesh-ffffffff".to_owned(), revision);
    let there: k8s_openapi::api::apps::v1::Deployment =
        serde_json::from_value(json!({"spec": {"replicas": 2, "selector": {}, "template": {}}})).unwrap();
    held.there.deployments.insert("mesh-ffffffff".to_owned(), there);
    let valid = validate(&gateway(json!({})), &held, &seen).unwrap();
    assert_eq!(valid.parts.len(), 2);
    let built = build::gateway(&valid).unwrap().into_desired().unwrap();
    assert_eq!(built.iter().filter(|d| d.body["kind"] == "Deployment").count(), 1);
    assert!(build::unknown(&valid)[0].contains("9.0.0"));
}
