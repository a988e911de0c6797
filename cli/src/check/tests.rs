use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use meshwright_api::MeshControlPlane;
use serde::de::DeserializeOwned;

use super::{Level, Report, before, installed};
use crate::{
    fixtures::{NOW, fresh, mesh, revisions, waiting},
    gather::{Before, Definition, Installed},
};

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_yaml_ng::from_str(yaml).unwrap()
}

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn healthy(mesh: MeshControlPlane) -> Installed {
    let deployment = |name: &str, component: &str| {
        format!(
            "metadata: {{ name: {name}, namespace: mesh, labels: {{ meshwright.io/component: {component} }} }}\n\
             spec: {{ replicas: 2, selector: {{}}, template: {{}} }}\nstatus: {{ availableReplicas: 2 }}"
        )
    };
    Installed {
        mesh: Ok(mesh),
        revisions: Ok(revisions()),
        operators: Ok(vec![read(&deployment("meshwright-operator", "none"))]),
        deployments: Ok(vec![
            read(&deployment("prod-11111111", "control-plane")),
            read(&deployment("web-meshwright", "gateway")),
        ]),
        pods: Ok(Vec::new()),
        autoscalers: Ok(Vec::new()),
        budgets: Ok(Vec::new()),
        gateways: Ok(vec![read(
            "metadata: { name: web, namespace: shop }\nspec: { gatewayClassName: meshwright, listeners: [] }\n\
             status: { conditions: [{ type: Programmed, status: 'True', reason: Programmed, message: '', lastTransitionTime: '2026-11-21T12:00:00Z' }] }",
        )]),
    }
}

fn found(report: &Report) -> Vec<String> {
    let findings = report.checks.iter().flat_map(|c| &c.findings);
    findings.filter(|f| f.level != Level::Note).map(|f| f.problem.clone()).collect()
}

#[test]
fn a_healthy_mesh_has_no_findings() {
    let report = installed(&healthy(fresh()), now());
    assert!(report.ok, "{}", report.text());
    insta::assert_snapshot!("healthy", report.text());
}

#[test]
fn everything_that_is_wrong_is_told_with_reason_and_command() {
    let mut seen = healthy(mesh("rolled-back"));
    let status = seen.mesh.as_mut().unwrap().status.as_mut().unwrap();
    status.certificates.as_mut().unwrap().earliest_not_after.0 = "2026-11-23T12:10:00Z".parse().unwrap();
    seen.operators = Ok(Vec::new());
    let gateway = &mut seen.deployments.as_mut().unwrap()[1];
    gateway.status.as_mut().unwrap().available_replicas = Some(1);
    let pod = |name: &str, status: &str| -> Pod {
        read(&format!("metadata: {{ name: {name}, namespace: shop }}\nstatus: {status}"))
    };
    let waiting = |reason: &str| {
        format!(
            "{{ containerStatuses: [{{ name: proxy, image: p, imageID: p, ready: false, restartCount: 3, \
             state: {{ waiting: {{ reason: {reason}, message: back-off }} }} }}] }}"
        )
    };
    seen.pods = Ok(vec![
        pod("crashing", &waiting("CrashLoopBackOff")),
        pod("unpulled", &waiting("ImagePullBackOff")),
        pod("starting", &waiting("ContainerCreating")),
        pod(
            "homeless",
            "{ conditions: [{ type: PodScheduled, status: 'False', message: 0/3 nodes are available }] }",
        ),
    ]);
    seen.autoscalers = Ok(vec![read(
        "metadata: { name: web-meshwright, namespace: shop }\nspec: { maxReplicas: 5, scaleTargetRef: { kind: Deployment, name: web } }\n\
         status: { desiredReplicas: 2, conditions: [{ type: ScalingActive, status: 'False', message: no metrics }] }",
    )]);
    seen.budgets = Ok(vec![read(
        "metadata: { name: web-meshwright, namespace: shop }\n\
         status: { disruptionsAllowed: 0, currentHealthy: 2, expectedPods: 2, desiredHealthy: 2 }",
    )]);
    seen.gateways.as_mut().unwrap()[0].status = None;
    let report = installed(&seen, now());
    assert!(!report.ok);
    insta::assert_snapshot!("unhealthy", report.text());
}

#[test]
fn what_may_not_be_read_is_a_finding_and_stops_nothing_else() {
    let mut seen = healthy(fresh());
    seen.pods = Err("pods is forbidden: User \"anna\" cannot list resource \"pods\"".to_owned());
    let report = installed(&seen, now());
    assert_eq!(report.checks.len(), installed(&healthy(fresh()), now()).checks.len());
    assert!(!report.ok);
    assert!(
        found(&report)[0].starts_with("could not look at pods: pods is forbidden"),
        "{:?}",
        found(&report)
    );
}

#[test]
fn an_upgrade_that_needs_a_person_is_found() {
    let of = |mesh| found(&installed(&healthy(mesh), now())).concat();
    assert!(of(waiting("shift")).contains("waits for a person, for 1m30s"));
    assert!(of(mesh("blocked")).contains("blocked by ConfigurationLost, for 9m"));
    assert_eq!(of(mesh("drain")), "");
}

fn empty_cluster() -> Before {
    let node = "metadata: { name: n }\nstatus: { conditions: [{ type: Ready, status: 'True' }] }";
    Before {
        version: Ok((1, 37)),
        rights: vec![(("apps", "deployments", "create"), Ok(true))],
        groups: Ok(vec!["apps".to_owned(), "metrics.k8s.io".to_owned()]),
        definitions: Ok(vec![Definition { name: "gateways", version: None, ours: false }]),
        meshes: Ok(Vec::new()),
        nodes: Ok(vec![read(node), read(node)]),
        services: Ok(Vec::new()),
    }
}

#[test]
fn an_empty_cluster_of_a_known_version_will_do() {
    let report = before(&empty_cluster());
    assert!(report.ok, "{}", report.text());
    insta::assert_snapshot!("before", report.text());
}

#[test]
fn what_an_installation_would_stumble_over_is_found_before() {
    let foreign =
        |version: &str| Definition { name: "gateways", version: Some(version.to_owned()), ours: false };
    let with = |change: &dyn Fn(&mut Before)| {
        let mut cluster = empty_cluster();
        change(&mut cluster);
        found(&before(&cluster)).concat()
    };
    assert!(with(&|c| c.version = Ok((1, 33))).contains("Kubernetes 1.33"));
    assert!(with(&|c| c.rights[0].1 = Ok(false)).contains("may not create deployments.apps"));
    assert!(with(&|c| c.definitions = Ok(vec![foreign("v1.6.2")])).contains("is of v1.6.2"));
    assert_eq!(with(&|c| c.definitions = Ok(vec![foreign("v1.8.0")])), "");
    assert!(with(&|c| c.meshes = Ok(vec![fresh()])).contains("mesh/prod is here already"));
    assert!(with(&|c| c.nodes = Ok(Vec::new())).contains("no node"));
    assert!(with(&|c| c.groups = Ok(Vec::new())).contains("metrics.k8s.io"));
    assert!(with(&|c| c.nodes = Err("nodes is forbidden".to_owned())).contains("could not look at nodes"));
}
