use super::*;

const PORTS: [u16; 2] = [15101, 15108];

/// What everybody says, to be changed by a test.
#[derive(Default)]
struct Said {
    order: NodeOrder,
    certified: BTreeSet<String>,
    opened: BTreeSet<String>,
    listed: Option<BTreeSet<String>>,
    stands_by: bool,
    leaves: bool,
}

impl Said {
    fn member(mut self, uid: &str, addresses: &[&str]) -> Self {
        let member = Member {
            namespace: "shop".to_owned(),
            name: format!("pod-{uid}"),
            identity: format!("spiffe://td/ns/shop/sa/{uid}"),
            addresses: addresses.iter().map(|address| (*address).to_owned()).collect(),
        };
        self.certified.insert(member.identity.clone());
        self.opened.insert(uid.to_owned());
        self.order.members.insert(uid.to_owned(), member);
        self.order.namespaces = [("shop".to_owned(), true), ("plain".to_owned(), false)].into();
        self
    }

    fn world(&self) -> World<'_> {
        World {
            order: &self.order,
            certified: &self.certified,
            opened: &self.opened,
            listed: self.listed.as_ref(),
            serves: !self.stands_by,
            leaves: self.leaves,
        }
    }
}

/// Does everything at once until nothing is left to do, and returns what.
fn drive(keep: &mut Keep, said: &Said, now: Instant) -> Vec<(String, Job)> {
    let mut done = Vec::new();
    loop {
        let tasks = keep.advance(said.world(), now);
        if tasks.is_empty() {
            return done;
        }
        for task in tasks {
            keep.ended(&task, Ok(0), now);
            done.push((task.uid, task.job.0));
        }
    }
}

fn request(uid: &str, namespace: &str) -> Request {
    Request {
        namespace: namespace.to_owned(),
        name: format!("pod-{uid}"),
        uid: uid.to_owned(),
        netns: "/n/1".to_owned(),
        addresses: vec!["10.0.0.1".to_owned()],
    }
}

#[test]
fn a_member_that_runs_already_is_sought_by_its_address_and_reported_when_it_is_captured() {
    let (mut keep, now) = (Keep::new(PORTS), Instant::now());
    let said = Said::default().member("u1", &["10.0.0.1"]).member("u2", &[]);
    assert!(drive(&mut keep, &said, now).is_empty());
    let sought: Vec<_> =
        keep.sought(said.world()).into_iter().map(|pod| (pod.uid, pod.name, pod.addresses)).collect();
    assert_eq!(
        sought,
        [("u1".to_owned(), "pod-u1".to_owned(), vec!["10.0.0.1".to_owned()])],
        "the other has no network yet"
    );
    assert!(!keep.is_settled(said.world()));
    assert_eq!(keep.identities().len(), 2, "certificates are asked for meanwhile");
    keep.found("u1", "/n/1".into(), now);
    assert_eq!(drive(&mut keep, &said, now).len(), 2);
    assert_eq!(keep.namespaces(), [("u1".to_owned(), "/n/1".to_owned())].into());
    assert!(keep.is_settled(said.world()));
    let captured = keep.captured(said.world());
    assert_eq!(captured, [CapturedPod { uid: "u1".to_owned(), addresses: vec!["10.0.0.1".to_owned()] }]);
    let redirected = keep.redirected();
    assert_eq!((redirected["u1"].netns.to_str(), &redirected["u1"].ports), (Some("/n/1"), &PORTS.to_vec()));
}

#[test]
fn a_pod_that_starts_is_announced_by_the_plugin_with_addresses_that_nobody_else_knows_yet() {
    let (mut keep, now) = (Keep::new(PORTS), Instant::now());
    let empty = Said {
        order: NodeOrder { namespaces: [("shop".to_owned(), true)].into(), ..NodeOrder::default() },
        ..Said::default()
    };
    let (asked, at) = (request("u1", "shop"), Path::new("/n/1"));
    keep.announced("u1", at.into(), asked.addresses.clone(), now);
    assert!(keep.verdict(empty.world(), &asked, at).unwrap_err().contains("not said yet"));
    let mut said = Said::default().member("u1", &[]);
    said.certified.clear();
    drive(&mut keep, &said, now);
    assert!(keep.verdict(said.world(), &asked, at).unwrap_err().contains("certificate"));
    let said = Said::default().member("u1", &[]);
    drive(&mut keep, &said, now);
    assert_eq!(keep.verdict(said.world(), &asked, at), Ok(Answer::Captured));
    assert!(keep.verdict(said.world(), &asked, Path::new("/n/2")).is_err(), "that is another sandbox");
    assert_eq!(keep.captured(said.world())[0].addresses, ["10.0.0.1"]);
    let without_uid = Request { uid: String::new(), ..request("u1", "shop") };
    assert_eq!(keep.verdict(said.world(), &without_uid, at), Ok(Answer::Captured));
}

#[test]
fn only_pods_that_are_to_be_in_the_mesh_or_may_be_are_held_up() {
    let keep = Keep::new(PORTS);
    let mut said = Said::default().member("u1", &[]);
    said.order.outside = vec!["u3".to_owned()];
    let verdict = |said: &Said, uid: &str, namespace: &str| {
        keep.verdict(said.world(), &request(uid, namespace), Path::new("/n/1"))
    };
    assert!(verdict(&said, "u2", "shop").is_err(), "nobody has seen it yet");
    assert_eq!(verdict(&said, "u3", "shop"), Ok(Answer::Outside), "it was seen");
    assert_eq!(verdict(&said, "u2", "plain"), Ok(Answer::Outside));
    assert_eq!(verdict(&said, "u2", "never-heard-of"), Ok(Answer::Outside));
    said.order.mixed = vec!["plain".to_owned()];
    assert!(verdict(&said, "u2", "plain").is_err(), "it may have a label of its own");
    assert_eq!(verdict(&said, "u3", "plain"), Ok(Answer::Outside), "it was seen");
    said.leaves = true;
    assert_eq!(verdict(&said, "u1", "shop"), Ok(Answer::Outside), "the mesh goes");
}

#[test]
fn a_sandbox_that_is_made_anew_is_another_network() {
    let (mut keep, now) = (Keep::new(PORTS), Instant::now());
    let said = Said::default().member("u1", &["10.0.0.1"]);
    keep.announced("u1", "/n/1".into(), vec![], now);
    drive(&mut keep, &said, now);
    keep.announced("u1", "/n/2".into(), vec![], now);
    assert!(keep.captured(said.world()).is_empty());
    drive(&mut keep, &said, now);
    assert_eq!(keep.namespaces()["u1"], "/n/2");
    keep.forget_lost(|path| path != Path::new("/n/2"), now);
    assert!(keep.captured(said.world()).is_empty() && keep.is_cleared());
    keep.found("u1", "/n/3".into(), now);
    drive(&mut keep, &said, now);
    keep.found("u1", "/n/1".into(), now);
    assert_eq!(keep.namespaces()["u1"], "/n/3", "what is looked for takes time, and may be old");
}

#[test]
fn what_leaves_keeps_its_certificate_until_its_listeners_are_closed_and_then_nothing_is_left() {
    let (mut keep, now) = (Keep::new(PORTS), Instant::now());
    let said = Said::default().member("u1", &["10.0.0.1"]);
    keep.announced("u1", "/n/1".into(), vec![], now);
    drive(&mut keep, &said, now);
    let out = Said { listed: Some(BTreeSet::new()), ..Said::default() };
    assert_eq!(drive(&mut keep, &out, now), []);
    assert!(keep.captured(out.world()).is_empty() && keep.identities().len() == 1);
    let jobs: Vec<_> = drive(&mut keep, &out, now + pod::GRACE).into_iter().map(|(_, job)| job).collect();
    assert_eq!(jobs, [Job::Part, Job::Count, Job::AwaitClosed, Job::Clear]);
    assert!(
        keep.is_cleared()
            && keep.identities().is_empty()
            && keep.namespaces().is_empty()
            && !keep.knows("u1")
    );
}

#[test]
fn what_the_control_plane_still_lists_is_listened_for() {
    let (mut keep, now) = (Keep::new(PORTS), Instant::now());
    keep.announced("u1", "/n/1".into(), vec![], now);
    drive(&mut keep, &Said::default().member("u1", &["10.0.0.1"]), now);
    let mut out = Said { listed: Some(BTreeSet::new()), ..Said::default() };
    out.order.listed = vec!["u1".to_owned()];
    assert_eq!(drive(&mut keep, &out, now), []);
    let minutes = now + 30 * pod::GRACE;
    assert_eq!(drive(&mut keep, &out, minutes), [("u1".to_owned(), Job::Part)]);
    assert!(keep.namespaces().contains_key("u1"), "the report was sent, and nobody has read it");
    out.order.listed.clear();
    assert_eq!(drive(&mut keep, &out, minutes), []);
    assert_eq!(drive(&mut keep, &out, minutes + pod::GRACE).len(), 3);
    assert!(!keep.knows("u1"));
}

#[test]
fn what_left_before_a_restart_goes_on_leaving_with_its_listeners() {
    let now = Instant::now();
    for serves in [true, false] {
        let mut keep = Keep::new(PORTS);
        keep.inherited("u1", "/n/1".into(), now);
        let mut said = Said { stands_by: !serves, ..Said::default().member("u2", &[]) };
        if serves {
            let left = super::super::store::Redirected { netns: "/n/1".into(), ports: PORTS.to_vec() };
            keep.restore(&[("u1".to_owned(), left)].into(), now);
        }
        let tasks = keep.advance(said.world(), now);
        assert_eq!(keep.namespaces(), [("u1".to_owned(), "/n/1".to_owned())].into(), "serves: {serves}");
        // Rules are whose they are, and refuse nothing.
        let expected = if serves { Job::Refuse } else { Job::Count };
        assert!(tasks.iter().all(|task| task.job.0 == expected), "{tasks:?}");
        tasks.iter().for_each(|task| keep.ended(task, Ok(usize::from(!serves)), now));
        said.listed = Some(BTreeSet::new());
        drive(&mut keep, &said, now);
        drive(&mut keep, &said, now + 2 * pod::GRACE);
        assert!(!keep.knows("u1") && keep.namespaces().is_empty(), "serves: {serves}");
    }
}

#[test]
fn rules_that_others_left_are_taken_over_or_removed() {
    let (mut keep, now) = (Keep::new([15201, 15208]), Instant::now());
    let left = |path: &str| super::super::store::Redirected { netns: path.into(), ports: PORTS.to_vec() };
    keep.restore(&[("u1".to_owned(), left("/n/1")), ("u2".to_owned(), left("/n/2"))].into(), now);
    let said = Said { listed: Some(BTreeSet::new()), ..Said::default().member("u1", &["10.0.0.1"]) };
    let done = drive(&mut keep, &said, now);
    let expected =
        [("u1", Job::Refuse), ("u2", Job::Refuse), ("u1", Job::AwaitListeners), ("u1", Job::Redirect)];
    assert_eq!(done, expected.map(|(uid, job)| (uid.to_owned(), job)));
    let tasks = keep.advance(said.world(), now + pod::GRACE);
    assert_eq!(
        tasks.iter().map(|task| (task.uid.as_str(), task.job.0)).collect::<Vec<_>>(),
        [("u2", Job::Part)]
    );
    assert!(PORTS.iter().all(|port| tasks[0].ports.contains(port)), "connections of the other proxy count");
    assert_eq!(keep.redirected()["u1"].ports, [15101, 15108, 15201, 15208]);
}

#[test]
fn who_stands_by_prepares_everything_but_the_rules() {
    let (mut keep, now) = (Keep::new(PORTS), Instant::now());
    let mut said = Said { stands_by: true, ..Said::default().member("u1", &["10.0.0.1"]) };
    keep.announced("u1", "/n/1".into(), vec![], now);
    keep.advance(said.world(), now);
    assert!(!keep.is_settled(said.world()));
    let mut keep = Keep::new(PORTS);
    keep.announced("u1", "/n/1".into(), vec![], now);
    let jobs: Vec<Job> = drive(&mut keep, &said, now).into_iter().map(|(_, job)| job).collect();
    assert_eq!(jobs, [Job::AwaitListeners, Job::Try]);
    assert_eq!((keep.prepared(said.world()), keep.awaiting(said.world()).len()), (vec!["u1".to_owned()], 0));
    assert!(keep.is_settled(said.world()) && keep.captured(said.world()).is_empty() && keep.is_cleared());
    said.stands_by = false;
    assert!(!keep.is_settled(said.world()), "now the rules are what is missing");
}
