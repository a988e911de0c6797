use meshwright_proto::nodes::{CallerRule, PodPolicy};

use super::*;

const FRONT: &str = "spiffe://td/ns/shop/sa/front";
const CART: &str = "spiffe://td/ns/shop/sa/cart";

fn rule(ids: &[&str], ports: &[u32]) -> CallerRule {
    let ids = ids.iter().map(|&id| id.to_owned()).collect();
    CallerRule { ids, ports: ports.to_vec(), ..CallerRule::default() }
}

fn allow(rules: &[CallerRule]) -> Admission {
    Admission { limited: true, allow: rules.to_vec(), ..Admission::default() }
}

fn deny(rules: &[CallerRule]) -> Admission {
    Admission { deny: rules.to_vec(), ..Admission::default() }
}

fn order(admission: &Admission, callers: &[(&str, &str)]) -> NodeOrder {
    let (admission, version) = (Some(admission.clone()), "v".to_owned());
    let policy = PodPolicy { admission, version, ..PodPolicy::default() };
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
        [Some(FRONT), Some(CART), None].map(|id| is_refused(before, after, id, false))
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
fn a_port_where_requests_are_looked_at_is_connected_anew() {
    let open = Admission::default();
    let http = |ports: &[u32]| Admission { http_ports: ports.to_vec(), ..Admission::default() };
    let refused = |before: &Admission, after: &Admission| {
        [Some(FRONT), None].map(|id| is_refused(before, after, id, true))
    };
    assert_eq!(refused(&open, &http(&[8080])), [true; 2]);
    assert!(!is_refused(&open, &http(&[8080]), Some(FRONT), false), "the proxy may not have the rules yet");
    assert_eq!(refused(&http(&[8080]), &http(&[8080])), [false; 2]);
    assert_eq!(refused(&http(&[8080]), &http(&[8080, 80])), [true; 2]);
    assert_eq!(refused(&http(&[8080]), &open), [false; 2]);
    let before = deny(&[rule(&[FRONT], &[8080])]);
    assert_eq!(refused(&before, &http(&[8080])), [false, true], "who could not call the port is not there");
}

const UID: &str = "u";

/// Everything there is about one pod, and when.
struct One {
    all: Admissions,
    now: Instant,
    taken: bool,
    refused: bool,
    captured: bool,
}

impl One {
    fn new() -> Self {
        Self { all: Admissions::default(), now: Instant::now(), taken: true, refused: false, captured: true }
    }

    fn advance(&mut self, order: &NodeOrder) -> Option<Act> {
        let taken = self.taken;
        let captured = [UID.to_owned()].into_iter().filter(|_| self.captured).collect();
        let has_taken = |uid: &str, version: &str| taken && uid == UID && version == "v";
        let refused = self.refused;
        let has_refused = |uid: &str, version: &str| refused && uid == UID && version == "v";
        let (has_taken, has_refused, is_here) = (&has_taken, &has_refused, &|uid: &str| uid == UID);
        let scene = Scene { order, captured: &captured, is_here, has_taken, has_refused };
        self.all.advance(scene, self.now).pop().map(|(_, act)| act)
    }

    /// Whom a look ends of these callers; None if there is none now.
    fn look(&mut self, admission: &Admission, callers: &[(&str, &str)]) -> Option<BTreeSet<IpAddr>> {
        let told = order(admission, callers);
        if self.advance(&told) != Some(Act::Look) {
            return None;
        }
        let from: Vec<_> = callers.iter().map(|(address, _)| *address).collect();
        self.all.looked(UID, addresses(&from), self.now);
        let Some(Act::End(ended)) = self.advance(&told) else { panic!("it ends somebody, or nobody") };
        self.all.ended(UID, true, self.now);
        Some(ended)
    }
}

#[test]
fn a_change_is_carried_out_twice_and_what_was_there_at_first_never() {
    let mut one = One::new();
    let after = allow(&[rule(&[FRONT], &[])]);
    assert_eq!(one.advance(&order(&Admission::default(), &[])), None);
    for _ in 0..2 {
        assert_eq!(one.advance(&order(&after, &[])), Some(Act::Look));
        assert_eq!(one.advance(&order(&after, &[])), None, "it is under way");
        one.all.looked(UID, addresses(&["10.0.0.1", "10.0.0.2", "fd00::9"]), one.now);
        assert_eq!(one.all.asks(), ["10.0.0.1", "10.0.0.2", "fd00::9"]);
        assert_eq!(one.advance(&order(&after, &[("10.0.0.1", FRONT)])), None, "not everything was said");
        let told = order(&after, &[("10.0.0.1", FRONT), ("10.0.0.2", CART), ("fd00::9", "")]);
        assert_eq!(one.advance(&told), Some(Act::End(addresses(&["10.0.0.2", "fd00::9"]))));
        one.all.ended(UID, true, one.now);
        assert_eq!(one.advance(&told), None);
        one.now += AGAIN;
    }
    assert_eq!(one.advance(&order(&after, &[])), None);
    assert!(one.all.wakes().is_none() && one.all.asks().is_empty());
    assert_eq!(One::new().advance(&order(&after, &[])), None, "of a pod that comes");
}

#[test]
fn it_goes_on_until_the_proxy_has_the_rules_and_only_then_is_a_way_another() {
    let mut one = One::new();
    one.advance(&order(&Admission::default(), &[]));
    one.taken = false;
    let after = Admission { http_ports: vec![8080], ..deny(&[rule(&[CART], &[])]) };
    let callers = [("10.0.0.1", FRONT), ("10.0.0.2", CART)];
    for _ in 0..5 {
        assert_eq!(one.look(&after, &callers), Some(addresses(&["10.0.0.2"])));
        assert_eq!(one.look(&after, &callers), None);
        one.now += AGAIN;
    }
    one.taken = true;
    assert_eq!(one.look(&after, &callers), Some(addresses(&["10.0.0.1", "10.0.0.2"])));
    one.now += AGAIN;
    assert_eq!(one.look(&after, &callers), None, "that was the last one");
}

#[test]
fn rules_that_the_proxy_refuses_cut_nobody_off_and_those_before_them_are_not_forgotten() {
    let mut one = One::new();
    one.advance(&order(&Admission::default(), &[]));
    one.taken = false;
    let after = deny(&[rule(&[CART], &[])]);
    let callers = [("10.0.0.1", FRONT), ("10.0.0.2", CART)];
    assert_eq!(one.look(&after, &callers), Some(addresses(&["10.0.0.2"])), "nobody knows it yet");
    one.now += AGAIN;
    assert_eq!(one.advance(&order(&after, &callers)), Some(Act::Look));
    one.refused = true;
    one.all.looked(UID, addresses(&["10.0.0.2"]), one.now);
    for _ in 0..5 {
        assert_eq!(one.advance(&order(&after, &callers)), None);
        assert!(one.all.wakes().is_none() && one.all.asks().is_empty());
        one.now += AGAIN;
    }
    // Another Envoy takes them.
    (one.refused, one.taken) = (false, true);
    assert_eq!(one.look(&after, &callers), Some(addresses(&["10.0.0.2"])));
    one.now += AGAIN;
    assert_eq!(one.look(&after, &callers), None, "that was the last one");
    // Or the next rules are taken: what was admitted meanwhile was by those before.
    let mut one = One::new();
    one.advance(&order(&Admission::default(), &[]));
    (one.refused, one.taken) = (true, false);
    assert_eq!(one.look(&after, &callers), None);
    (one.refused, one.taken) = (false, true);
    let next = deny(&[rule(&[CART], &[]), rule(&[FRONT], &[])]);
    assert_eq!(one.look(&next, &callers), Some(addresses(&["10.0.0.1", "10.0.0.2"])));
}

#[test]
fn who_was_let_in_for_a_moment_is_cut_off_too() {
    let mut one = One::new();
    let (shut, open) = (deny(&[rule(&[CART], &[])]), Admission::default());
    one.advance(&order(&shut, &[]));
    one.advance(&order(&open, &[]));
    assert_eq!(one.look(&shut, &[("10.0.0.2", CART)]), Some(addresses(&["10.0.0.2"])));
    for number in 0..20 {
        one.advance(&order(&deny(&[rule(&[FRONT], &[number])]), &[]));
    }
    assert!(one.all.changes[UID].before.len() <= MOST);
}

#[test]
fn the_next_process_carries_out_what_this_one_did_not() {
    let shut = deny(&[rule(&[CART], &[])]);
    let callers = [("10.0.0.1", FRONT), ("10.0.0.2", CART)];
    let uids = [UID.to_owned()];
    let restored = |stored: Stored| {
        let mut one = One::new();
        one.all.restore(Some(stored), uids.iter());
        one
    };
    let unsaved = |one: &mut One| one.all.unsaved(&us(1)).map(|written| written.admitted);
    // It was changed while nobody ran, in the middle of a change, and not at all.
    let mut one = restored(Stored::new());
    assert_eq!(one.look(&shut, &callers), Some(addresses(&["10.0.0.2"])));
    let under_way = unsaved(&mut one).unwrap();
    assert_eq!(under_way, [(UID.to_owned(), vec![Admission::default(), shut.clone()])].into());
    assert!(unsaved(&mut one).is_none(), "once");
    let text = serde_json::to_string(&under_way).unwrap();
    let mut one = restored(serde_json::from_str(&text).unwrap());
    for _ in 0..2 {
        assert_eq!(one.look(&shut, &callers), Some(addresses(&["10.0.0.2"])));
        one.now += AGAIN;
    }
    let done = unsaved(&mut one).unwrap();
    assert_eq!(done, [(UID.to_owned(), vec![shut.clone()])].into());
    let mut one = restored(done.clone());
    assert_eq!(one.look(&shut, &callers), None);
    // It is not captured for a moment, as after another start of Envoy, and nothing of it is forgotten.
    let mut one = restored(done);
    one.captured = false;
    assert_eq!(one.advance(&order(&Admission::default(), &[])), None);
    one.captured = true;
    assert_eq!(one.look(&allow(&[]), &callers), Some(addresses(&["10.0.0.1"])));
    // Nobody is refused anything.
    let mut one = restored(Stored::new());
    assert_eq!(one.look(&Admission::default(), &callers), None);
    assert_eq!(unsaved(&mut one), Some(Stored::new()));
}

fn us(epoch: i64) -> Held {
    Held { revision: "us".to_owned(), epoch }
}

#[test]
fn who_is_connected_since_nobody_wrote_that_down_stays_and_every_epoch_has_its_file() {
    let mut one = One::new();
    one.all.restore(None, [UID.to_owned()].iter());
    let callers = [("10.0.0.1", FRONT), ("10.0.0.2", CART)];
    let shut = Admission { http_ports: vec![80], ..deny(&[rule(&[CART], &[])]) };
    assert_eq!(one.look(&shut, &callers), None);
    let written = one.all.unsaved(&us(1)).unwrap();
    assert_eq!((written.by, written.admitted.len()), (us(1), 1));
    assert_eq!(one.all.unsaved(&us(1)), None);
    let again = one.all.unsaved(&us(2)).unwrap();
    assert_eq!((again.by, again.admitted), (us(2), written.admitted), "or the next one does not believe it");
    assert_eq!(one.look(&allow(&[]), &callers), Some(addresses(&["10.0.0.1"])), "from now on it is known");
    let mut one = One::new();
    one.all.restore(None, [].iter());
    assert!(one.all.unsaved(&us(1)).unwrap().admitted.is_empty(), "also that there is nothing");
}

#[test]
fn pods_without_rules_write_nothing_down() {
    let (mut all, now) = (Admissions::default(), Instant::now());
    let shut = allow(&[]);
    let captured = |uids: &[&str]| uids.iter().map(|uid| (*uid).to_owned()).collect::<BTreeSet<_>>();
    let mut written = |uids: &[&str]| {
        let (captured, told) = (captured(uids), order(&shut, &[]));
        let is_here = |uid: &str| captured.contains(uid);
        let (is_here, has_taken, has_refused) =
            (&is_here, &|_: &str, _: &str| true, &|_: &str, _: &str| false);
        let scene = Scene { order: &told, captured: &captured, is_here, has_taken, has_refused };
        all.advance(scene, now);
        let written = all.unsaved(&us(1)).map(|written| written.admitted.into_keys().collect());
        // That failed.
        if uids.contains(&"fails") {
            all.is_unsaved();
        }
        written
    };
    assert_eq!(written(&[]), Some(captured(&[])), "the first time");
    for uids in [&["a"][..], &["a", "b"], &["b"], &[]] {
        assert_eq!(written(uids), None, "{uids:?}");
    }
    assert_eq!(written(&["a", UID]), Some(captured(&[UID])));
    assert_eq!(written(&[UID, "b"]), None);
    assert_eq!(written(&["fails"]), Some(captured(&[])));
    assert_eq!(written(&["fails"]), Some(captured(&[])), "again");
}

#[test]
fn without_an_answer_who_is_not_known_is_refused_and_what_failed_is_done_again() {
    let mut one = One::new();
    one.advance(&order(&Admission::default(), &[]));
    let after = order(&allow(&[rule(&[FRONT], &[])]), &[]);
    one.advance(&after);
    one.all.looked(UID, addresses(&["10.0.0.1"]), one.now);
    assert_eq!(one.advance(&after), None);
    assert_eq!(one.all.wakes(), Some(one.now + PATIENCE));
    one.now += PATIENCE;
    assert_eq!(one.advance(&after), Some(Act::End(addresses(&["10.0.0.1"]))));
    one.all.ended(UID, false, one.now);
    for _ in 0..3 {
        assert_eq!(one.advance(&after), None, "not at once");
        assert_eq!(one.all.wakes(), Some(one.now + AGAIN));
        one.now += AGAIN;
        assert_eq!(one.advance(&after), Some(Act::Look));
        one.all.ended(UID, false, one.now);
    }
    // None of these was a look.
    for _ in 0..2 {
        one.now += AGAIN;
        assert_eq!(one.advance(&after), Some(Act::Look));
        one.all.looked(UID, addresses(&[]), one.now);
        assert_eq!(one.advance(&after), Some(Act::End(addresses(&[]))));
        one.all.ended(UID, true, one.now);
    }
    assert_eq!(one.advance(&after), None);
    assert_eq!(one.all.wakes(), None);
}

#[test]
fn a_pod_that_leaves_in_the_middle_of_a_change_wakes_nobody() {
    let mut one = One::new();
    one.advance(&order(&Admission::default(), &[]));
    let after = order(&deny(&[rule(&[CART], &[])]), &[]);
    assert_eq!(one.advance(&after), Some(Act::Look));
    one.all.ended(UID, false, one.now);
    one.captured = false;
    one.advance(&after);
    assert_eq!(one.all.wakes(), None);
    one.now += AGAIN;
    one.captured = true;
    assert_eq!(one.advance(&after), Some(Act::Look), "it is back");
}
