use proptest::prelude::*;

use super::*;

const ALL: Seen =
    Seen { wanted: true, serves: true, certified: true, opened: true, told: true, leaves: false };
const SECOND: Duration = Duration::from_secs(1);

fn start() -> Instant {
    Instant::now()
}

/// Does every job at once until none is left, and returns them.
fn drive(pod: &mut Pod, seen: Seen, now: Instant) -> Vec<Job> {
    let mut done = Vec::new();
    while let Some(job) = pod.step(seen, now) {
        done.push(job.0);
        pod.ended(job, Ok(0), now);
    }
    done
}

fn captured(now: Instant) -> Pod {
    let mut pod = Pod::new(now);
    pod.found("/n/1".into(), now);
    assert_eq!(drive(&mut pod, ALL, now), [Job::AwaitListeners, Job::Redirect]);
    assert!(pod.is_captured());
    pod
}

#[test]
fn a_pod_is_redirected_when_everything_else_stands_and_not_before() {
    let now = start();
    let mut pod = Pod::new(now);
    assert_eq!(drive(&mut pod, ALL, now), []);
    pod.found("/n/1".into(), now);
    for missing in [Seen { certified: false, ..ALL }, Seen { opened: false, ..ALL }] {
        assert_eq!(drive(&mut pod, missing, now), []);
        assert_eq!(pod.listens_in(), Some(&"/n/1".into()), "envoy is to open its listeners meanwhile");
    }
    assert_eq!(drive(&mut pod, Seen { serves: false, ..ALL }, now), [Job::AwaitListeners, Job::Try]);
    assert!(pod.is_open() && pod.is_prepared() && !pod.is_redirected());
    assert_eq!(drive(&mut pod, ALL, now), [Job::Redirect]);
    assert!(pod.is_captured() && pod.is_redirected());
}

#[test]
fn a_handshake_that_fails_keeps_nobody_who_has_to_serve() {
    let now = start();
    let mut pod = Pod::new(now);
    pod.found("/n/1".into(), now);
    let stands_by = Seen { serves: false, ..ALL };
    let job = pod.step(stands_by, now).unwrap();
    pod.ended(job, Ok(0), now);
    let job = pod.step(stands_by, now).unwrap();
    assert_eq!(job.0, Job::Try);
    pod.ended(job, Err("no".to_owned()), now);
    assert!(!pod.is_prepared() && pod.why(stands_by).contains("(no)"));
    assert_eq!(pod.step(stands_by, now), None, "not at once");
    assert_eq!(pod.step(ALL, now).unwrap().0, Job::Redirect);
    assert!(pod.is_arriving(), "it is waited for");
}

#[test]
fn a_pod_that_waits_for_others_wakes_nobody() {
    let now = start();
    let mut pod = Pod::new(now);
    let wakes = |pod: &mut Pod, seen: Seen, at: Instant| {
        drive(pod, seen, at);
        pod.wakes()
    };
    assert_eq!(wakes(&mut pod, ALL, now), None, "its namespace");
    pod.found("/n/1".into(), now);
    assert_eq!(wakes(&mut pod, Seen { opened: false, ..ALL }, now), None, "envoy");
    assert_eq!(wakes(&mut pod, Seen { serves: false, ..ALL }, now), None, "the node");
    assert!(wakes(&mut pod, ALL, now).is_some_and(|wakes| wakes > now + CHECK / 2), "its rules");
    let out = Seen { wanted: false, ..ALL };
    assert_eq!(wakes(&mut pod, Seen { told: false, ..out }, now), Some(now + UNTOLD), "the control plane");
    assert_eq!(wakes(&mut pod, out, now), Some(now + GRACE), "who sends to it");
    let job = pod.step(out, now + GRACE).unwrap();
    assert_eq!(pod.wakes(), None, "what is under way");
    pod.ended(job, Ok(0), now + GRACE);
    let job = pod.step(out, now + GRACE).unwrap();
    pod.ended(job, Ok(7), now + GRACE);
    assert_eq!(pod.step(out, now + GRACE), None);
    assert_eq!(pod.wakes(), Some(now + GRACE + COUNT), "its connections");
}

#[test]
fn a_job_that_is_not_done_is_tried_again_later() {
    let now = start();
    let mut pod = Pod::new(now);
    pod.found("/n/1".into(), now);
    let job = pod.step(ALL, now).unwrap();
    assert_eq!(pod.step(ALL, now), None, "one at a time");
    pod.ended(job, Ok(1), now);
    assert_eq!(pod.step(ALL, now), None);
    let again = pod.step(ALL, now + SECOND).unwrap();
    assert_eq!(again.0, Job::AwaitListeners);
    pod.ended(again, Err("no such thing".to_owned()), now + SECOND);
    assert!(pod.why(ALL).contains("no such thing"));
    assert!(!pod.is_arriving(), "nobody need wait for it");
    assert_eq!(drive(&mut pod, ALL, now + 20 * SECOND), [Job::AwaitListeners, Job::Redirect]);
    assert!(!pod.why(ALL).contains("no such thing"));
}

#[test]
fn rules_are_looked_at_now_and_then_and_trouble_with_that_takes_no_pod_out() {
    let now = start();
    let mut pod = captured(now);
    assert_eq!(pod.step(ALL, now + CHECK / 2), None);
    let late = now + CHECK * 5 / 4;
    let job = pod.step(ALL, late).unwrap();
    assert_eq!(job.0, Job::Check);
    pod.ended(job, Err("nft".to_owned()), late);
    assert!(pod.is_captured());
    assert_eq!(drive(&mut pod, ALL, late + 11 * SECOND), [Job::Check]);
    assert!(drive(&mut pod, Seen { certified: false, opened: false, ..ALL }, late + 12 * SECOND).is_empty());
    assert!(pod.is_captured(), "envoy starts again, a certificate is late: neither is a reason");
}

#[test]
fn plaintext_is_refused_when_that_is_said_what_is_connected_ends_later_and_who_leaves_takes_it_at_once() {
    let now = start();
    let mut pod = captured(now);
    let strict = Guard { refused: true, ..Guard::default() };
    pod.guards(&strict, now);
    let job = pod.step(ALL, now).unwrap();
    assert_eq!(job.0, Job::Guard);
    pod.ended(job, Err("nft".to_owned()), now);
    assert_eq!(drive(&mut pod, ALL, now + SECOND), [Job::Guard], "it is not refused yet");
    let cut = now + SECOND + NOTICE;
    assert_eq!(drive(&mut pod, ALL, cut - SECOND), []);
    assert_eq!(pod.wakes(), Some(cut));
    assert_eq!(drive(&mut pod, ALL, cut), [Job::Cut]);
    assert_eq!(drive(&mut pod, ALL, cut + NOTICE), []);
    let check = cut + CHECK * 5 / 4;
    assert_eq!(drive(&mut pod, ALL, check), [Job::Check, Job::Cut], "now and then it is looked at again");
    let cut = check;
    // Envoy away, another process for us, the node of another revision: nobody lets plaintext in.
    let away = Seen { certified: false, opened: false, ..ALL };
    assert_eq!(drive(&mut pod, away, cut + NOTICE), []);
    let mut next = Pod::new(cut);
    next.restore("/n/1".into(), [15101, 15108], cut);
    next.guards(&strict, cut);
    let job = next.step(away, cut).unwrap();
    assert_eq!(job.0, Job::Refuse, "whatever the rules say that are there, before anybody has a certificate");
    next.ended(job, Err("nft".to_owned()), cut);
    assert_eq!(drive(&mut next, away, cut + SECOND), [Job::Refuse]);
    assert_eq!(drive(&mut next, away, cut + SECOND), []);
    let other = Seen { serves: false, ..away };
    let mut standby = Pod::new(cut);
    standby.restore("/n/1".into(), [15101, 15108], cut);
    standby.guards(&strict, cut);
    assert_eq!(drive(&mut standby, other, cut), [], "who serves has the rules");
    let cut = cut + SECOND;
    assert_eq!(drive(&mut next, ALL, cut), [Job::AwaitListeners, Job::Redirect]);
    assert_eq!(drive(&mut next, ALL, cut + NOTICE), [Job::Cut]);
    // Senders hear that it leaves before its rules go.
    let out = Seen { wanted: false, ..ALL };
    let late = cut + NOTICE;
    pod.guards(&Guard::default(), late);
    assert_eq!(drive(&mut pod, out, late), [Job::Refuse]);
    assert_eq!(drive(&mut pod, out, late + GRACE), [Job::Part, Job::Count, Job::AwaitClosed, Job::Clear]);
}

#[test]
fn what_changes_while_something_is_done_is_done_next() {
    let (now, strict) = (start(), Guard { refused: true, ..Guard::default() });
    let mut pod = Pod::new(now);
    pod.found("/n/1".into(), now);
    let listens = pod.step(ALL, now).unwrap();
    pod.ended(listens, Ok(0), now);
    for (job, guard) in [(Job::Redirect, &strict), (Job::Guard, &Guard::default()), (Job::Guard, &strict)] {
        let under_way = pod.step(ALL, now).unwrap();
        assert_eq!(under_way.0, job);
        pod.guards(guard, now);
        pod.ended(under_way, Ok(0), now);
    }
    assert_eq!(drive(&mut pod, ALL, now), [Job::Guard]);
    assert_eq!(pod.wakes(), Some(now + NOTICE), "and then what is connected ends");
}

#[test]
fn what_is_refused_ends_also_while_neither_envoy_nor_a_certificate_comes() {
    let now = start();
    let away = Seen { certified: false, opened: false, ..ALL };
    let strict = Guard { refused: true, ..Guard::default() };
    let restored = || {
        let mut pod = Pod::new(now);
        pod.restore("/n/1".into(), [15101, 15108], now);
        pod
    };
    assert_eq!(drive(&mut restored(), away, now), [Job::Refuse], "it may have ended while nobody ran");
    for out in [false, true] {
        let mut pod = restored();
        pod.guards(&strict, now);
        assert_eq!(drive(&mut pod, away, now), [Job::Refuse]);
        pod.guards(&Guard::default(), now);
        let seen = Seen { wanted: !out, ..away };
        assert_eq!(drive(&mut pod, seen, now), [Job::Refuse], "out: {out}");
        assert_eq!(drive(&mut pod, seen, now + SECOND), [], "out: {out}");
    }
    // Its redirection could not be set, so nothing is refused yet when Envoy goes.
    let mut pod = Pod::new(now);
    pod.found("/n/1".into(), now);
    pod.guards(&strict, now);
    for expected in [Job::AwaitListeners, Job::Redirect] {
        let job = pod.step(ALL, now).unwrap();
        assert_eq!(job.0, expected);
        let outcome = if expected == Job::Redirect { Err("nft".to_owned()) } else { Ok(0) };
        pod.ended(job, outcome, now);
    }
    assert_eq!(drive(&mut pod, away, now + SECOND), [Job::Refuse]);
}

#[test]
fn a_pod_leaves_step_by_step() {
    let now = start();
    let mut pod = captured(now);
    let out = Seen { wanted: false, ..ALL };
    assert_eq!(drive(&mut pod, Seen { told: false, ..out }, now), []);
    assert!(!pod.is_captured() && pod.listens_in().is_some());
    assert_eq!(
        drive(&mut pod, Seen { told: false, ..out }, now + 30 * SECOND),
        [],
        "senders do not know yet"
    );
    assert_eq!(drive(&mut pod, out, now + 30 * SECOND), []);
    assert_eq!(drive(&mut pod, out, now + 30 * SECOND + GRACE / 2), []);
    let parted = now + 30 * SECOND + GRACE;
    let job = pod.step(out, parted).unwrap();
    assert_eq!(job.0, Job::Part);
    pod.ended(job, Ok(0), parted);
    let job = pod.step(out, parted).unwrap();
    assert_eq!(job.0, Job::Count);
    pod.ended(job, Ok(3), parted);
    assert_eq!(pod.step(out, parted), None, "three connections are left");
    assert!(pod.listens_in().is_some() && pod.is_redirected());
    let job = pod.step(out, parted + COUNT).unwrap();
    pod.ended(job, Ok(0), parted + COUNT);
    assert_eq!(pod.listens_in(), None);
    let job = pod.step(out, parted + COUNT).unwrap();
    assert_eq!(job.0, Job::AwaitClosed);
    pod.ended(job, Ok(0), parted + COUNT);
    assert_eq!(drive(&mut pod, out, parted + COUNT), [Job::Clear]);
    assert!(pod.is_gone() && !pod.is_redirected());
}

#[test]
fn while_nobody_says_that_it_is_listed_no_more_a_pod_is_left_alone_and_listened_for() {
    let now = start();
    let untold = Seen { wanted: false, told: false, ..ALL };
    let parted = |pod: &mut Pod| {
        assert_eq!(drive(pod, untold, now), []);
        assert_eq!(drive(pod, untold, now + UNTOLD - SECOND), []);
        assert_eq!(drive(pod, untold, now + UNTOLD), [Job::Part]);
        assert_eq!(drive(pod, untold, now + 2 * PARTING), [], "somebody may send to it");
        assert!(pod.listens_in().is_some() && pod.is_redirected());
        assert_eq!(pod.wakes(), None);
        now + 2 * PARTING
    };
    let mut pod = captured(now);
    let late = parted(&mut pod);
    let told = Seen { told: true, ..untold };
    assert_eq!(drive(&mut pod, told, late), []);
    assert_eq!(pod.wakes(), Some(late + GRACE));
    assert_eq!(drive(&mut pod, untold, late + GRACE / 2), [], "it is listed again");
    let late = late + GRACE;
    assert_eq!(drive(&mut pod, told, late), []);
    assert_eq!(drive(&mut pod, told, late + GRACE), [Job::AwaitClosed, Job::Clear]);
    assert!(pod.is_gone());

    let mut pod = captured(now);
    let late = parted(&mut pod);
    assert_eq!(drive(&mut pod, Seen { leaves: true, ..untold }, late), [Job::AwaitClosed, Job::Clear]);

    let mut pod = captured(now);
    let late = parted(&mut pod);
    pod.give_up();
    assert_eq!(drive(&mut pod, untold, late), [Job::Clear]);
}

#[test]
fn connections_that_never_end_do_not_keep_a_pod_for_ever() {
    let now = start();
    let mut pod = captured(now);
    let out = Seen { wanted: false, ..ALL };
    assert_eq!(drive(&mut pod, out, now), []);
    let parted = now + GRACE;
    let job = pod.step(out, parted).unwrap();
    pod.ended(job, Ok(0), parted);
    let mut time = parted;
    while !pod.is_gone() {
        if let Some(job) = pod.step(out, time) {
            let left = usize::from(job.0 == Job::Count);
            pod.ended(job, Ok(left), time);
        }
        time += COUNT;
        assert!(time < parted + PARTING + 2 * CLOSING + 10 * COUNT, "never gone");
    }
    assert!(time > parted + PARTING);
}

#[test]
fn a_pod_that_comes_back_while_it_leaves_is_captured_again() {
    let out = Seen { wanted: false, ..ALL };
    for seconds in [0, 5, 11, 12, 13, 20] {
        let now = start();
        let mut pod = captured(now);
        for second in 0..=seconds {
            // One job a second, so that it is met in every stage.
            if let Some(job) = pod.step(out, now + second * SECOND) {
                pod.ended(job, Ok(0), now + second * SECOND);
            }
        }
        let back = now + (seconds + 1) * SECOND;
        drive(&mut pod, ALL, back);
        if pod.is_sought() {
            pod.found("/n/1".into(), back);
            drive(&mut pod, ALL, back);
        }
        assert!(pod.is_captured(), "after {seconds} s");
    }
}

#[test]
fn whoever_takes_the_node_over_has_the_rules_and_we_keep_our_connections() {
    let now = start();
    let mut pod = captured(now);
    let other = Seen { serves: false, ..ALL };
    assert_eq!(drive(&mut pod, other, now), [Job::Try], "the rules are not even looked at");
    assert!(pod.is_open() && !pod.is_captured() && !pod.is_redirected() && pod.listens_in().is_some());
    assert_eq!(drive(&mut pod, ALL, now), [Job::Redirect], "and back");
    drive(&mut pod, other, now);
    let gone = Seen { wanted: false, ..other };
    let job = pod.step(gone, now).unwrap();
    assert_eq!(job.0, Job::Count);
    pod.ended(job, Ok(1), now);
    assert!(pod.listens_in().is_some(), "its old connections are ours still");
    assert_eq!(
        drive(&mut pod, gone, now + COUNT),
        [Job::Count, Job::AwaitClosed],
        "the rules are not ours to remove"
    );
    assert!(pod.is_gone());
}

#[test]
fn what_happened_in_another_namespace_does_not_count() {
    let now = start();
    let mut pod = Pod::new(now);
    pod.found("/n/1".into(), now);
    let old = pod.step(ALL, now).unwrap();
    pod.found("/n/2".into(), now);
    assert_eq!(pod.listens_in(), None, "until the next look");
    let new = pod.step(ALL, now).unwrap();
    pod.ended(old, Ok(0), now);
    assert!(!pod.is_open(), "that was about the first one");
    pod.ended(new, Ok(0), now);
    assert_eq!(drive(&mut pod, ALL, now), [Job::Redirect]);
    pod.lost(now);
    assert!(!pod.is_captured() && pod.is_sought() && !pod.is_redirected());
    assert_eq!(drive(&mut pod, Seen { wanted: false, ..ALL }, now), []);
    assert!(pod.is_gone());
}

#[test]
fn rules_that_were_found_are_removed_if_nobody_wants_them() {
    let now = start();
    let mut pod = Pod::new(now);
    pod.restore("/n/1".into(), [15101, 15108], now);
    let out = Seen { wanted: false, certified: false, opened: false, ..ALL };
    assert_eq!(drive(&mut pod, out, now), [Job::Refuse]);
    assert_eq!(drive(&mut pod, out, now + GRACE), [Job::Part, Job::Count, Job::AwaitClosed, Job::Clear]);
    let mut pod = captured(now);
    pod.give_up();
    assert_eq!(drive(&mut pod, out, now), [Job::Clear], "nobody waits any more");
    assert!(pod.is_gone());
}

/// The pod's namespace, as far as it matters.
#[derive(Debug, Default)]
struct Namespace {
    listens: bool,
    rules: Option<Job>,
    refuses: bool,
    connected: usize,
}

#[derive(Debug, Clone)]
enum Step {
    Wanted(bool),
    Serves(bool),
    Certified(bool),
    Opened(bool),
    Told(bool),
    Strict(bool),
    Pass(u64),
    Connect(usize),
    Fail,
    Work(u8),
    /// What it is to refuse changes while something is done.
    Turns,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => any::<bool>().prop_map(Step::Wanted),
        1 => any::<bool>().prop_map(Step::Serves),
        1 => any::<bool>().prop_map(Step::Certified),
        1 => any::<bool>().prop_map(Step::Opened),
        2 => any::<bool>().prop_map(Step::Told),
        2 => any::<bool>().prop_map(Step::Strict),
        3 => (0..70u64).prop_map(Step::Pass),
        2 => (0..3usize).prop_map(Step::Connect),
        1 => Just(Step::Fail),
        6 => (1..6u8).prop_map(Step::Work),
        1 => Just(Step::Turns),
    ];
    prop::collection::vec(step, 1..60)
}

struct Model {
    pod: Pod,
    seen: Seen,
    namespace: Namespace,
    now: Instant,
    left_at: Option<Instant>,
    strict: bool,
    turns: bool,
}

impl Model {
    fn work(&mut self, fails: bool) -> bool {
        let listened = self.pod.listens_in().is_some() && self.pod.is_redirected() && self.seen.serves;
        let worked = self.work_once(fails);
        if listened && self.pod.listens_in().is_none() {
            assert!(self.seen.told, "somebody may still send to it");
        }
        worked
    }

    fn work_once(&mut self, fails: bool) -> bool {
        // Envoy opens and closes as it is told.
        self.namespace.listens = self.seen.opened && self.pod.listens_in().is_some();
        if self.pod.listens_in().is_none() && std::mem::take(&mut self.namespace.connected) > 0 {
            let left = self.left_at.map(|left| self.now.duration_since(left));
            assert!(left.is_some_and(|left| left >= PARTING), "connections are cut after {left:?}");
        }
        self.say();
        let Some(job) = self.pod.step(self.seen, self.now) else { return false };
        if std::mem::take(&mut self.turns) {
            self.strict = !self.strict;
        }
        if fails {
            self.say();
            self.pod.ended(job, Err("fails".to_owned()), self.now);
            return true;
        }
        let left = match job.0 {
            Job::AwaitListeners => usize::from(!self.namespace.listens),
            Job::AwaitClosed => usize::from(self.namespace.listens),
            Job::Count => self.namespace.connected,
            Job::Redirect | Job::Part => {
                assert!(self.seen.serves, "only who serves sets rules");
                self.namespace.rules = Some(job.0);
                self.namespace.refuses = job.0 == Job::Redirect && self.pod.guard().refuses_any();
                0
            }
            Job::Clear => {
                assert!(self.seen.serves, "only who serves removes rules");
                (self.namespace.rules, self.namespace.refuses) = (None, false);
                0
            }
            Job::Refuse | Job::Guard => {
                assert!(self.seen.serves && self.pod.is_redirected(), "only where rules are");
                self.namespace.rules.get_or_insert(job.0);
                self.namespace.refuses = self.pod.guard().refuses_any();
                0
            }
            Job::Check | Job::Cut => 0,
            Job::Try => usize::from(!self.namespace.listens),
        };
        self.say();
        self.pod.ended(job, Ok(left), self.now);
        true
    }

    fn say(&mut self) {
        self.pod.guards(&Guard { refused: self.strict && self.seen.wanted, ..Guard::default() }, self.now);
    }

    fn check(&mut self) {
        if self.pod.is_captured() && self.seen.serves {
            assert_eq!(self.namespace.rules, Some(Job::Redirect), "captured without rules");
        }
        if self.seen.serves && self.namespace.rules == Some(Job::Redirect) && self.pod.is_redirected() {
            assert!(self.pod.listens_in().is_some(), "redirected to nobody");
        }
        self.left_at = match self.seen.wanted {
            true => None,
            false => self.left_at.or(Some(self.now)),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_redirected_to_nobody_no_connection_is_cut_and_every_pod_arrives(steps in steps()) {
        let now = start();
        let mut model = Model { pod: Pod::new(now), seen: ALL, namespace: Namespace::default(), now, left_at: None, strict: false, turns: false };
        model.pod.found("/n/1".into(), now);
        for step in steps {
            match step {
                Step::Wanted(wanted) => model.seen.wanted = wanted,
                Step::Serves(serves) => model.seen.serves = serves,
                Step::Certified(certified) => model.seen.certified = certified,
                Step::Opened(opened) => model.seen.opened = opened,
                Step::Told(told) => model.seen.told = told,
                Step::Strict(strict) => model.strict = strict,
                Step::Pass(seconds) => model.now += Duration::from_secs(seconds),
                // Only where something is redirected, or was.
                Step::Connect(count) if model.pod.is_captured() || count == 0 => model.namespace.connected = count,
                Step::Connect(_) => {}
                Step::Fail => _ = model.work(true),
                Step::Work(times) => (0..times).for_each(|_| _ = model.work(false)),
                Step::Turns => {
                    model.turns = true;
                    model.work(false);
                }
            }
            model.check();
            if model.pod.is_gone() && model.seen.wanted {
                model.work(false);
                model.pod.found("/n/1".into(), model.now);
            }
        }
        // Whatever else is missing, and whoever served meanwhile.
        model.seen = Seen { wanted: model.seen.wanted, serves: true, ..Seen::default() };
        for _ in 0..30 {
            model.work(false);
            model.now += SECOND;
        }
        if model.pod.is_redirected() {
            prop_assert_eq!(model.namespace.refuses, model.strict && model.seen.wanted);
        }
        for wanted in [true, false] {
            model.seen = Seen { wanted, ..ALL };
            model.namespace.connected = 0;
            for _ in 0..200 {
                model.work(false);
                if model.pod.is_sought() && wanted {
                    model.pod.found("/n/1".into(), model.now);
                }
                model.now += SECOND;
            }
            prop_assert_eq!((model.pod.is_captured(), model.pod.is_gone()), (wanted, !wanted));
            prop_assert_eq!(model.namespace.rules.is_some(), wanted);
            prop_assert_eq!(model.namespace.refuses, wanted && model.strict);
        }
    }
}
