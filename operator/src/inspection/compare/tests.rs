use meshwright_proto::inspection::Part;
use proptest::prelude::*;

use super::*;

fn gateway(name: &str, parts: &[(Kind, &str, &str)]) -> RenderedGateway {
    let part = |(kind, name, hash): &(Kind, &str, &str)| Part {
        kind: *kind as i32,
        name: (*name).to_owned(),
        hash: (*hash).to_owned(),
    };
    RenderedGateway {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        parts: parts.iter().map(part).collect(),
    }
}

#[test]
fn the_lost_is_told_first_and_by_its_name() {
    let old = [gateway(
        "edge",
        &[
            (Kind::Cluster, "shop/cart:80", "1"),
            (Kind::Route, "shop.example.com /", "1"),
            (Kind::Route, "shop.example.com /cart", "1"),
            (Kind::Listener, "http", "1"),
        ],
    )];
    let new = [gateway(
        "edge",
        &[
            (Kind::Listener, "http", "1"),
            (Kind::Route, "shop.example.com /", "2"),
            (Kind::Cluster, "shop/news:80", "1"),
        ],
    )];
    let expected = Comparison {
        same: 1,
        changed: 1,
        gained: 1,
        lost: 2,
        examples: vec![
            "lost: route shop.example.com /cart of Gateway shop/edge".to_owned(),
            "lost: cluster shop/cart:80 of Gateway shop/edge".to_owned(),
            "changed: route shop.example.com / of Gateway shop/edge".to_owned(),
            "gained: cluster shop/news:80 of Gateway shop/edge".to_owned(),
        ],
    };
    assert_eq!(compare(&old, &new), expected);
}

#[test]
fn a_cluster_is_lost_though_the_routes_that_may_name_it_are_the_same() {
    let route = (Kind::Route, "* /", "1");
    let old = [gateway("edge", &[(Kind::Cluster, "shop/cart:80", "1"), route])];
    let compared = compare(&old, &[gateway("edge", &[route])]);
    assert_eq!((compared.lost, compared.same), (1, 1));
}

#[test]
fn a_whole_gateway_that_is_missing_is_a_loss_of_all_its_parts() {
    let old = [gateway("edge", &[(Kind::Listener, "http", "1"), (Kind::Route, "* /", "1")])];
    assert_eq!(compare(&old, &[gateway("other", &[])]).lost, 2);
}

#[test]
fn one_of_two_routes_with_the_same_match_is_not_lost_silently() {
    let one = gateway("edge", &[(Kind::Route, "* /", "1")]);
    let two = gateway("edge", &[(Kind::Route, "* /", "1"), (Kind::Route, "* /", "1")]);
    let compared = compare(&[two], &[one]);
    assert_eq!((compared.same, compared.lost), (1, 1));
}

#[test]
fn a_status_holds_a_few_examples_of_a_bounded_length() {
    let names: Vec<String> = (0..50).map(|n| format!("* /{n}{}", "é".repeat(1000))).collect();
    let parts: Vec<_> = names.iter().map(|name| (Kind::Route, name.as_str(), "1")).collect();
    let compared = compare(&[gateway("edge", &parts)], &[]);
    assert_eq!((compared.lost, compared.examples.len()), (50, EXAMPLES));
    assert!(compared.examples.iter().all(|e| e.chars().count() < LONGEST + 60));
}

fn rendered() -> impl Strategy<Value = Vec<RenderedGateway>> {
    let part = (0..4i32, "[ab]", "[12]").prop_map(|(kind, name, hash)| Part { kind, name, hash });
    let gateway = ("[ab]", prop::collection::vec(part, 0..8)).prop_map(|(name, parts)| RenderedGateway {
        namespace: "shop".to_owned(),
        name,
        parts,
    });
    prop::collection::vec(gateway, 0..3)
}

fn size(gateways: &[RenderedGateway]) -> i32 {
    gateways.iter().map(|g| g.parts.len() as i32).sum()
}

proptest! {
    #[test]
    fn nothing_differs_from_itself_in_any_order(all in rendered()) {
        let turned: Vec<_> = all.iter().rev().map(|g| RenderedGateway {
            parts: g.parts.iter().rev().cloned().collect(),
            ..g.clone()
        }).collect();
        let compared = compare(&all, &turned);
        prop_assert_eq!(compared, Comparison { same: size(&all), ..Comparison::default() });
    }

    #[test]
    fn what_one_way_loses_the_other_way_gains(old in rendered(), new in rendered()) {
        let (there, back) = (compare(&old, &new), compare(&new, &old));
        prop_assert_eq!((there.same, there.changed, there.lost), (back.same, back.changed, back.gained));
        prop_assert_eq!(there.gained, back.lost);
    }

    #[test]
    fn every_part_is_counted_once(old in rendered(), new in rendered()) {
        let compared = compare(&old, &new);
        prop_assert_eq!(compared.same + compared.changed + compared.lost, size(&old));
        prop_assert_eq!(compared.same + compared.changed + compared.gained, size(&new));
    }
}
