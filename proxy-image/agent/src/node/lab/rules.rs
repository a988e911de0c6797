//! What the rules do to connections.

use super::{Lab, nft};
use crate::node::{
    probe::probe,
    rules::{Guard, MARK, PORT, Ports, Rules},
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
        nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Captured(B), &Guard::default()).unwrap();
        open("B out");
        nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Leaving(A), &Guard::default()).unwrap();
        open("app");
        nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
        open("A out");
        nft.apply(&pod.netns, Rules::Leaving(A), &Guard::default()).unwrap();
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
        nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
        let mut first = peer.connect(*address, PORT, 0).unwrap();
        assert_eq!(first.greeting(), "A in");
        nft.apply(&pod.netns, Rules::Captured(B), &Guard::default()).unwrap();
        let mut second = peer.connect(*address, PORT, 0).unwrap();
        assert_eq!(second.greeting(), "B in");
        nft.apply(&pod.netns, Rules::Leaving(B), &Guard::default()).unwrap();
        assert_eq!(peer.reaches(*address, PORT, 0), "B in", "somebody may not know yet that it leaves");
        assert!(first.lives() && second.lives());
        assert_eq!(peer.reaches(*address, 8080, 0), "pod's app", "what is not mutual TLS never sees a proxy");
    }
}

#[test]
fn only_what_the_pods_processes_send_to_others_is_captured() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
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
    nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
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
    assert!(!nft.has(&pod.netns, Rules::Captured(A), &Guard::default()));
    nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
    assert!(nft.has(&pod.netns, Rules::Captured(A), &Guard::default()));
    assert!(
        !nft.has(&pod.netns, Rules::Captured(B), &Guard::default())
            && !nft.has(&pod.netns, Rules::Leaving(A), &Guard::default())
    );
    pod.nft("add table inet theirs");
    assert!(nft.has(&pod.netns, Rules::Captured(A), &Guard::default()), "that is not ours");
    for change in
        ["flush chain inet meshwright output", "insert rule inet meshwright output accept", "flush ruleset"]
    {
        pod.nft(change);
        assert!(!nft.has(&pod.netns, Rules::Captured(A), &Guard::default()), "{change}");
        nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
        assert_eq!(pod.reaches(peer.addresses[0], 9000, 0), "A out");
    }
    nft.clear(&pod.netns).unwrap();
    nft.clear(&pod.netns).unwrap();
    assert!(!nft.has(&pod.netns, Rules::Captured(A), &Guard::default()));
}

#[test]
fn a_redirection_is_tried_through_its_own_rule() {
    let Some(nft) = nft() else { return };
    let pod = Lab::new();
    assert!(probe(&pod.netns).is_err());
    nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
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

fn guard(refused: bool, except: &[u16], probes: &[u16]) -> Guard {
    let ports = |all: &[u16]| all.iter().copied().collect();
    Guard { refused, except: ports(except), probes: ports(probes) }
}

#[test]
fn plaintext_is_refused_where_it_should_be_and_mutual_tls_never() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    pod.serves(9001, "other app");
    let refused = "connection refused";
    for (guard, app, other) in [
        (Guard::default(), "pod's app", "other app"),
        (guard(true, &[], &[]), refused, refused),
        (guard(true, &[9001], &[]), refused, "other app"),
        (guard(true, &[9001, 8080], &[]), "pod's app", "other app"),
        (guard(false, &[8080], &[]), refused, "other app"),
        (guard(false, &[8080, 9001], &[]), refused, refused),
    ] {
        nft.apply(&pod.netns, Rules::Captured(A), &guard).unwrap();
        assert!(nft.has(&pod.netns, Rules::Captured(A), &guard));
        for address in &pod.addresses {
            assert_eq!(peer.reaches(*address, 8080, 0), app, "{guard:?}");
            assert_eq!(peer.reaches(*address, 9001, 0), other, "{guard:?}");
            assert_eq!(peer.reaches(*address, PORT, 0), "A in", "{guard:?}");
            // The proxy's last step, and the pod's own processes.
            assert_eq!(pod.reaches(*address, 8080, MARK), "pod's app", "{guard:?}");
            assert_eq!(pod.reaches(*address, 8080, 0), "pod's app", "{guard:?}");
            assert_eq!(pod.reaches(*address, PORT, MARK), "A in", "{guard:?}");
        }
        for address in &peer.addresses {
            assert_eq!(pod.reaches(*address, 9000, 0), "A out", "what it sends is none of this");
        }
    }
}

#[test]
fn what_is_connected_in_plaintext_stays_until_it_is_ended_and_nothing_else_is() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    pod.serves(9001, "other app");
    let strict = guard(true, &[9001], &[]);
    for (address, far) in pod.addresses.iter().zip(&peer.addresses) {
        nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
        let talk = |from: &Lab, to, port, mark, expected: &str| {
            let mut talk = from.connect(to, port, mark).unwrap();
            assert_eq!(talk.greeting(), expected);
            talk
        };
        let mut old = talk(&peer, *address, 8080, 0, "pod's app");
        let mut kept = [
            talk(&peer, *address, 9001, 0, "other app"),
            talk(&peer, *address, PORT, 0, "A in"),
            talk(&pod, *address, 8080, MARK, "pod's app"),
            talk(&pod, *far, 9000, 0, "A out"),
            talk(&pod, *far, 9000, MARK, "app"),
        ];
        nft.apply(&pod.netns, Rules::Captured(A), &strict).unwrap();
        assert!(old.lives(), "it has time");
        let (own, nobody) = ([A.outbound, A.inbound], Default::default());
        assert_eq!(Sockets::end_plaintext(&pod.netns, &strict, &own, &nobody).unwrap(), 1);
        assert!(!old.lives());
        assert!(kept.iter_mut().all(|talk| talk.lives()));
        assert_eq!(Sockets::end_plaintext(&pod.netns, &strict, &own, &nobody).unwrap(), 0);
    }
}

/// The node is another namespace here, with a client behind it.
#[test]
fn probes_of_the_node_pass_and_nothing_else_that_comes_from_it() {
    let Some(nft) = nft() else { return };
    let [pod, node] = pods();
    pod.serves(9001, "probed app");
    pod.routes_through(&node);
    let client = node.client(crate::node::rules::KUBELET.0);
    let here = |script: &str| {
        let run = || {
            let mut child = std::process::Command::new("nft")
                .args(["-f", "-"])
                .stdin(std::process::Stdio::piped())
                .spawn()?;
            std::io::Write::write_all(child.stdin.as_mut().unwrap(), script.as_bytes())?;
            assert!(child.wait_with_output()?.status.success(), "{script}");
            Ok(())
        };
        node.netns.within(run).unwrap();
    };
    let strict = guard(true, &[], &[9001]);
    nft.apply(&pod.netns, Rules::Captured(A), &strict).unwrap();
    for address in &pod.addresses {
        assert_eq!(node.reaches(*address, 9001, 0), "connection refused", "the pod knows nobody");
    }
    let source = crate::node::rules::KUBELET.0.into();
    let pretends = || client.reaches_from(source, pod.addresses[0], 9001);
    assert_eq!(pretends(), "probed app", "the pod alone cannot tell");
    let probes = |all: &[std::net::IpAddr]| all.iter().map(|address| (*address, [9001].into())).collect();
    here(&crate::node::rules::probes(&probes(&pod.addresses)));
    for address in &pod.addresses {
        assert_eq!(node.reaches(*address, 9001, 0), "probed app", "{address}");
        assert_eq!(node.reaches(*address, 8080, 0), "connection refused", "no probe is declared there");
    }
    here(&crate::node::rules::probes(&probes(&pod.addresses[..1])));
    assert_eq!(node.reaches(pod.addresses[0], 9001, 0), "probed app");
    assert_eq!(node.reaches(pod.addresses[1], 9001, 0), "connection refused");
    // Nobody else comes from there, also where the node would hand it on.
    assert_eq!(pretends(), "timed out");
    here(&crate::node::rules::forget_probes());
    assert_eq!(node.reaches(pod.addresses[0], 9001, 0), "connection refused");
}

#[test]
fn callers_are_cut_off_by_their_address() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    nft.apply(&pod.netns, Rules::Captured(A), &Guard::default()).unwrap();
    let mut talks: Vec<_> = pod.addresses.iter().map(|to| peer.connect(*to, PORT, 0).unwrap()).collect();
    let mut plain = peer.connect(pod.addresses[0], 8080, 0).unwrap();
    talks.iter_mut().chain([&mut plain]).for_each(|talk| _ = talk.greeting());
    let (all, ports) = (peer.addresses.iter().copied().collect(), [A.inbound, B.inbound]);
    assert_eq!(Sockets::callers(&pod.netns, &ports).unwrap(), all);
    assert_eq!(Sockets::end_callers(&pod.netns, &ports, &[peer.addresses[0]].into()).unwrap(), 1);
    let lives: Vec<_> = talks.iter_mut().map(|talk| talk.lives()).collect();
    assert_eq!((lives, plain.lives()), (vec![false, true], true));
    assert_eq!(Sockets::callers(&pod.netns, &ports).unwrap(), [peer.addresses[1]].into());
}

#[test]
fn plaintext_is_refused_before_the_redirection_is_ours_and_that_stays_as_it_is() {
    let Some(nft) = nft() else { return };
    let [pod, peer] = pods();
    let to = pod.addresses[0];
    nft.apply(&pod.netns, Rules::Captured(B), &guard(false, &[9001], &[])).unwrap();
    pod.serves(9001, "other app");
    nft.refuse(&pod.netns, &guard(true, &[9001], &[])).unwrap();
    assert_eq!(peer.reaches(to, 8080, 0), "connection refused");
    assert_eq!(peer.reaches(to, 9001, 0), "other app", "not any more");
    assert_eq!(
        (peer.reaches(to, PORT, 0), pod.reaches(peer.addresses[0], 9000, 0)),
        ("B in".into(), "B out".into())
    );
    assert_eq!([A, B].map(|slot| peer.reaches(to, slot.outbound, 0)), ["timed out"; 2]);
    // Also where somebody took the rules away.
    pod.nft("flush ruleset");
    nft.refuse(&pod.netns, &guard(true, &[], &[])).unwrap();
    assert_eq!(peer.reaches(to, 9001, 0), "connection refused");
}
