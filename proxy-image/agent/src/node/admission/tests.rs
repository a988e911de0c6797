use meshwright_proto::nodes::PodPolicy;

use super::*;

const FRONT: &str = "spiffe://td/ns/shop/sa/front";
const CART: &str = "spiffe://td/ns/shop/sa/cart";

fn rule(ids: &[&str], ports: &[u32]) -> CallerRule {
    let ids = ids.iter().map(|&id| id.to_owned()).collect();
    CallerRule { ids, ports: ports.to_vec(), ..CallerRule::default() }
}

fn allow(rules: &[CallerRule]) -> Admission {
    Admission { limited: true, allow: rules.to_vec(), deny: Vec::new() }
}

fn deny(rules: &[CallerRule]) -> Admission {
    Admission { deny: rules.to_vec(), ..Admission::default() }
}

fn order(admission: &Admission, callers: &[(&str, &str)]) -> NodeOrder {
    let policy = PodPolicy { admission: Some(admission.clone()), ..PodPolicy::default() };
    NodeOrder {
        policies: [("u".to_owned(), policy)].into(),
        callers: callers.iter().map(|(address, id)| ((*address).to_owned(), (*id).to_owned())).collect(),
        ..NodeOrder::default()
    }
}

fn addresses(all: &[&str]) -> BTreeSet<IpAddr> {
    all.iter().map(|address| address.parse().unwrap()).collect()
}

#[test]
fn who_may_not_call_a_port_any_more_is_refused_and_nobody_else() {
    let open = Admission::default();
    let refused = |before: &Admission, after: &Admission| {
        [Some(FRONT), Some(CART), None].map(|id| is_refused(before, after, id))
    };
    assert_eq!(refused(&open, &open), [false; 3]);
    assert_eq!(refused(&open, &allow(&[])), [true; 3]);
    assert_eq!(refused(&open, &allow(&[rule(&[FRONT], &[])])), [false, true, true]);
    assert_eq!(refused(&allow(&[]), &open), [false; 3]);
    assert_eq!(refused(&open, &deny(&[rule(&[CART], &[3306])])), [false, true, true]);
    assert_eq!(refused(&deny(&[rule(&[CART], &[])]), &deny(&[rule(&[CART], &[3306])])), [false, false, true]);
    let below = CallerRule { below: vec!["spiffe://td/ns/shop/sa/".to_owned()], ..CallerRule::default() };
    assert_eq!(
        refused(&allow(std::slice::from_ref(&below)), &allow(&[rule(&[FRONT], &[])])),
        [false, true, true]
    );
    assert_eq!(
        refused(&allow(&[rule(&[FRONT], &[80])]), &allow(&[rule(&[FRONT], &[81]), below])),
        [false, false, true]
    );
    let everybody = CallerRule { everybody: true, ..CallerRule::default() };
    assert_eq!(refused(&open, &allow(std::slice::from_ref(&everybody))), [false; 3]);
    assert_eq!(refused(&open, &deny(&[CallerRule { ports: vec![80], ..everybody }])), [true; 3]);
}

#[test]
fn a_change_is_carried_out_twice_and_what_was_there_at_first_never() {
    let (mut all, now, uid) = (Admissions::default(), Instant::now(), "u".to_owned());
    let after = allow(&[rule(&[FRONT], &[])]);
    let advance = |all: &mut Admissions, order: &NodeOrder, now| all.advance(order, [&uid].into_iter(), now);
    assert_eq!(advance(&mut all, &order(&Admission::default(), &[]), now), []);
    for pass in [Duration::ZERO, AGAIN] {
        let now = now + pass;
        let look = [("u".to_owned(), Act::Look)];
        assert_eq!(advance(&mut all, &order(&after, &[]), now), look);
        assert_eq!(advance(&mut all, &order(&after, &[]), now), [], "it is under way");
        all.looked("u", addresses(&["10.0.0.1", "10.0.0.2", "fd00::9"]), now);
        assert_eq!(all.asks(), ["10.0.0.1", "10.0.0.2", "fd00::9"]);
        assert_eq!(
            advance(&mut all, &order(&after, &[("10.0.0.1", FRONT)]), now),
            [],
            "not everything was said"
        );
        let told = order(&after, &[("10.0.0.1", FRONT), ("10.0.0.2", CART), ("fd00::9", "")]);
        let end = Act::End(addresses(&["10.0.0.2", "fd00::9"]));
        assert_eq!(advance(&mut all, &told, now), [("u".to_owned(), end)]);
        all.ended("u", true);
        assert_eq!(advance(&mut all, &told, now), []);
    }
    assert!(all.wakes().is_none() && all.asks().is_empty());
    // Another process begins anew.
    let mut other = Admissions::default();
    assert_eq!(advance(&mut other, &order(&after, &[]), now), []);
}

#[test]
fn without_an_answer_who_is_not_known_is_refused_and_what_failed_is_done_again() {
    let (mut all, now, uid) = (Admissions::default(), Instant::now(), "u".to_owned());
    let advance = |order: &NodeOrder, now, all: &mut Admissions| all.advance(order, [&uid].into_iter(), now);
    advance(&order(&Admission::default(), &[]), now, &mut all);
    let after = allow(&[rule(&[FRONT], &[])]);
    advance(&order(&after, &[]), now, &mut all);
    all.looked("u", addresses(&["10.0.0.1"]), now);
    assert_eq!(all.wakes(), Some(now + PATIENCE));
    let end = [("u".to_owned(), Act::End(addresses(&["10.0.0.1"])))];
    assert_eq!(advance(&order(&after, &[]), now + PATIENCE, &mut all), end);
    all.ended("u", false);
    assert_eq!(advance(&order(&after, &[]), now + PATIENCE, &mut all), [("u".to_owned(), Act::Look)]);
}
