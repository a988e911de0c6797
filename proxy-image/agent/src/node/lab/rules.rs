//! What the rules do to connections.

use super::{Lab, nft};
use crate::node::{
    probe::probe,
    rules::{MARK, PORT, Ports, Rules},
    sockets::Sockets,
};

const A: Ports = Ports { outbound: 15101, inbound: 15108 };
const B: Ports = Ports { outbound: 15201, inbound: 15208 };

/// A pod with both proxies, and another pod with an app.
fn pods() -> [Lab; 2] {
    let [pod, peer] = Lab::pair();
    for (port, name) in [
        (A.outbound, "A out"),
        (A.inbound, "A in"),
        (B.outbound, "B out"),
        (B.inbound, "B in"),
        (8080, "pod's app"),
    ] {
        pod.serves(port, name);
    }
    for (port, name) in [(9000, "app"), (PORT, "peer's proxy")] {
        peer.serves(port, name);
    }
    [pod, peer]
}

#[test]
fn a_pod_joins_is_handed_over_and_leaves_without_losing_a_connection() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    for address in &peer.addresses {
        let mut talks = Vec::new();
        let mut open = |expected: &str| {
            let mut talk = pod.connect(*address, 9000, 0).unwrap();
            assert_eq!(talk.greeting(), expected, "{address}");
            talks.push(talk);
            for (index, talk) in talks.iter_mut().enumerate() {
                assert!(
                    talk.lives(),
                    "connection {index} of {} to {address} was lost, the newest is {expected:?}",
                    talks.len()
                );
            }
        };
        open("app");
        nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Captured(B)).unwrap();
        open("B out");
        nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Leaving(A)).unwrap();
        open("app");
        nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Leaving(A)).unwrap();
        open("app");
        let sockets = Sockets::of(&pod.netns).unwrap();
        assert_eq!(sockets.connected(&[A.outbound]), 4, "to be waited for before the rules are removed");
        assert_eq!(sockets.connected(&[B.outbound]), 1);
        drop(talks);
        nft.clear(&pod.netns).unwrap();
    }
    nft.clear(&pod.netns).unwrap();
    assert_eq!(pod.reaches(peer.addresses[0], 9000, 0), "app");
}

#[test]
fn established_mutual_tls_stays_on_its_proxy_too() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    for address in &pod.addresses {
        nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
        let mut first = peer.connect(*address, PORT, 0).unwrap();
        assert_eq!(first.greeting(), "A in");
        nft.apply(&pod.netns, Rules::Captured(B)).unwrap();
        let mut second = peer.connect(*address, PORT, 0).unwrap();
        assert_eq!(second.greeting(), "B in");
        nft.apply(&pod.netns, Rules::Leaving(B)).unwrap();
        assert_eq!(peer.reaches(*address, PORT, 0), "B in", "somebody may not know yet that it leaves");
        assert!(first.lives() && second.lives());
        assert_eq!(peer.reaches(*address, 8080, 0), "pod's app", "what is not mutual TLS never sees a proxy");
    }
}

#[test]
fn only_what_the_pods_processes_send_to_others_is_captured() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
    for (own, other) in pod.addresses.iter().zip(&peer.addresses) {
        assert_eq!(pod.reaches(*other, 9000, 0), "A out");
        assert_eq!(pod.reaches(*other, 9000, MARK), "app", "the proxy's own");
        assert_eq!(pod.reaches(*other, PORT, MARK), "peer's proxy", "mutual TLS to another pod");
        assert_eq!(pod.reaches(*own, PORT, MARK), "A in", "mutual TLS to itself");
        assert_eq!(pod.reaches(*own, 8080, 0), "pod's app");
        assert_eq!(pod.reaches(*own, 8080, MARK), "pod's app");
        let loopback = if own.is_ipv4() { "127.0.0.1" } else { "::1" };
        assert_eq!(pod.reaches(loopback.parse().unwrap(), 8080, 0), "pod's app");
    }
}

#[test]
fn nobody_reaches_the_outbound_listener_without_a_redirection() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
    for address in &pod.addresses {
        assert_eq!(peer.reaches(*address, A.outbound, 0), "timed out");
        assert_eq!(pod.reaches(*address, A.outbound, MARK), "timed out", "it would dial itself for ever");
    }
    assert_eq!(pod.reaches("127.0.0.1".parse().unwrap(), A.outbound, 0), "timed out");
}

#[test]
fn a_change_by_others_is_noticed_and_mended() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    assert!(!nft.has(&pod.netns, Rules::Captured(A)));
    nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
    assert!(nft.has(&pod.netns, Rules::Captured(A)));
    assert!(!nft.has(&pod.netns, Rules::Captured(B)) && !nft.has(&pod.netns, Rules::Leaving(A)));
    pod.nft("add table inet theirs");
    assert!(nft.has(&pod.netns, Rules::Captured(A)), "that is not ours");
    for change in
        ["flush chain inet meshwright output", "insert rule inet meshwright output accept", "flush ruleset"]
    {
        pod.nft(change);
        assert!(!nft.has(&pod.netns, Rules::Captured(A)), "{change}");
        nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
        assert_eq!(pod.reaches(peer.addresses[0], 9000, 0), "A out");
    }
    nft.clear(&pod.netns).unwrap();
    nft.clear(&pod.netns).unwrap();
    assert!(!nft.has(&pod.netns, Rules::Captured(A)));
}

#[test]
fn a_redirection_is_tried_through_its_own_rule() {
    let Some(nft) = nft() else { return };
    let pod = Lab::new();
    assert!(probe(&pod.netns).is_err());
    nft.apply(&pod.netns, Rules::Captured(A)).unwrap();
    assert!(probe(&pod.netns).is_err(), "nobody listens");
    pod.serves(A.inbound, "A in");
    probe(&pod.netns).unwrap();
    let sockets = Sockets::of(&pod.netns).unwrap();
    assert!(sockets.listen_on(&[A.inbound]) && !sockets.listen_on(&[A.inbound, A.outbound]));
}

#[test]
fn a_namespace_is_known_by_its_addresses() {
    if nft().is_none() {
        return;
    }
    let [pod, peer] = Lab::pair();
    let own: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
    for address in &own {
        assert!(pod.netns.has_one_of(std::slice::from_ref(address)).unwrap());
        assert!(!peer.netns.has_one_of(std::slice::from_ref(address)).unwrap());
    }
    assert!(pod.netns.has_one_of(&["10.0.0.99".to_owned(), own[0].clone()]).unwrap());
    assert!(!pod.netns.has_one_of(&["not an address".to_owned()]).unwrap());
    assert!(crate::node::netns::is_namespace(&pod.path()));
}
