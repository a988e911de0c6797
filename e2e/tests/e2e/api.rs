//! Every CEL rule of our kinds, run by the real API server: what is wrong is refused, with the rule's own words.

use anyhow::{Result, ensure};
use meshwright_e2e::testing::{apply_yaml, delete_yaml, refusal_of};

use crate::env::{Env, file};

fn mesh(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: meshwright.io/v1alpha1\nkind: MeshControlPlane\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
    )
}

#[tokio::test]
async fn invalid_meshes_are_refused_with_the_field_and_the_reason() -> Result<()> {
    let env = Env::connect().await?;
    apply_yaml(&env.client, &file("target/dist/crds.yaml")?, "default").await?;
    let long = "m".repeat(41);
    let cases = [
        (mesh(&long, "{}"), "at most 40 characters"),
        (mesh("a.b", "{}"), "without dots"),
        (mesh("m", "{ version: latest }"), "spec.version"),
        (mesh("m", "{ profile: Huge }"), "spec.profile"),
        (mesh("m", "{ trustDomain: 'Not A Domain' }"), "spec.trustDomain"),
        (
            mesh("m", "{ telemetry: { tracing: { endpoint: 'otel.obs:70000' } } }"),
            "the port of endpoint must be between 1 and 65535",
        ),
        (
            mesh("m", "{ telemetry: { tracing: { endpoint: 'http://otel.obs:4317' } } }"),
            "spec.telemetry.tracing.endpoint",
        ),
        (
            mesh("m", "{ telemetry: { tracing: { endpoint: 'otel.obs:4317', sampling: 101% } } }"),
            "spec.telemetry.tracing.sampling",
        ),
        (mesh("m", "{ certificates: { workloadTTL: 1m } }"), "workloadTTL must be between 10m and 168h"),
        (mesh("m", "{ certificates: { rootTTL: 24h } }"), "rootTTL must be between 1440h and 87600h"),
        (mesh("m", "{ certificates: { workloadTTL: soon } }"), "spec.certificates.workloadTTL"),
        (
            mesh("m", "{ gateways: { autoscaling: { minReplicas: 4, maxReplicas: 3 } } }"),
            "minReplicas must not exceed maxReplicas",
        ),
        (mesh("m", "{ controlPlane: { autoscaling: { minReplicas: 0 } } }"), "minReplicas"),
        (mesh("m", "{ gateways: { autoscaling: { targetCpuPercent: 101 } } }"), "targetCpuPercent"),
        (mesh("m", "{ gatewayAPI: { crds: Some } }"), "spec.gatewayAPI.crds"),
        (
            mesh("m", "{ controlPlane: { resources: { requests: { cpu: some } } } }"),
            "requests must be quantities",
        ),
        (
            mesh("m", "{ controlPlane: { resources: { requests: { cpu: -1 } } } }"),
            "requests must be quantities",
        ),
        (mesh("m", "{ gateways: { resources: { limits: { memory: 64Mb } } } }"), "limits must be quantities"),
        (
            mesh("m", "{ gateways: { resources: { requests: { cpu: 2 }, limits: { cpu: 500m } } } }"),
            "a request must not exceed its limit",
        ),
        (mesh("m", "{ gateways: { scheduling: { priorityClassName: High! } } }"), "priorityClassName"),
    ];
    for (yaml, expected) in cases {
        let refusal = refusal_of(&env.client, &yaml, "default").await?;
        ensure!(
            refusal.contains(expected),
            "expected {expected:?} in the refusal of\n{yaml}\ngot: {refusal}"
        );
    }
    Ok(())
}

fn policy(kind: &str, spec: &str) -> String {
    format!(
        "apiVersion: meshwright.io/v1alpha1\nkind: {kind}\nmetadata: {{ name: cel-test }}\nspec: {spec}\n"
    )
}

#[tokio::test]
async fn invalid_policies_are_refused_with_the_field_and_the_reason() -> Result<()> {
    let env = Env::connect().await?;
    apply_yaml(&env.client, &file("target/dist/crds.yaml")?, "default").await?;
    let authz = |spec: &str| policy("AuthorizationPolicy", spec);
    let http = |http: &str| {
        authz(&format!("{{ rules: [{{ networkAttributes: {{ ports: [80] }}, http: [{http}] }}] }}"))
    };
    let source = |source: &str| authz(&format!("{{ rules: [{{ sources: [{source}] }}] }}"));
    let cases = [
        (authz("{ action: DENY }"), "a DENY policy needs rules"),
        (authz("{ action: AUDIT }"), "spec.action"),
        (authz("{ mode: Permissive }"), "spec.mode"),
        (
            authz("{ rules: [{ http: [{ methods: [GET] }] }] }"),
            "a rule with http needs networkAttributes.ports",
        ),
        (http("{}"), "http attributes that say nothing"),
        (http("{ methods: [get] }"), "methods"),
        (http("{ hosts: ['A.example'] }"), "hosts"),
        (http("{ hosts: ['a.example:80'] }"), "hosts"),
        (http("{ paths: [{ value: a }] }"), "value"),
        (http("{ paths: [{ value: '/a%20b' }] }"), "value"),
        (http("{ paths: [{ value: '/a//b' }] }"), "a path must be as applications get it"),
        (http("{ paths: [{ value: '/a/../b' }] }"), "a path must be as applications get it"),
        (http("{ headers: [{ name: 'a b' }] }"), "name"),
        (http("{ headers: [{ name: a, value: 'x,y' }] }"), "value"),
        (http("{ headers: [{ name: x-a-b-c-d-e }] }"), "more than four"),
        (source("{ type: SPIFFE }"), "a source has the field that its type names"),
        (
            source("{ type: ServiceAccount, spiffe: 'spiffe://a/b' }"),
            "a source has the field that its type names",
        ),
        (source("{ type: SPIFFE, spiffe: 'https://a/b' }"), "spiffe"),
        (source("{ type: ServiceAccount, serviceAccount: { name: 'a*' } }"), "name"),
        (
            authz("{ targetRefs: [{ selector: { matchExpressions: [{ key: a, operator: In }] } }] }"),
            "operators In and NotIn need values",
        ),
        (authz("{ targetRefs: [{ kind: Service, selector: {} }] }"), "kind"),
        (policy("MeshTLSPolicy", "{ mode: Off }"), "spec.mode"),
        (policy("MeshTLSPolicy", "{ ports: [{ port: 0, mode: Strict }] }"), "port"),
        (
            policy("MeshTLSPolicy", "{ ports: [{ port: 1, mode: Strict }, { port: 1, mode: Permissive }] }"),
            "ports must not name a port twice",
        ),
    ];
    for (yaml, expected) in cases {
        let refusal = refusal_of(&env.client, &yaml, "default").await?;
        ensure!(
            refusal.contains(expected),
            "expected {expected:?} in the refusal of\n{yaml}\ngot: {refusal}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_trust_domain_and_a_revision_cannot_be_changed() -> Result<()> {
    let env = Env::connect().await?;
    apply_yaml(&env.client, &file("target/dist/crds.yaml")?, "default").await?;
    let revision = |ttl: &str| {
        format!(
            "apiVersion: meshwright.io/v1alpha1\nkind: MeshRevision\nmetadata: {{ name: cel-test, namespace: default }}\nspec:\n  {{ mesh: none, \
             version: 0.3.0, images: {{ controlPlane: a, proxy: b }}, trustDomain: x, workloadTTL: {ttl}, controlPlane: {{}}, gateways: {{}} }}\n"
        )
    };
    apply_yaml(&env.client, &revision("24h"), "default").await?;
    let refused = apply_yaml(&env.client, &revision("23h"), "default").await;
    delete_yaml(&env.client, &revision("24h"), "default").await?;
    let text = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(text.contains("a MeshRevision cannot be changed"), "a changed MeshRevision gave: {text}");

    let env = Env::with_mesh().await?;
    let changed = "apiVersion: meshwright.io/v1alpha1\nkind: MeshControlPlane\nmetadata: { name: mesh, namespace: mesh }\nspec: { trustDomain: other }\n";
    let refused = apply_yaml(&env.client, changed, "mesh").await;
    let text = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
    ensure!(text.contains("trustDomain cannot be changed"), "a changed trust domain gave: {text}");
    Ok(())
}
