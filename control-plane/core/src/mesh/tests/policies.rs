//! What policies make of pods, and what their statuses say.

use super::*;
use crate::status::{PolicyStatus, PolicyStatuses};

pub fn authorization(namespace: &str, name: &str) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: Meta::new(namespace, name, 1, 0),
        target: Target::default(),
        denies: false,
        dry_run: false,
        rules: Vec::new(),
        unreadable: None,
    }
}

pub fn add_authorization(world: &mut World, policy: AuthorizationPolicy) {
    world.authorization_policies.insert(policy.meta.key.clone(), Arc::new(policy));
}

pub fn fresh_statuses(world: &World) -> Arc<PolicyStatuses> {
    let mut resolver = MeshResolver::new(rules(), "example.org");
    resolver.resolve(world, &Touched::all(world), &routes(world));
    resolver.statuses()
}

fn add_tls(
    world: &mut World,
    namespace: &str,
    name: &str,
    created: i64,
    app: Option<&str>,
    strict: bool,
    ports: &[(u16, bool)],
) {
    let policy = MeshTlsPolicy {
        meta: Meta::new(namespace, name, 1, created),
        target: app.map(by_app).unwrap_or_default(),
        strict,
        ports: ports.iter().copied().collect(),
        unreadable: None,
    };
    world.mesh_tls_policies.insert(policy.meta.key.clone(), Arc::new(policy));
}

fn by_app(app: &str) -> Target {
    Target(vec![LabelSelector { match_labels: labels(&[("app", app)]), match_expressions: Vec::new() }])
}

/// Namespaces `shop` and `web` in the mesh with two pods in the first and one in the second; one more in `out`, which is not.
fn world() -> World {
    let mut world = World::default();
    for name in ["shop", "web"] {
        add_namespace(&mut world, name, &[("meshwright.io/mesh", "enabled")]);
    }
    add_namespace(&mut world, "out", &[]);
    for (namespace, app) in [("shop", "cart"), ("shop", "pay"), ("web", "front"), ("out", "old")] {
        let pod = Pod {
            labels: labels(&[("app", app)]),
            probes: [8080].into(),
            ..pod(&format!("u-{app}"), "n1", &["10.0.0.1"])
        };
        add_pod(&mut world, namespace, app, pod);
    }
    add_mesh_node(&mut world, "n1", 1, &[("u-cart", &[]), ("u-pay", &[]), ("u-front", &[])]);
    world
}

fn policy(world: &World, app: &str) -> PodPolicy {
    let mesh = fresh(world);
    mesh.nodes["n1"].policies.get(&format!("u-{app}")).map(|policy| (**policy).clone()).unwrap_or_default()
}

fn refusing(world: &World, app: &str, ports: &[u16]) -> Vec<u16> {
    let plaintext = policy(world, app).plaintext;
    ports.iter().copied().filter(|port| plaintext.refuses(*port)).collect()
}

#[test]
fn without_policies_nothing_is_said_about_anybody() {
    assert!(fresh(&world()).nodes["n1"].policies.is_empty());
}

#[test]
fn the_nearest_policy_decides_about_plaintext() {
    let mut world = world();
    add_tls(&mut world, "mesh", "all", 0, None, true, &[]);
    assert_eq!([refusing(&world, "cart", &[80]), refusing(&world, "front", &[80])], [[80], [80]]);
    add_tls(&mut world, "shop", "shop", 0, None, false, &[(443, true)]);
    assert_eq!(refusing(&world, "cart", &[80, 443]), [443]);
    assert_eq!(refusing(&world, "front", &[80, 443]), [80, 443], "another namespace");
    add_tls(&mut world, "shop", "pay", 0, Some("pay"), true, &[(80, false)]);
    assert_eq!(refusing(&world, "pay", &[80, 443]), [443]);
    assert_eq!(refusing(&world, "pay", &[1]), [1]);
    assert_eq!(refusing(&world, "cart", &[80, 443]), [443], "another pod");
    assert_eq!(policy(&world, "pay").probes, [8080].into());
}

#[test]
fn a_policy_in_the_meshs_namespace_with_targets_is_not_for_the_mesh() {
    let mut world = world();
    add_tls(&mut world, "mesh", "all", 0, Some("cart"), true, &[]);
    assert_eq!(refusing(&world, "cart", &[80]), [0; 0]);
    assert!(
        fresh_statuses(&world).tls[&ObjectKey::new("mesh", "all")].conditions[0]
            .message
            .contains("no pod has")
    );
}

fn condition(status: &PolicyStatus) -> (bool, &str, &str) {
    let condition = &status.conditions[0];
    (condition.is_true(), condition.reason, &condition.message)
}

#[test]
fn of_equals_the_oldest_decides_and_the_other_says_so() {
    let mut world = world();
    add_tls(&mut world, "shop", "a-newer", 5, None, false, &[]);
    add_tls(&mut world, "shop", "b-older", 3, None, true, &[]);
    assert_eq!(refusing(&world, "cart", &[80]), [80]);
    let statuses = fresh_statuses(&world);
    let of = |name: &str| condition(&statuses.tls[&ObjectKey::new("shop", name)]);
    assert_eq!(of("b-older"), (true, "Accepted", "in force for 2 pods"));
    let (accepted, reason, message) = of("a-newer");
    assert!(!accepted && reason == "Conflicted" && message.contains("shop/b-older"), "{message}");
    // A nearer one is no conflict.
    add_tls(&mut world, "shop", "b-older", 3, Some("cart"), true, &[]);
    assert!(fresh_statuses(&world).tls.values().all(|status| condition(status).0));
}

#[test]
fn what_authorization_covers_takes_no_plaintext() {
    let mut world = world();
    let deny = |ports: &[u16]| AuthorizationPolicy {
        denies: true,
        target: by_app("cart"),
        rules: vec![AuthorizationRule { ports: ports.to_vec(), ..AuthorizationRule::default() }],
        ..authorization("shop", "p")
    };
    add_authorization(&mut world, deny(&[3306]));
    assert_eq!(refusing(&world, "cart", &[80, 3306]), [3306]);
    assert_eq!(refusing(&world, "pay", &[80, 3306]), [0; 0]);
    // Whatever a MeshTLSPolicy says of that port.
    add_tls(&mut world, "shop", "t", 0, None, true, &[(3306, false), (80, false)]);
    assert_eq!(refusing(&world, "cart", &[80, 443, 3306]), [443, 3306]);
    add_authorization(&mut world, deny(&[]));
    assert_eq!(refusing(&world, "cart", &[80, 443, 3306]), [80, 443, 3306]);
    add_authorization(&mut world, AuthorizationPolicy { dry_run: true, ..deny(&[]) });
    assert_eq!(refusing(&world, "cart", &[80, 443, 3306]), [443], "what is only tried refuses nothing");
}

#[test]
fn an_empty_policy_shuts_a_namespace() {
    let mut world = world();
    add_authorization(&mut world, authorization("shop", "nobody"));
    for app in ["cart", "pay"] {
        let found = policy(&world, app);
        assert_eq!(found.authorization.enforced.allow.as_deref(), Some(&[][..]));
        assert!(found.plaintext.refused && found.authorization.tried.is_none());
    }
    assert_eq!(policy(&world, "front"), PodPolicy::default());
}

#[test]
fn what_is_only_tried_is_beside_what_is_enforced() {
    let mut world = world();
    let one = |name: &str, dry_run| AuthorizationPolicy {
        dry_run,
        rules: vec![AuthorizationRule {
            sources: Some(vec![
                Source::Namespace("web".to_owned()),
                Source::ServiceAccount { namespace: "a".to_owned(), name: "b".to_owned() },
                Source::Spiffe("spiffe://x/y".to_owned()),
            ]),
            ..AuthorizationRule::default()
        }],
        ..authorization("shop", name)
    };
    add_authorization(&mut world, one("tried", true));
    let found = policy(&world, "cart");
    assert!(found.authorization.enforced.is_open() && !found.plaintext.refuses_any());
    let rules = found.authorization.tried.unwrap().allow.unwrap();
    let expected = [
        Caller::Below("spiffe://example.org/ns/web/sa/".into()),
        Caller::Id("spiffe://example.org/ns/a/sa/b".into()),
        Caller::Id("spiffe://x/y".into()),
    ];
    assert_eq!(rules[0].callers, Some(expected.into()));
    add_authorization(&mut world, one("enforced", false));
    let found = policy(&world, "cart").authorization;
    assert_eq!((found.enforced.allow.unwrap().len(), found.tried.unwrap().allow.unwrap().len()), (1, 2));
}

#[test]
fn a_source_that_nobody_understands_lets_nobody_in() {
    let mut world = world();
    let one = |name: &str, denies| AuthorizationPolicy {
        denies,
        rules: vec![AuthorizationRule {
            sources: Some(vec![Source::Unknown]),
            ..AuthorizationRule::default()
        }],
        ..authorization("shop", name)
    };
    add_authorization(&mut world, one("allow", false));
    add_authorization(&mut world, one("deny", true));
    let RuleSet { allow, deny } = policy(&world, "cart").authorization.enforced;
    assert_eq!(allow.unwrap()[0].callers, Some([].into()));
    assert_eq!(deny[0].callers, None);
}

#[test]
fn of_connections_only_what_no_request_can_change_is_known() {
    let http = vec![Attributes { methods: vec!["GET".to_owned()], ..Attributes::default() }];
    let requests = Rule { ports: [80].into(), http, ..Rule::default() };
    let anything = Rule { ports: [81].into(), ..Rule::default() };
    let all = vec![requests, anything.clone()];
    let set = RuleSet { allow: Some(all.clone()), deny: all };
    let known = set.of_connections();
    assert_eq!(known.deny, vec![anything.clone()]);
    assert_eq!(known.allow.unwrap(), [Rule { ports: [80].into(), ..Rule::default() }, anything]);
    let authorization = Authorization { enforced: RuleSet::default(), tried: Some(set) };
    assert_eq!(authorization.http_ports(), [80].into());
}

#[test]
fn a_policy_that_selects_nobody_says_what_to_do() {
    let mut world = world();
    for (namespace, name, app) in
        [("shop", "typo", "crat"), ("out", "outside", "old"), ("shop", "fine", "pay")]
    {
        add_authorization(
            &mut world,
            AuthorizationPolicy { target: by_app(app), ..authorization(namespace, name) },
        );
    }
    let statuses = fresh_statuses(&world);
    let of =
        |namespace: &str, name: &str| condition(&statuses.authorization[&ObjectKey::new(namespace, name)]);
    let (accepted, reason, message) = of("shop", "typo");
    assert!(!accepted && reason == "TargetNotFound" && message.contains("correct targetRefs"), "{message}");
    let (accepted, _, message) = of("out", "outside");
    assert!(!accepted && message.contains("meshwright.io/mesh=enabled"), "{message}");
    let (accepted, _, message) = of("shop", "fine");
    assert!(
        accepted && message.contains("enforced at 1 pod, which take no plaintext; it allows nothing"),
        "{message}"
    );
    assert_eq!(statuses.authorization[&ObjectKey::new("shop", "fine")].pods, 1);
}

#[test]
fn rules_about_requests_on_a_port_that_is_not_http_say_so_and_are_enforced() {
    let mut world = world();
    let http = vec![HttpAttributes { methods: vec!["GET".to_owned()], ..HttpAttributes::default() }];
    let looks = |ports: &[u16]| AuthorizationPolicy {
        denies: true,
        rules: vec![AuthorizationRule {
            ports: ports.to_vec(),
            http: http.clone(),
            ..AuthorizationRule::default()
        }],
        ..authorization("shop", "p")
    };
    let said = |world: &World| {
        let status = fresh_statuses(world).authorization[&ObjectKey::new("shop", "p")].clone();
        assert!(status.conditions[0].is_true(), "it is enforced all the same");
        status.conditions.get(1).map(|one| (one.kind, one.reason, one.message.clone()))
    };
    add_authorization(&mut world, looks(&[8080]));
    assert_eq!(said(&world), None);
    // A Service before the pods says that it is TCP.
    add_service(&mut world, "db", &["10.9.0.1"], vec![port("tcp-db", 80, None)]);
    assert_eq!(said(&world), None, "of other pods");
    add_slice(&mut world, "db", &["tcp-db"], &["10.0.0.1"]);
    let (kind, reason, message) = said(&world).unwrap();
    assert_eq!((kind, reason), ("PartiallyInvalid", "UnsupportedProtocol"));
    assert!(message.contains("8080 (by Service db)") && message.contains("take http out"), "{message}");
    add_service(&mut world, "db", &["10.9.0.1"], vec![port("http-db", 80, None)]);
    add_slice(&mut world, "db", &["http-db"], &["10.0.0.1"]);
    assert_eq!(said(&world), None);
    // Nobody says anything of it, and everybody knows it.
    add_authorization(&mut world, looks(&[3306, 8080]));
    let (.., message) = said(&world).unwrap();
    assert!(message.contains("3306 (where servers speak first)") && !message.contains("8080"), "{message}");
}

#[test]
fn a_status_counts_pods_that_are_captured_and_names_the_others() {
    let mut world = world();
    add_authorization(&mut world, authorization("shop", "p"));
    add_tls(&mut world, "shop", "t", 0, None, true, &[]);
    let said = |statuses: &PolicyStatuses| {
        let authorization = &statuses.authorization[&ObjectKey::new("shop", "p")];
        let tls = &statuses.tls[&ObjectKey::new("shop", "t")];
        assert_eq!((authorization.pods, tls.pods), (2, 2));
        [authorization, tls].map(|status| condition(status).2.to_owned())
    };
    let mut resolver = MeshResolver::new(rules(), "example.org");
    resolver.resolve(&world, &Touched::all(&world), &routes(&world));
    let [authorization, tls] = said(&resolver.statuses());
    assert!(authorization.starts_with("enforced at 2 pods, which"), "{authorization}");
    assert_eq!(tls, "in force for 2 pods");
    // The node's proxy is another, and has not everything yet: nothing else has changed.
    add_mesh_node(&mut world, "n1", 1, &[("u-cart", &[]), ("u-of-before", &[])]);
    let mut touched = Touched::default();
    touched.nodes.insert("n1".to_owned());
    resolver.resolve(&world, &touched, &routes(&world));
    let [authorization, tls] = said(&resolver.statuses());
    assert!(authorization.starts_with("enforced at 1 of 2 pods, which"), "{authorization}");
    assert!([authorization, tls].iter().all(|said| said.contains("and open: shop/pay")));
}

#[test]
fn what_a_proxy_refuses_the_policies_of_that_pod_say() {
    let mut world = world();
    add_authorization(
        &mut world,
        AuthorizationPolicy { target: by_app("cart"), ..authorization("shop", "p") },
    );
    let http = vec![HttpAttributes { methods: vec!["GET".to_owned()], ..HttpAttributes::default() }];
    let rules = vec![AuthorizationRule { ports: vec![8080], http, ..AuthorizationRule::default() }];
    add_authorization(&mut world, AuthorizationPolicy { rules, ..authorization("shop", "http") });
    let said = |world: &World| {
        let statuses = fresh_statuses(world);
        ["p", "http"].map(|name| {
            let found = statuses.authorization[&ObjectKey::new("shop", name)].conditions.get(1).cloned();
            found.map(|found| (found.reason, found.message))
        })
    };
    let refuse = |world: &mut World, kind, name: &str| {
        world.rejections = [(ObjectId { kind, key: ObjectKey::new("", name) }, "too long".to_owned())].into();
    };
    assert_eq!(said(&world), [None, None]);
    refuse(&mut world, ObjectKind::Pod, "u-pay");
    let [one, other] = said(&world);
    assert!(one.is_none() && other.is_some_and(|(_, message)| message.contains("at shop/pay: too long")));
    refuse(&mut world, ObjectKind::Node, "n1");
    let [one, other] = said(&world);
    assert!(one.is_none(), "it is not about requests");
    let (reason, message) = other.unwrap();
    assert_eq!(reason, "RejectedByProxy");
    assert!(message.contains("shop/cart, shop/pay: too long"), "{message}");
}

#[test]
fn a_policy_that_nobody_understands_says_so() {
    let mut world = world();
    let unreadable = |is_kept| Some(Unreadable { words: "unknown variant".to_owned(), is_kept });
    add_authorization(
        &mut world,
        AuthorizationPolicy { unreadable: unreadable(false), ..authorization("shop", "p") },
    );
    add_authorization(
        &mut world,
        AuthorizationPolicy { unreadable: unreadable(true), ..authorization("shop", "k") },
    );
    let statuses = fresh_statuses(&world);
    let of = |name: &str| condition(&statuses.authorization[&ObjectKey::new("shop", name)]);
    for (name, meanwhile) in [("p", "it allows nothing"), ("k", "what it said before")] {
        let (accepted, reason, message) = of(name);
        assert!(!accepted && reason == "Invalid", "{reason}");
        assert!(message.contains(meanwhile) && message.ends_with(": unknown variant"), "{message}");
    }
    assert_eq!(policy(&world, "cart").authorization.enforced.allow.as_deref(), Some(&[][..]));
}
