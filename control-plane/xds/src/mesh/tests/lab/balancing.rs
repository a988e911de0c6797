//! Which endpoints a Service's callers get, where the Service says so.

use std::collections::BTreeSet;

use super::*;

const NODES: [(&str, &str); 2] = [("10.77.0.21", "n2"), ("10.77.0.12", "n1")];

/// Services with an endpoint on each node.
fn spread(balancing: Balancing) -> Cluster {
    let all = |port| NODES.map(|(address, _)| (address, port));
    mesh()
        .service("http", &["10.88.0.40"], 80, Protocol::Http, &all(8080))
        .service("tcp", &["10.88.0.41"], 3306, Protocol::Tcp, &all(3306))
        .balanced("http", balancing, &NODES)
        .balanced("tcp", balancing, &NODES)
}

/// Who answered 24 times, on new connections.
async fn answers(pod: &Namespace) -> [BTreeSet<String>; 2] {
    let (mut http, mut tcp) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..24 {
        http.insert(pod.source("10.88.0.40:80").await);
        tcp.insert(pod.talk("10.88.0.41:3306").await.unwrap());
    }
    [http, tcp]
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_get_what_is_near_or_stay_with_one() {
    let balancing = |by_client, near| Balancing { by_client, near };
    let Some(mut lab) = lab(spread(Balancing::default()), |_| {}).await else { return };
    assert_eq!(answers(lab.pod("front")).await.map(|all| all.len()), [2, 2], "everywhere");

    lab.publish(spread(balancing(false, Near::NodeOnly)));
    for (account, address) in [("front", "10.77.0.12"), ("back", "10.77.0.21")] {
        let expected =
            [format!("from {address}"), format!("hello {address} ping bye")].map(|one| [one].into());
        until(&format!("{account} stays on its node"), async || {
            (answers(lab.pod(account)).await == expected).then_some(())
        })
        .await;
    }
    lab.publish(spread(balancing(true, Near::Anywhere)));
    let front = lab.pod("front");
    until("one endpoint for all requests", async || {
        let all = answers(front).await;
        all.iter().all(|all| all.len() == 1).then_some(())
    })
    .await;
    let first = answers(front).await;
    assert_eq!(answers(front).await, first, "always the same");
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}
