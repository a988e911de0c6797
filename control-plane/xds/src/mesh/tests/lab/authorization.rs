//! Who is let in, tried on connections.

use meshwright_core::mesh::{Authorization, Caller, Rule, RuleSet};

use super::*;

fn rule(account: Option<&str>, ports: &[u16]) -> Rule {
    let callers = account.map(|account| [Caller::Id(spiffe(account))].into());
    Rule { callers, ports: ports.iter().copied().collect(), http: Vec::new() }
}

fn with(enforced: RuleSet, tried: Option<RuleSet>) -> Cluster {
    let authorization = Authorization { enforced, tried };
    mesh().policy("n2", "back", PodPolicy { authorization, ..PodPolicy::default() })
}

fn allow(rules: &[Rule]) -> RuleSet {
    RuleSet { allow: Some(rules.to_vec()), deny: Vec::new() }
}

fn deny(rules: &[Rule]) -> RuleSet {
    RuleSet { allow: None, deny: rules.to_vec() }
}

/// Which of the pods reach `back`, by HTTP and where the server speaks first, by its own address and by a Service. Each time on a new connection:
/// HTTP to a Service would use one that is there.
async fn reaching(lab: &Lab) -> Vec<String> {
    let mut all = Vec::new();
    for account in ["front", "cart"] {
        let pod = lab.pod(account);
        if pod.source("10.77.0.21:8080").await.starts_with("from") {
            all.push(format!("{account} 10.77.0.21:8080"));
        }
        for address in ["10.88.0.2:3306", "10.77.0.21:3306"] {
            match pod.talk(address).await {
                Ok(_) => all.push(format!("{account} {address}")),
                Err(error) => assert!(!error.contains("hello"), "it was greeted"),
            }
        }
    }
    all
}

const FRONT: [&str; 3] = ["front 10.77.0.21:8080", "front 10.88.0.2:3306", "front 10.77.0.21:3306"];
const CART: [&str; 3] = ["cart 10.77.0.21:8080", "cart 10.88.0.2:3306", "cart 10.77.0.21:3306"];

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_let_in_by_who_calls_and_by_port_and_a_change_needs_no_listener() {
    let Some(mut lab) = lab(with(allow(&[rule(Some("front"), &[])]), None), |_| {}).await else { return };
    assert_eq!(reaching(&lab).await, FRONT);
    let mut open = lab.pod("front").connect("10.88.0.2:3306").await.unwrap();
    assert_eq!(client::line(&mut open).await.unwrap(), "hello 10.77.0.21");

    for (set, expected) in [
        (allow(&[]), vec![]),
        (deny(&[rule(Some("cart"), &[3306])]), [&FRONT[..], &CART[..1]].concat()),
        (deny(&[rule(Some("front"), &[]), rule(None, &[8080])]), CART[1..].to_vec()),
        (allow(&[rule(Some("cart"), &[8080])]), CART[..1].to_vec()),
        (
            RuleSet { allow: Some(vec![rule(None, &[8080])]), deny: vec![rule(Some("cart"), &[])] },
            FRONT[..1].to_vec(),
        ),
        (RuleSet::default(), [FRONT, CART].concat()),
    ] {
        lab.publish(with(set.clone(), None));
        until(&format!("{set:?}"), async || (reaching(&lab).await == expected).then_some(())).await;
    }
    tokio::io::AsyncWriteExt::write_all(&mut open, b"still here\n").await.unwrap();
    assert_eq!(client::line(&mut open).await.unwrap(), "still here", "no listener was changed");
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

/// The value of a counter, all its series together.
async fn counter(lab: &Lab, name: &str, tags: &[&str]) -> u64 {
    let all = lab.nodes[1].1.ask("/stats/prometheus").await.unwrap();
    let lines =
        all.lines().filter(|line| line.starts_with(name) && tags.iter().all(|tag| line.contains(tag)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_and_what_would_be_is_counted() {
    let tried = allow(&[rule(Some("front"), &[])]);
    let Some(mut lab) = lab(with(RuleSet::default(), Some(tried.clone())), |_| {}).await else { return };
    assert_eq!(reaching(&lab).await, [FRONT, CART].concat(), "nothing is refused");
    let cart = ["sa/cart", "sa/back"];
    until("all were counted", async || {
        (counter(&lab, "envoy_mesh_authorization_would_refuse{", &cart).await == 3).then_some(())
    })
    .await;
    assert_eq!(counter(&lab, "envoy_mesh_authorization_would_refuse{", &["sa/front"]).await, 0);
    assert_eq!(counter(&lab, "envoy_mesh_authorization_refused{", &[]).await, 0);
    lab.publish(with(tried, None));
    until("enforced", async || (reaching(&lab).await == FRONT).then_some(())).await;
    until("counted", async || {
        (counter(&lab, "envoy_mesh_authorization_refused{", &cart).await >= 3).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_lists_are_decided_in_parts() {
    let many = |last: Option<&str>| {
        let ids =
            (0..3000).map(|number| spiffe(&format!("somebody-with-a-long-name-{number}"))).map(Caller::Id);
        let last = last.map(|account| Caller::Id(spiffe(account)));
        let all: Vec<_> = ids.chain(last).collect();
        all.chunks(200)
            .map(|part| Rule { callers: Some(part.iter().cloned().collect()), ..Rule::default() })
            .collect::<Vec<_>>()
    };
    let Some(mut lab) = lab(with(allow(&many(Some("front"))), None), |_| {}).await else { return };
    assert_eq!(reaching(&lab).await, FRONT);
    lab.publish(with(deny(&many(Some("front"))), None));
    until("denied", async || (reaching(&lab).await == CART).then_some(())).await;
    assert_eq!(lab.nodes[1].0.refused(), [""; 0]);
}

/// Each of the four lists short enough for one expression, and all of them together too long for it.
#[tokio::test(flavor = "multi_thread")]
async fn four_long_lists_are_taken_by_envoy() {
    let many = |last: Option<&str>| -> Vec<Rule> {
        let ids = (0..250).map(|number| spiffe(&format!("somebody-with-a-long-name-{number:020}")));
        let all = ids.chain(last.map(spiffe)).map(Caller::Id);
        all.map(|id| Rule { callers: Some([id].into()), ..Rule::default() }).collect()
    };
    let set = |allowed, denied| RuleSet { allow: Some(many(allowed)), deny: many(denied) };
    let Some(mut lab) = lab(with(RuleSet::default(), None), |_| {}).await else { return };
    assert_eq!(reaching(&lab).await, [FRONT, CART].concat());
    lab.publish(with(set(Some("front"), None), Some(set(None, Some("front")))));
    until("enforced", async || (reaching(&lab).await == FRONT).then_some(())).await;
    lab.publish(with(set(Some("front"), Some("front")), Some(set(None, None))));
    until("denied", async || reaching(&lab).await.is_empty().then_some(())).await;
    assert_eq!(lab.nodes[1].0.refused(), [""; 0]);
}
