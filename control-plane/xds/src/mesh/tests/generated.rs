//! Policies and calls by chance, and an oracle that says what is to become of them. It reads policies as their documentation does, call by
//! call, and knows nothing of how they are compiled.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::World;
use meshwright_core::mesh::{Attributes, Caller, Rule, RuleSet, Rules, resolve};
use meshwright_core::model::{
    AuthorizationPolicy, AuthorizationRule, AuthorizedPath, HttpAttributes, LabelSelector, Meta, Namespace,
    Pod, Source, Target,
};

use super::*;

/// Numbers that look like chance, the same each time.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn some<T: Clone>(&mut self, all: &[T], most: usize) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| self.of(all)).collect()
    }
}

const METHODS: [&str; 3] = ["GET", "POST", "DELETE"];
const PATHS: [&str; 9] = ["/", "/a", "/a/b", "/a/b/c", "/ab", "/b", "/b.c", "/a:b", "/b/$(c)"];
const HOSTS: [&str; 4] = ["a.example", "b.a.example", "x.b.a.example", "b.example"];
const HOST_RULES: [&str; 4] = ["a.example", "b.example", "*.a.example", "*.example"];
const VALUES: [&str; 3] = ["root", "user", "a.b"];
const ACCOUNTS: [&str; 2] = ["front", "cart"];

/// A call as it is meant, whatever it looks like on the wire.
#[derive(Debug, Clone)]
pub struct Call {
    pub account: &'static str,
    pub port: u16,
    /// With port 8080 only.
    pub method: &'static str,
    pub path: &'static str,
    /// In percent-encoding where Envoy leaves it at that.
    pub encoded: bool,
    pub host: &'static str,
    pub roles: Vec<&'static str>,
}

impl Call {
    /// The path as Envoy sees it.
    fn seen(&self) -> String {
        let encode = |char: char| match char {
            ':' | '$' | '(' | ')' if self.encoded => format!("%{:X}", u32::from(char)),
            _ => char.to_string(),
        };
        self.path.chars().map(encode).collect()
    }
}

pub fn call(chance: &mut Chance) -> Call {
    Call {
        account: chance.of(&ACCOUNTS),
        port: if chance.one_in(6) { 3306 } else { 8080 },
        method: chance.of(&METHODS),
        path: chance.of(&PATHS),
        encoded: chance.one_in(2),
        host: chance.of(&HOSTS),
        roles: chance.some(&VALUES, 2),
    }
}

/// A way to write it that means the same.
pub fn on_the_wire(call: &Call, chance: &mut Chance) -> String {
    let seen = call.seen();
    let path = match chance.below(8) {
        0 => format!("/x/..{seen}"),
        1 => format!("/.{seen}"),
        2 => format!("/{seen}"),
        3 => seen.replace('a', "%61"),
        4 => format!("/%2e{seen}"),
        5 => format!("{seen}?a=/b"),
        6 => format!("http://{}{seen}", call.host),
        _ => seen,
    };
    let host = match chance.below(4) {
        0 => call.host.to_uppercase(),
        1 => format!("{}:8080", call.host),
        _ => call.host.to_owned(),
    };
    let roles: String = match (call.roles.as_slice(), chance.one_in(2)) {
        ([one, other], true) => format!("X-Role: {one}, {other}\r\n"),
        (all, _) => all.iter().map(|value| format!("x-role: {value}\r\n")).collect(),
    };
    format!("{} {path} HTTP/1.1\r\nHost: {host}\r\n{roles}Connection: close\r\n\r\n", call.method)
}

pub fn policies(chance: &mut Chance) -> Vec<AuthorizationPolicy> {
    let count = chance.below(4);
    let one = |index: usize, chance: &mut Chance| {
        let namespace = if chance.one_in(8) { "other" } else { "shop" };
        let selector = |app: &str| LabelSelector {
            match_labels: [("app".to_owned(), app.to_owned())].into(),
            match_expressions: Vec::new(),
        };
        let denies = chance.one_in(2);
        AuthorizationPolicy {
            meta: Meta::new(namespace, format!("p{index}"), 1, 0),
            target: Target(match chance.below(4) {
                0 => vec![selector("front")],
                1 => vec![selector("front"), selector("back")],
                2 => vec![selector("back")],
                _ => Vec::new(),
            }),
            denies,
            dry_run: chance.one_in(6),
            rules: (0..chance.below(3) + usize::from(denies)).map(|_| rule(chance)).collect(),
            unreadable: None,
        }
    };
    (0..count).map(|index| one(index, chance)).collect()
}

fn rule(chance: &mut Chance) -> AuthorizationRule {
    let sources = [
        Source::ServiceAccount { namespace: "shop".to_owned(), name: "front".to_owned() },
        Source::ServiceAccount { namespace: "shop".to_owned(), name: "fron".to_owned() },
        Source::ServiceAccount { namespace: "other".to_owned(), name: "cart".to_owned() },
        Source::Namespace("shop".to_owned()),
        Source::Namespace("sho".to_owned()),
        Source::Spiffe(spiffe("cart").to_string()),
    ];
    let sources = (!chance.one_in(3)).then(|| chance.some(&sources, 2));
    if chance.one_in(3) {
        return AuthorizationRule { sources, ports: chance.some(&[8080, 3306, 1], 2), http: Vec::new() };
    }
    let http = (0..=chance.below(2)).map(|_| attributes(chance)).collect();
    AuthorizationRule { sources, ports: vec![8080], http }
}

fn attributes(chance: &mut Chance) -> HttpAttributes {
    let owned = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect();
    let paths = chance.some(&PATHS, 2).into_iter().map(|path| match chance.one_in(2) {
        true => AuthorizedPath::Exact(path.to_owned()),
        false => AuthorizedPath::Prefix(path.to_owned()),
    });
    let paths = paths.collect();
    let header = |value: &str| ("X-Role".to_owned(), Some(value.to_owned()));
    let mut found = HttpAttributes {
        methods: owned(chance.some(&METHODS, 1)),
        paths,
        hosts: owned(chance.some(&HOST_RULES, 1)),
        headers: if chance.one_in(2) { vec![header(chance.of(&VALUES))] } else { Vec::new() },
    };
    if found == HttpAttributes::default() {
        found.headers = vec![("x-role".to_owned(), None)];
    }
    found
}

/// What becomes of a call to pod `back`.
pub fn oracle(policies: &[AuthorizationPolicy], call: &Call) -> bool {
    let about_back = |policy: &&AuthorizationPolicy| {
        let selects = |selector: &LabelSelector| selector.match_labels["app"] == "back";
        policy.meta.key.namespace == "shop"
            && !policy.dry_run
            && (policy.target.0.is_empty() || policy.target.0.iter().any(selects))
    };
    let about: Vec<_> = policies.iter().filter(about_back).collect();
    let matches =
        |policy: &&&AuthorizationPolicy| policy.rules.iter().any(|rule| is_about(rule, call, policy.denies));
    if about.iter().filter(|policy| policy.denies).any(|policy| matches(&policy)) {
        return false;
    }
    let mut allowing = about.iter().filter(|policy| !policy.denies).peekable();
    allowing.peek().is_none() || allowing.any(|policy| matches(&policy))
}

fn is_about(rule: &AuthorizationRule, call: &Call, denies: bool) -> bool {
    let is_caller = |source: &Source| match source {
        Source::ServiceAccount { namespace, name } => namespace == "shop" && name == call.account,
        Source::Namespace(namespace) => namespace == "shop",
        Source::Spiffe(id) => id.ends_with(&format!("/shop/sa/{}", call.account)),
        Source::Unknown => denies,
    };
    let any = |all: &[String], is: &dyn Fn(&str) -> bool| all.is_empty() || all.iter().any(|one| is(one));
    let is_request = |http: &HttpAttributes| {
        // What DENY means it means in any encoding.
        let called = if denies { call.path.to_owned() } else { call.seen() };
        let path = |path: &AuthorizedPath| match path {
            AuthorizedPath::Exact(text) => *text == called,
            AuthorizedPath::Prefix(text) if text == "/" => true,
            AuthorizedPath::Prefix(text) => {
                called == *text
                    || called.strip_prefix(text.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        };
        let host = |host: &str| match host.strip_prefix('*') {
            Some(suffix) => call.host.ends_with(suffix),
            None => host == call.host,
        };
        let header = |(_, value): &(String, Option<String>)| match value {
            None => !call.roles.is_empty(),
            Some(value) if denies => call.roles.contains(&value.as_str()),
            Some(value) => call.roles == [value.as_str()],
        };
        any(&http.methods, &|method| method == call.method)
            && (http.paths.is_empty() || http.paths.iter().any(path))
            && any(&http.hosts, &host)
            && http.headers.iter().all(header)
    };
    rule.sources.as_ref().is_none_or(|sources| sources.iter().any(is_caller))
        && (rule.ports.is_empty() || rule.ports.contains(&call.port))
        && (rule.http.is_empty() || (call.port == 8080 && rule.http.iter().any(is_request)))
}

/// What the compiler makes of the policies for pod `back`.
pub fn compiled(policies: &[AuthorizationPolicy]) -> PodPolicy {
    let mut world = World::default();
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let namespace = Namespace { labels: labels(&[("meshwright.io/mesh", "enabled")]) };
    world.namespaces.insert("shop".to_owned(), Arc::new(namespace));
    let pod = Pod {
        uid: "uid-back".to_owned(),
        node: "n2".to_owned(),
        labels: labels(&[("app", "back")]),
        service_account: "back".to_owned(),
        ..Pod::default()
    };
    world.pods.insert(ObjectKey::new("shop", "back"), Arc::new(pod));
    for policy in policies {
        world.authorization_policies.insert(policy.meta.key.clone(), Arc::new(policy.clone()));
    }
    let mesh = resolve(&world, &Rules::default(), TRUST_DOMAIN, &Arc::default());
    mesh.nodes["n2"].policies.get("uid-back").map(|policy| (**policy).clone()).unwrap_or_default()
}

/// What compiled rules say, read as their documentation does.
fn admits(set: &RuleSet, call: &Call) -> bool {
    let matches = |rule: &Rule, denies: bool| {
        let id = spiffe(call.account);
        let caller = |caller: &Caller| match caller {
            Caller::Id(other) => *other == id,
            Caller::Below(prefix) => id.starts_with(&**prefix),
        };
        let http = rule.http.iter().map(|Attributes { methods, paths, hosts, headers }| HttpAttributes {
            methods: methods.clone(),
            paths: paths.clone(),
            hosts: hosts.clone(),
            headers: headers.clone(),
        });
        let requests = AuthorizationRule { http: http.collect(), ..AuthorizationRule::default() };
        rule.callers.as_ref().is_none_or(|callers| callers.iter().any(caller))
            && (rule.ports.is_empty() || rule.ports.contains(&call.port))
            && is_about(&requests, call, denies)
    };
    !set.deny.iter().any(|rule| matches(rule, true))
        && set.allow.as_ref().is_none_or(|rules| rules.iter().any(|rule| matches(rule, false)))
}

#[test]
fn ten_thousand_calls_are_decided_as_the_oracle_says() {
    let mut decided = [0; 2];
    for seed in 1..=1000 {
        let chance = &mut Chance::new(seed);
        let policies = policies(chance);
        let compiled = compiled(&policies);
        for _ in 0..10 {
            let call = call(chance);
            let expected = oracle(&policies, &call);
            let found = admits(&compiled.authorization.enforced, &call);
            assert_eq!(found, expected, "seed {seed}: {call:?} {policies:#?}");
            assert!(
                expected || compiled.plaintext.refuses(call.port),
                "seed {seed}: plaintext would be let in where it is refused"
            );
            // What is known of connections never refuses what requests would let in.
            let connections = compiled.authorization.enforced.of_connections();
            assert!(!expected || admits(&connections, &call), "seed {seed}: {call:?}");
            decided[usize::from(expected)] += 1;
        }
    }
    assert!(decided.iter().all(|count| *count > 2000), "one-sided: {decided:?}");
}
