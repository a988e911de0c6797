//! Nodes that go over in waves.

use meshwright_api::{MeshPod, Standby};

use super::*;

fn in_wave(canary: Option<&str>, asked: Option<i32>, measured: bool) -> UpgradeStatus {
    let mut position = position("ShiftNodes", measured);
    let canary = canary.map(str::to_owned);
    position.nodes = Some(NodeShift { canary, asked, ..NodeShift::default() });
    position
}

/// Nodes `a`, `b`, … of the old revision, each with so many pods of the mesh.
fn cluster(pods: &[usize]) -> There {
    let names: Vec<String> = (b'a'..).take(pods.len()).map(|c| char::from(c).to_string()).collect();
    let mesh_nodes = names.iter().zip(pods).map(|(name, count)| {
        let mut node = mesh_node(name, (OLD, 7), Some((OLD, 7)));
        let pod = |n: usize| MeshPod { uid: format!("{name}{n}"), addresses: Vec::new() };
        node.status.as_mut().unwrap().pods = (0..*count).map(pod).collect();
        node
    });
    let nodes: Vec<(&str, bool)> = names.iter().map(|name| (name.as_str(), true)).collect();
    there(&nodes, mesh_nodes.collect())
}

fn ready(there: &There) -> Vec<Pod> {
    let both = |node: &String| [pod(node, OLD, true), pod(node, NEW, true)];
    there.nodes.keys().flat_map(both).collect()
}

fn look(position: &UpgradeStatus, there: &There, pods: &[Pod]) -> crate::upgrade::machine::Waves {
    Wave::of(position).look(there, &Proxies::new(pods))
}

/// Names of the nodes that change hands now.
fn given(position: &UpgradeStatus, there: &There, pods: &[Pod]) -> Vec<String> {
    let wave = Server::Wave(Wave::of(position));
    let changes = assign(there, &Proxies::new(pods), wave, at(0));
    let names = changes.into_iter().map(|change| match change {
        Change::Give(node, spec) => format!("{} to {}", node.name_any(), spec.revision),
        Change::Create(node, spec) => format!("{node} new to {}", spec.revision),
        Change::Delete(node) => format!("{} gone", node.name_any()),
    });
    names.collect()
}

#[test]
fn it_begins_on_a_node_with_pods_of_the_mesh_but_not_on_the_fullest() {
    let begins = |pods: &[usize], change: fn(&mut There)| {
        let mut there = cluster(pods);
        change(&mut there);
        let pods = ready(&there);
        look(&in_wave(None, None, false), &there, &pods).candidate
    };
    assert_eq!(begins(&[9, 4, 0, 1], |_| {}).as_deref(), Some("b"));
    assert_eq!(begins(&[9, 4], |_| {}).as_deref(), Some("b"));
    assert!(begins(&[0, 0], |_| {}).is_some(), "there is no better one");
    let of_kubernetes: fn(&mut There) = |there| {
        there.nodes.get_mut("b").unwrap().control_plane = true;
    };
    assert_eq!(begins(&[9, 4, 0, 1], of_kubernetes).as_deref(), Some("d"));
    let away: fn(&mut There) = |there| there.nodes.get_mut("b").unwrap().ready = false;
    assert_eq!(begins(&[9, 4, 0, 1], away).as_deref(), Some("d"));
    assert_eq!(begins(&[], |_| {}), None);
    let there = cluster(&[1, 1]);
    assert_eq!(
        look(&in_wave(None, None, false), &there, &[]).candidate,
        None,
        "none of their proxies is ready"
    );
}

#[test]
fn the_first_node_goes_alone_and_only_when_its_new_proxy_is_ready() {
    let there = cluster(&[1, 1, 1]);
    let pods = ready(&there);
    let (nobody, first) = (in_wave(None, Some(0), false), in_wave(Some("b"), Some(1), false));
    assert_eq!(given(&nobody, &there, &pods), Vec::<String>::new());
    assert_eq!(given(&first, &there, &pods), ["b to mesh-2"]);
    let without: Vec<Pod> = pods.iter().filter(|p| p.name_any() != "mesh-2-b").cloned().collect();
    assert_eq!(given(&first, &there, &without), Vec::<String>::new(), "no other goes in its place");
    let waiting = look(&first, &there, &without).waiting.unwrap();
    assert!(waiting.ends_with("b (its proxy is not ready)"), "{waiting}");
    let mut gone = there.clone();
    gone.nodes.remove("b");
    gone.mesh_nodes.remove("b");
    assert_eq!(given(&first, &gone, &pods), Vec::<String>::new(), "another one has to be chosen first");
    assert!(!look(&first, &gone, &pods).canary_is_there);
}

#[test]
fn a_node_waits_until_every_pod_of_it_could_go_over() {
    let mut there = cluster(&[1, 1]);
    let pods = ready(&there);
    let first = in_wave(Some("b"), Some(1), false);
    let standby = |there: &mut There, standby: Option<Standby>| {
        there.mesh_nodes.get_mut("b").unwrap().status.as_mut().unwrap().standby = standby;
    };
    let waits = Standby { revision: NEW.to_owned(), waiting: Some("pod shop/cart: no".to_owned()) };
    for said in [None, Some(waits), Some(Standby { revision: "mesh-0".to_owned(), waiting: None })] {
        standby(&mut there, said);
        assert_eq!(given(&first, &there, &pods), Vec::<String>::new());
        let chosen = look(&in_wave(None, None, false), &there, &pods).candidate;
        assert_eq!(chosen.as_deref(), Some("a"), "another one could");
    }
    let waits = Standby { revision: NEW.to_owned(), waiting: Some("pod shop/cart: no".to_owned()) };
    standby(&mut there, Some(waits));
    assert!(look(&first, &there, &pods).waiting.unwrap().ends_with("b (pod shop/cart: no)"));
    standby(&mut there, Some(Standby { revision: NEW.to_owned(), waiting: None }));
    assert_eq!(given(&first, &there, &pods), ["b to mesh-2"]);
}

#[test]
fn a_wave_takes_as_many_as_it_asks_for_and_leaves_what_is_measured_alone() {
    let mut there = cluster(&[1, 1, 1, 1, 1]);
    there.mesh_nodes.insert("b".to_owned(), mesh_node("b", (NEW, 8), Some((NEW, 8))));
    let pods = ready(&there);
    let more = given(&in_wave(Some("b"), Some(3), false), &there, &pods);
    assert_eq!(more.len(), 2);
    assert_eq!(given(&in_wave(Some("b"), Some(3), true), &there, &pods), Vec::<String>::new());
    assert_eq!(given(&in_wave(Some("b"), None, false), &there, &pods).len(), 4);
    let waves = look(&in_wave(Some("b"), Some(3), false), &there, &pods);
    assert_eq!((waves.able, waves.served), (5, 1));
    assert!(waves.waiting.unwrap().starts_with("revision mesh-2 to serve 2 more of 3 nodes"));
    assert_eq!(look(&in_wave(Some("b"), Some(1), true), &there, &pods).waiting, None);
    // One that comes in the middle is the old revision's, and in the last wave the new one's.
    there.nodes.insert("n".to_owned(), Node { ready: true, since: at(0), control_plane: false });
    assert_eq!(given(&in_wave(Some("b"), Some(1), true), &there, &pods), ["n new to mesh-1"]);
    assert!(given(&in_wave(Some("b"), None, true), &there, &pods).contains(&"n new to mesh-2".to_owned()));
}

#[test]
fn another_node_goes_in_place_of_one_that_answers_no_more() {
    let mut there = cluster(&[1, 1, 1]);
    there.mesh_nodes.insert("b".to_owned(), mesh_node("b", (NEW, 8), Some((NEW, 8))));
    there.nodes.get_mut("b").unwrap().ready = false;
    let pods = ready(&there);
    let first = in_wave(Some("b"), Some(1), false);
    let waves = look(&first, &there, &pods);
    assert_eq!((waves.able, waves.served, waves.canary_is_there, waves.asleep), (2, 0, false, true));
    let candidate = waves.candidate.unwrap();
    let anew = in_wave(Some(&candidate), Some(1), false);
    assert_eq!(given(&anew, &there, &pods), [format!("{candidate} to mesh-2")]);
    there.nodes.get_mut("b").unwrap().ready = true;
    assert_eq!(given(&in_wave(Some(&candidate), Some(2), false), &there, &pods).len(), 1, "b is there again");
}

#[test]
fn what_nobody_serves_is_passed_over_and_what_only_the_old_one_serves_is_waited_for() {
    let mut there = cluster(&[1, 1, 1, 1]);
    there.nodes.get_mut("d").unwrap().ready = false;
    let pods = [
        pod("a", OLD, true),
        pod("a", NEW, true),
        pod("b", OLD, true),
        pod("b", NEW, false),
        pod("c", OLD, false),
    ];
    let waves = look(&in_wave(Some("a"), None, false), &there, &pods);
    assert_eq!(waves.able, 2);
    let passed: Vec<(&str, &str)> =
        waves.passed_over.iter().map(|p| (p.node.as_str(), p.reason.as_str())).collect();
    assert_eq!(passed, [("c", "no node proxy is scheduled there"), ("d", "the node is not ready")]);
    assert!(waves.waiting.unwrap().contains("b (its proxy is not ready)"));
}

#[test]
fn a_node_whose_kubelet_starts_nothing_holds_no_first_release_up() {
    let there = cluster(&[0, 0]);
    let between = Between { from: None, to: NEW };
    let run = json!([{"name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 1}]);
    let mut starts = pod("b", NEW, false);
    starts.status.as_mut().unwrap().container_statuses = serde_json::from_value(run).unwrap();
    let passed = |pods: &[Pod]| between.passed_over(&there, &Proxies::new(pods)).len();
    assert_eq!(passed(&[pod("a", NEW, true), pod("b", NEW, false)]), 1);
    assert_eq!(passed(&[pod("a", NEW, true), starts]), 0, "it crashes");
    assert_eq!(passed(&[pod("a", NEW, false), pod("b", NEW, false)]), 0, "it starts nowhere");
}

/// What may happen between two looks.
#[derive(Debug, Clone)]
enum Happens {
    Joins(u8),
    Goes(u8),
    NodeReady(u8, bool),
    Proxy(u8, bool, bool),
    Serves(u8),
    Wave(Option<i32>),
    Measured(bool),
    Looks,
}

fn happenings() -> impl Strategy<Value = Vec<Happens>> {
    let n = 0..6u8;
    let one = prop_oneof![
        n.clone().prop_map(Happens::Joins),
        n.clone().prop_map(Happens::Goes),
        (n.clone(), any::<bool>()).prop_map(|(n, r)| Happens::NodeReady(n, r)),
        (n.clone(), any::<bool>(), any::<bool>()).prop_map(|(n, new, r)| Happens::Proxy(n, new, r)),
        n.prop_map(Happens::Serves),
        prop::option::of(1..6i32).prop_map(Happens::Wave),
        any::<bool>().prop_map(Happens::Measured),
        Just(Happens::Looks),
    ];
    prop::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn a_wave_never_gives_more_than_it_asks_for_and_no_node_to_who_is_not_ready(events in happenings()) {
        let name = |n: u8| char::from(b'a' + n % 6).to_string();
        let mut there = cluster(&[1, 2, 3]);
        let mut proxies: BTreeMap<(String, &str), bool> = BTreeMap::new();
        let mut at_wave = in_wave(None, Some(0), false);
        for event in events {
            match event {
                Happens::Joins(n) => {
                    let node = Node { ready: true, since: at(0), control_plane: false };
                    there.nodes.entry(name(n)).or_insert(node);
                }
                Happens::Goes(n) => drop(there.nodes.remove(&name(n))),
                Happens::NodeReady(n, ready) => {
                    there.nodes.entry(name(n)).and_modify(|node| node.ready = ready);
                }
                Happens::Proxy(n, new, ready) => drop(proxies.insert((name(n), if new { NEW } else { OLD }), ready)),
                Happens::Serves(n) => {
                    if let Some(node) = there.mesh_nodes.get_mut(&name(n)) {
                        let MeshNodeSpec { revision, epoch } = node.spec.clone();
                        let standby = Some(Standby { revision: NEW.to_owned(), waiting: None });
                        node.status = Some(MeshNodeStatus { revision, epoch, standby, ..MeshNodeStatus::default() });
                    }
                }
                Happens::Wave(asked) => at_wave.nodes.as_mut().unwrap().asked = asked,
                Happens::Measured(is) => at_wave.measured_since = is.then(|| at_wave.started.clone()),
                Happens::Looks => {}
            }
            let pods: Vec<Pod> = proxies.iter().map(|((node, r), ready)| pod(node, r, *ready)).collect();
            let seen = Proxies::new(&pods);
            let nodes = at_wave.nodes.as_mut().unwrap();
            if nodes.canary.is_none() || !Wave::of(&at_wave).look(&there, &seen).canary_is_there {
                let candidate = Wave::of(&at_wave).look(&there, &seen).candidate;
                at_wave.nodes.as_mut().unwrap().canary = candidate;
            }
            let between = Between { from: Some(OLD), to: NEW };
            let had = |there: &There| between.able(there, &seen).filter(|n| there.is_given(n, NEW)).count();
            let (before, before_nodes) = (had(&there), there.clone());
            let wave = Server::Wave(Wave::of(&at_wave));
            // The first node goes in a look of its own.
            for _ in 0..2 {
                for change in assign(&there, &seen, wave, at(1)) {
                    match change {
                        Change::Create(node, spec) => {
                            there.mesh_nodes.insert(node.clone(), mesh_node(&node, (&spec.revision, spec.epoch), None));
                        }
                        Change::Give(node, spec) => {
                            let is_ready = |r| seen.is_ready(&node.name_any(), r);
                            prop_assert!(is_ready(&spec.revision) || !is_ready(&node.spec.revision) || spec.revision == node.spec.revision);
                            there.mesh_nodes.get_mut(&node.name_any()).unwrap().spec = spec;
                        }
                        Change::Delete(node) => drop(there.mesh_nodes.remove(&node.name_any())),
                    }
                }
            }
            prop_assert_eq!(assign(&there, &seen, wave, at(1)), Vec::new(), "it does not settle");
            let (after, asked) = (had(&there), at_wave.nodes.as_ref().unwrap().asked);
            prop_assert!(asked.is_none_or(|asked| after <= before.max(usize::try_from(asked).unwrap())));
            prop_assert!(asked.is_none() || at_wave.measured_since.is_none() || after <= before, "what is measured moves");
            // Who has gone over stays there.
            for node in there.nodes.keys().filter(|n| before_nodes.is_given(n, NEW)) {
                prop_assert!(there.is_given(node, NEW), "{} went back", node);
            }
            // The first goes before all others.
            let canary = at_wave.nodes.as_ref().unwrap().canary.clone();
            let alone = before == 0 && after > 0 && asked.is_some();
            prop_assert!(!alone || canary.is_some_and(|c| there.is_given(&c, NEW)));
        }
    }
}
