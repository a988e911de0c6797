use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use meshwright_api::{MeshControlPlane, UpgradeMode, UpgradePhase};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Level, Report, before, installed};
use crate::{
    client::Sought,
    fixtures::{NOW, fresh, mesh, revisions, waiting},
    gather::{Before, Definition, Installed, Right, needed},
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
        mesh: Ok(Sought::Found(Box::new(mesh))),
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
    let report = installed(&healthy(fresh()), None, now());
    assert!(report.ok, "{}", report.text());
    insta::assert_snapshot!("healthy", report.text());
}

#[test]
fn everything_that_is_wrong_is_told_with_reason_and_command() {
    let mut mesh = mesh("rolled-back");
    let certificates = mesh.status.as_mut().unwrap().certificates.as_mut().unwrap();
    certificates.earliest_not_after.0 = "2026-11-23T12:10:00Z".parse().unwrap();
    let mut seen = healthy(mesh);
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
    let report = installed(&seen, None, now());
    assert!(!report.ok);
    insta::assert_snapshot!("unhealthy", report.text());
}

#[test]
fn what_may_not_be_read_is_a_finding_and_stops_nothing_else() {
    let mut seen = healthy(fresh());
    seen.pods = Err("pods is forbidden: User \"anna\" cannot list resource \"pods\"".to_owned());
    let report = installed(&seen, None, now());
    assert_eq!(report.checks.len(), installed(&healthy(fresh()), None, now()).checks.len());
    assert!(!report.ok);
    assert!(
        found(&report)[0].starts_with("could not look at pods: pods is forbidden"),
        "{:?}",
        found(&report)
    );
}

#[test]
fn a_mesh_that_is_not_there_is_told_once_with_the_command_to_go_on() {
    let told = |sought: Sought| {
        let mut seen = healthy(fresh());
        seen.mesh = Ok(sought);
        let report = installed(&seen, None, now());
        assert!(!report.ok);
        assert_eq!(found(&report).len(), 1, "{:?}", found(&report));
        report.text()
    };
    let nowhere = told(Sought::NotInstalled);
    assert!(nowhere.contains("kubectl mesh check --pre && kubectl apply"), "{nowhere}");
    assert!(!nowhere.contains("revisions"), "{nowhere}");
    let none = told(Sought::NoneIn(None));
    assert!(none.contains("\"kind\":\"MeshControlPlane\"") && !none.contains("certificates"), "{none}");
    assert!(told(Sought::NoneIn(Some("shop".to_owned()))).contains("run: kubectl mesh check\n"));
}

#[test]
fn a_newer_release_is_taken_by_itself_or_planned_by_its_name() {
    let told = |mode, version: Option<&str>| {
        let mut mesh = fresh();
        (mesh.spec.upgrade.mode, mesh.spec.version) = (mode, version.map(str::to_owned));
        installed(&healthy(mesh), None, now()).text()
    };
    let manual = told(UpgradeMode::Manual, None);
    assert!(manual.contains("run: kubectl mesh upgrade plan --to 0.2.0\n"), "{manual}");
    let pinned = told(UpgradeMode::Automatic, Some("0.1.1"));
    assert!(pinned.contains("while spec.version is set") && pinned.contains("plan --to 0.2.0\n"), "{pinned}");
    let automatic = told(UpgradeMode::Automatic, None);
    assert!(automatic.contains("taken by itself") && automatic.contains("upgrade plan\n"), "{automatic}");
}

#[test]
fn an_upgrade_that_needs_a_person_is_found() {
    let of = |mesh| found(&installed(&healthy(mesh), None, now())).concat();
    assert!(of(waiting("shift")).contains("waits for a person, for 1m30s"));
    assert!(of(mesh("blocked")).contains("blocked by ConfigurationLost, for 9m"));
    assert_eq!(of(mesh("drain")), "");
}

fn empty_cluster() -> Before {
    let node = "metadata: { name: n }\nstatus: { conditions: [{ type: Ready, status: 'True' }] }";
    Before {
        version: Ok((1, 37)),
        rights: needed().into_iter().map(|right| (right, Ok(true))).collect(),
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
    let without = |verb: &str, resource: &str| {
        with(&|c| {
            let right = c.rights.iter_mut().find(|(r, _)| r.verb == verb && r.resource == resource);
            right.unwrap().1 = Ok(false);
        })
    };
    let place = "in namespace meshwright-system";
    assert_eq!(without("create", "deployments"), format!("you may not create deployments.apps {place}"));
    assert!(without("create", "rolebindings").contains(place));
    for resource in ["clusterroles", "roles"] {
        assert!(without("escalate", resource).contains(&format!("may not escalate {resource}.rbac")));
        assert!(without("bind", resource).contains(&format!("may not bind {resource}.rbac")));
    }
    assert!(with(&|c| c.definitions = Ok(vec![foreign("v1.6.2")])).contains("is of v1.6.2"));
    assert_eq!(with(&|c| c.definitions = Ok(vec![foreign("v1.8.0")])), "");
    assert!(with(&|c| c.meshes = Ok(vec![fresh()])).contains("mesh/prod is here already"));
    assert!(with(&|c| c.nodes = Ok(Vec::new())).contains("no node"));
    assert!(with(&|c| c.groups = Ok(Vec::new())).contains("metrics.k8s.io"));
    assert!(with(&|c| c.nodes = Err("nodes is forbidden".to_owned())).contains("could not look at nodes"));
}

#[test]
fn every_kind_of_the_install_file_is_asked_for() {
    let golden = "/../operator/src/install/snapshots/meshwright_operator__install__tests__install.snap";
    let file = std::fs::read_to_string(env!("CARGO_MANIFEST_DIR").to_owned() + golden).unwrap();
    let (_, objects) = file.split_once("\n---\n").unwrap();
    for object in objects.split("\n---\n").map(read::<Value>) {
        let text = |name: &str| object[name].as_str().unwrap();
        let plural = text("kind").to_lowercase() + "s";
        let plural = plural.strip_suffix("ys").map_or(plural.clone(), |head| format!("{head}ies"));
        let group = text("apiVersion").rsplit_once('/').map_or("", |(group, _)| group);
        let namespace = object["metadata"]["namespace"].as_str();
        let asked = |verb| {
            let is =
                |r: &Right| (r.group, r.resource, r.verb, r.namespace) == (group, &plural, verb, namespace);
            needed().iter().any(is)
        };
        assert!(asked("create") && asked("patch"), "{plural}.{group} in {namespace:?}");
    }
}

#[test]
fn a_probe_that_no_gateway_gets_is_told() {
    let mut mesh = fresh();
    mesh.spec.upgrade.analysis.probes = vec![
        read("{ namespace: shop, gateway: web, host: shop.example }"),
        read("{ namespace: shop, gateway: gone, host: a.example }"),
    ];
    let text = installed(&healthy(mesh), None, now()).text();
    assert!(text.contains("it has no plain") && text.contains("there is no such"), "{text}");
}

#[test]
fn what_is_still_going_back_is_not_called_gone_back() {
    let mut mesh = mesh("rolled-back");
    let upgrade = mesh.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    upgrade.phase = UpgradePhase::RollingBack;
    upgrade.waiting = Some("the Service of Gateway shop/web".to_owned());
    upgrade.rollback.as_mut().unwrap().traffic_back = None;
    let text = installed(&healthy(mesh.clone()), None, now()).text();
    assert!(text.contains("is going back") && text.contains("may still go to the new revision"), "{text}");
    let upgrade = mesh.status.as_mut().unwrap().upgrade.as_mut().unwrap();
    let back = upgrade.rollback.as_mut().unwrap();
    (back.traffic_back, back.cause) = (Some(back.decided.clone()), "Superseded".to_owned());
    assert!(installed(&healthy(mesh), None, now()).ok, "somebody changed the spec, which is no problem");
}

#[test]
fn only_what_can_be_approved_is_told_to_be() {
    let mut drain = waiting("drain");
    drain.status.as_mut().unwrap().upgrade.as_mut().unwrap().awaits_approval = None;
    let text = installed(&healthy(drain), None, now()).text();
    assert!(text.contains("describe mrev prod-11111111") && !text.contains("mesh approve"), "{text}");
}
