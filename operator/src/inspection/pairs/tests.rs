use meshwright_proto::reports::NodeProxy;

use super::*;

const MOVED: i64 = 900;

pub(crate) fn observed(node: &str, revision: &str, last_report: i64, slots: &[(i64, u64)]) -> ObservedNode {
    let slot = |&(start, requests)| PairSlot { start, requests, ..PairSlot::default() };
    let proxy = NodeProxy { node: node.to_owned(), revision: revision.to_owned(), ..NodeProxy::default() };
    let pair = Pair {
        source_namespace: "shop".to_owned(),
        source_workload: "front".to_owned(),
        destination_namespace: "shop".to_owned(),
        destination_service: "web".to_owned(),
        destination_port: 80,
        slots: slots.iter().map(slot).collect(),
    };
    ObservedNode { proxy: Some(proxy), last_report, pairs: vec![pair] }
}

fn requests(told: &Told, moved: Option<i64>) -> Vec<(i64, u64)> {
    let nodes = moved.map(|moved| ("n1".to_owned(), moved));
    let others = ["n1".to_owned()].into_iter().filter(|_| moved.is_none()).collect();
    let series = told.series("mesh-2", &nodes.into_iter().collect(), &others);
    series.iter().flat_map(|series| &series.slots).map(|slot| (slot.start, slot.requests)).collect()
}

#[test]
fn of_two_replicas_the_one_with_more_knows_a_slot_and_processes_of_an_agent_add_up() {
    let mut told = Told::default();
    told.add("mesh-1", vec![observed("n1", "mesh-1", 40, &[(0, 5), (30, 2)])]);
    told.add("mesh-1", vec![observed("n1", "mesh-1", 70, &[(30, 6), (60, 4)])]);
    told.add("mesh-1", vec![observed("n1", "mesh-1", 50, &[(30, 2)])]);
    assert_eq!(requests(&told, None), [(0, 5), (30, 6), (60, 4)]);
    assert_eq!(told.reported("n1", "mesh-1"), Some(70));
    let mut again = observed("n1", "mesh-1", 80, &[(60, 3), (61, 9)]);
    again.proxy.as_mut().unwrap().instance = "another".to_owned();
    told.add("mesh-1", vec![again]);
    assert_eq!(requests(&told, None), [(0, 5), (30, 6), (60, 7)], "what is no slot is left out");
}

#[test]
fn each_side_of_the_move_is_told_by_its_own_proxy() {
    let slots = [(840, 1), (870, 2), (900, 3), (930, 4)];
    let mut told = Told::default();
    told.add("mesh-1", vec![observed("n1", "mesh-1", 940, &slots)]);
    told.add("mesh-2", vec![observed("n1", "mesh-2", 940, &[(840, 10), (900, 30), (930, 40)])]);
    // What an earlier attempt counted is no past, and what ends at the old proxy later is not the new one's doing.
    assert_eq!(requests(&told, Some(MOVED)), [(840, 1), (870, 2), (900, 30), (930, 40)]);
    assert_eq!(requests(&told, None), slots, "who has not gone over");
    assert_eq!(told.series("mesh-2", &BTreeMap::new(), &BTreeSet::new()), [], "nobody looks at it");
}

#[test]
fn a_control_plane_tells_of_its_own_proxies_and_figures_that_cannot_be_can_be_summed_up() {
    let mut told = Told::default();
    told.add("mesh-2", vec![observed("n1", "mesh-1", 40, &[(0, 5)])]);
    assert_eq!(told, Told::default());
    for instance in ["a", "b"] {
        let mut node = observed("n1", "mesh-1", 40, &[(0, u64::MAX)]);
        node.proxy.as_mut().unwrap().instance = instance.to_owned();
        told.add("mesh-1", vec![node]);
    }
    assert_eq!(requests(&told, None), [(0, 2 * u64::from(u32::MAX))]);
}

#[test]
fn pairs_are_named_in_words() {
    let pair = observed("n1", "mesh-1", 0, &[]).pairs.remove(0);
    assert_eq!(name(&pair), "shop/front to shop/web:80");
    let direct = Pair { destination_service: String::new(), ..pair };
    assert_eq!(name(&direct), "shop/front to addresses of no Service");
    assert_eq!(name(&Pair::default()), "all other pairs");
}
