//! Generated policies and calls, decided by Envoy as the oracle says.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::mesh::tests::generated::{self, Chance};

const SETS: u64 = 100;
const CALLS: usize = 10;

/// Whether the application was reached.
async fn is_let_in(lab: &Lab, call: &generated::Call, wire: &str) -> bool {
    let pod = lab.pod(call.account);
    if call.port == 3306 {
        return pod.talk("10.77.0.21:3306").await.is_ok();
    }
    let mut stream = pod.connect("10.77.0.21:8080").await.unwrap();
    let _ = stream.write_all(wire.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("an end");
    String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 200")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_calls_are_decided_as_the_oracle_says() {
    let Some(mut lab) = lab(mesh(), |_| {}).await else { return };
    let (mut decided, start) = ([0; 2], Instant::now());
    for seed in 1..=SETS {
        let chance = &mut Chance::new(seed);
        let policies = generated::policies(chance);
        lab.publish(mesh().policy("n2", "back", generated::compiled(&policies)));
        for _ in 0..CALLS {
            let call = generated::call(chance);
            let wire = generated::on_the_wire(&call, chance);
            let expected = generated::oracle(&policies, &call);
            // What was published a moment ago needs another to be there.
            let mut found = is_let_in(&lab, &call, &wire).await;
            let end = Instant::now() + Duration::from_secs(60);
            while found != expected && Instant::now() < end {
                found = is_let_in(&lab, &call, &wire).await;
            }
            assert_eq!(found, expected, "seed {seed}: {call:?}\n{wire}\n{policies:#?}");
            decided[usize::from(expected)] += 1;
        }
    }
    eprintln!("{} refused, {} let in, in {:?}", decided[0], decided[1], start.elapsed());
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}
