//! A pod that leaves is sent mutual TLS until everybody has heard that, and over what is connected for as long as that lasts.

use std::sync::Arc;

use meshwright_core::{
    endpoints::{Endpoint, EndpointHealth, Endpoints},
    mesh::{Attributes, Authorization, Mesh, MeshPort, MeshService, PodPolicy, Protocol, Rule, RuleSet},
    model::AuthorizedPath,
};
use meshwright_xds::{Event, TypeUrl, mesh::policy_name};

use super::{
    APP, claim, pods,
    real::{SERVICE, key, mesh},
    stage::{Http, Running, Stage, names, says},
};
use crate::{
    node::{lab::Lab, sockets::Sockets},
    tests::fake::eventually,
};

/// The Service before the port where something else than HTTP is spoken.
pub(super) const TCP_SERVICE: &str = "10.96.0.11";
const OVER_HTTP: &str = "app over HTTP";
/// New connections each time, so that none of them is luck.
const SOME: usize = 20;

/// The mesh of the other tests, with that Service and with rules of this kind for the second pod; or that pod has left, and not everybody knows.
pub(super) fn before(addresses: &[String; 2], rules: Option<Rule>) -> Mesh {
    let mut mesh = mesh(addresses, &[0, 1]);
    let (address, node) = (addresses[1].clone(), Some("n1".to_owned()));
    let endpoint = Endpoint { address, port: 9000, health: EndpointHealth::Ready, node };
    let endpoints = Arc::new(Endpoints { zones: [(String::new(), vec![endpoint])].into() });
    let service = MeshService {
        addresses: vec![TCP_SERVICE.to_owned()],
        ports: [(9000, MeshPort { protocol: Protocol::Tcp, endpoints })].into(),
        balancing: Default::default(),
    };
    Arc::make_mut(&mut mesh.services).insert(key("app-tcp"), Arc::new(service));
    if let Some(rule) = rules {
        let enforced = RuleSet { allow: None, deny: vec![rule] };
        let authorization = Authorization { enforced, tried: None };
        let policy = PodPolicy { authorization, ..PodPolicy::default() };
        let node = Arc::make_mut(mesh.nodes.get_mut("n1").unwrap());
        node.policies.insert("u1".to_owned(), Arc::new(policy));
    }
    mesh
}

fn after(addresses: &[String; 2]) -> Mesh {
    let mut mesh = before(addresses, None);
    Arc::make_mut(mesh.nodes.get_mut("n1").unwrap()).members.remove("u1");
    mesh
}

fn below_admin(port: u16) -> Rule {
    let paths = vec![AuthorizedPath::Prefix("/admin".to_owned())];
    Rule { ports: [port].into(), http: vec![Attributes { paths, ..Attributes::default() }], callers: None }
}

/// Both pods captured, the second one under such rules, and connections to it that are kept.
struct Scene {
    stage: Stage,
    labs: [Lab; 2],
    addresses: [String; 2],
    kept: [Http; 2],
    envoy: Running,
    agent: Running,
}

impl Scene {
    async fn with(rules: Option<Rule>) -> Option<Self> {
        let stage = Stage::new("old", "A").await?;
        let labs = pods();
        labs[1].answers(9001, OVER_HTTP);
        labs.iter().for_each(Lab::routes_everything);
        let addresses = labs.each_ref().map(|lab| lab.addresses[0].to_string());
        for (lab, uid) in labs.iter().zip(["u0", "u1"]) {
            stage.wrote_down(uid, lab);
            stage.member(uid, &lab.addresses[..1]);
        }
        stage.publish_mesh(&before(&addresses, rules));
        stage.order(|order| order.claim = claim("old", 1));
        let (envoy, agent) = (stage.envoy(), stage.agent().await);
        eventually("captured", async || stage.captured(1) == Some(names(&["u0", "u1"]))).await;
        let service = SERVICE.parse().unwrap();
        eventually("the Service", async || says(&labs[0], service, 80).await == OVER_HTTP).await;
        let kept =
            [Http::open(&labs[0], labs[1].addresses[0], 9001).await, Http::open(&labs[0], service, 80).await];
        let mut scene = Self { stage, labs, addresses, kept, envoy, agent };
        scene.all_answer("as members").await;
        Some(scene)
    }

    /// What is kept, and new connections by both Services and to the pod's own address.
    async fn all_answer(&mut self, when: &str) {
        let [caller, target] = &self.labs;
        for one in &mut self.kept {
            assert_eq!(one.get().await.unwrap(), OVER_HTTP, "{when}");
        }
        let mut open = Vec::new();
        for round in 0..SOME {
            for (address, port) in [(TCP_SERVICE.parse().unwrap(), 9000), (target.addresses[0], 9000)] {
                let mut talk = caller.connect(address, port, 0).unwrap();
                assert_eq!(talk.greeting(), APP, "{when}, {address}, round {round}");
                open.push(talk);
            }
            for (address, port) in [(SERVICE.parse().unwrap(), 80), (target.addresses[0], 9001)] {
                assert_eq!(says(caller, address, port).await, OVER_HTTP, "{when}, {address}, round {round}");
            }
        }
        let secured = Sockets::of(&target.netns).unwrap().connected(&[15108]);
        assert!(secured >= open.len(), "{when}: {secured} of {} are mutual TLS", open.len());
    }

    /// The proxy has judged an answer about the second pod's policy: this version of it, or that there is none.
    async fn has_heard(&self, expected: Option<&str>) {
        let is_policy = |name: &str| name == policy_name("u1");
        eventually("the proxy has heard", async || {
            self.stage.saw(|event| match event {
                Event::Ack { kind: TypeUrl::ExtensionConfig, resources, removed } => match expected {
                    Some(version) => resources.iter().any(|(name, has)| is_policy(name) && **has == *version),
                    None => removed.iter().any(|name| is_policy(name)),
                },
                _ => false,
            })
        })
        .await;
    }

    async fn end(self) {
        self.agent.end().await;
        self.envoy.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_not_heard_that_a_pod_leaves_reaches_it_and_stays_connected() {
    for rules in [None, Some(below_admin(9001))] {
        let Some(mut scene) = Scene::with(rules.clone()).await else { return };
        // Its own node hears first that it is no member, and it is listed still.
        let mut member = None;
        scene.stage.order(|order| {
            order.listed = vec!["u1".to_owned()];
            member = order.members.remove("u1");
        });
        scene.stage.publish_mesh(&after(&scene.addresses));
        scene.has_heard(None).await;
        eventually("reported without it", async || scene.stage.captured(1) == Some(names(&["u0"]))).await;
        scene.all_answer("leaving").await;

        let heard = scene.stage.reports().len();
        std::mem::replace(&mut scene.agent, scene.stage.agent().await).kill();
        eventually("reported again", async || {
            let reports = scene.stage.reports();
            reports.len() > heard && reports.last().is_some_and(|report| report.serving_epoch == 1)
        })
        .await;
        scene.all_answer("after a restart of the agent").await;
        assert_eq!(scene.stage.listens(&scene.labs[1]).len(), 2, "that is not how it went");

        scene.stage.order(|order| {
            order.listed.clear();
            order.members.insert("u1".to_owned(), member.unwrap());
        });
        scene.stage.publish_mesh(&before(&scene.addresses, rules));
        eventually("captured again", async || scene.stage.captured(1) == Some(names(&["u0", "u1"]))).await;
        scene.all_answer("back").await;
        scene.end().await;
    }
}

/// Requests over connections from before are decided by the present rules, also where those look at no requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_where_rules_looked_at_requests_stays_connected_when_none_does() {
    let Some(mut scene) = Scene::with(Some(below_admin(9001))).await else { return };
    let elsewhere = Rule { ports: [9002].into(), ..Rule::default() };
    for rules in [Some(elsewhere), None] {
        let mesh = before(&scene.addresses, rules.clone());
        let told = scene.stage.snapshot(&mesh);
        let version = told.get(TypeUrl::ExtensionConfig, &policy_name("u1")).unwrap().version();
        scene.stage.publish_mesh(&mesh);
        scene.has_heard(Some(version)).await;
        scene.all_answer(&format!("{rules:?}")).await;
    }
    scene.end().await;
}
