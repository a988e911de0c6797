//! Rules about requests, for Envoy's RBAC filter.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::rbac::v3::principal::{Identifier, Set};
use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, permission, rbac};
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3 as http;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    FilterStateMatcher, PathMatcher, RegexMatcher, StringMatcher, filter_state_matcher, path_matcher,
};
use meshwright_core::mesh::{Attributes, Authorization, Caller, Rule, RuleSet};
use meshwright_core::model::AuthorizedPath;

use super::connections::is_open;
use super::{CALLER, POD, PORT, plain};

/// The names of hosts that rules and applications cannot understand in two ways.
const HOST: &str = r"(?i)([a-z0-9_-]+\.)*[a-z0-9_-]+\.?(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?";
/// Segments that some servers take for dots or for nothing, because they cut off what follows a semicolon.
const TWOFOLD: &str = r"(.*/)?\.{0,2}(;|%3[bB]).*";
/// Of a header's name: four places in which it can be spelled in two ways.
const MOST_SPELLINGS: usize = 16;

/// The name of the only policy.
const ADMITTED: &str = "admitted";

/// The filter's configuration. A pod that is not among these is refused. Rules that look at no request are among them, too: somebody may be
/// connected from a time when they did.
pub(super) fn rules<'a>(pods: impl Iterator<Item = (&'a str, &'a Authorization)>) -> http::Rbac {
    let mut enforced = Vec::new();
    let mut tried = Vec::new();
    let mut is_tried = false;
    for (uid, authorization) in pods.filter(|(_, of)| !is_open(of)) {
        let now = and(vec![state(POD, exact(uid)), admits(&authorization.enforced)]);
        let then = authorization.tried.as_ref();
        is_tried |= then.is_some();
        tried.push(then.map_or_else(|| now.clone(), |set| and(vec![state(POD, exact(uid)), admits(set)])));
        enforced.push(now);
    }
    http::Rbac {
        rules: Some(engine(enforced)),
        shadow_rules: is_tried.then(|| engine(tried)),
        shadow_rules_stat_prefix: "tried_".to_owned(),
        ..http::Rbac::default()
    }
}

/// Lets in whom one of these is about. One policy, because of several the order would be another each time.
fn engine(admitted: Vec<Principal>) -> Rbac {
    let anything = Permission { rule: Some(permission::Rule::Any(true)) };
    let policy = Policy { permissions: vec![anything], principals: vec![or(admitted)], ..Policy::default() };
    Rbac {
        action: rbac::Action::Allow as i32,
        policies: HashMap::from([(ADMITTED.to_owned(), policy)]),
        ..Rbac::default()
    }
}

/// Lets in everything that is for this pod besides.
pub(super) fn admit(rules: &mut http::Rbac, uid: &str) {
    for engine in [&mut rules.rules, &mut rules.shadow_rules].into_iter().flatten() {
        let admitted = engine.policies.get_mut(ADMITTED).into_iter();
        admitted.for_each(|policy| policy.principals.push(state(POD, exact(uid))));
    }
}

fn admits(set: &RuleSet) -> Principal {
    let well_formed = vec![header(":authority", regex(HOST)), not(path(regex(TWOFOLD)))];
    let denied = set.deny.iter().map(|rule| condition(rule, Side::Deny)).collect();
    let mut all = [well_formed, vec![not(or(denied))]].concat();
    if let Some(allow) = &set.allow {
        all.push(or(allow.iter().map(|rule| condition(rule, Side::Allow)).collect()));
    }
    and(all)
}

/// Where something can be understood in two ways, DENY is about both.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Allow,
    Deny,
}

fn condition(rule: &Rule, side: Side) -> Principal {
    let mut all = Vec::new();
    if !rule.ports.is_empty() {
        all.push(or(rule.ports.iter().map(|port| state(PORT, exact(&port.to_string()))).collect()));
    }
    if let Some(callers) = &rule.callers {
        all.push(or(callers.iter().map(|one| caller(one, side)).collect()));
    }
    if !rule.http.is_empty() {
        all.push(or(rule.http.iter().map(|one| attributes(one, side)).collect()));
    }
    and(all)
}

fn caller(caller: &Caller, side: Side) -> Principal {
    let matched = match caller {
        Caller::Id(id) => plain(id).map(exact),
        Caller::Below(prefix) => plain(prefix).map(|prefix| MatchPattern::Prefix(prefix.to_owned())),
    };
    match matched {
        Some(pattern) => state(CALLER, pattern),
        None if side == Side::Deny => anybody(),
        None => nobody(),
    }
}

fn attributes(attributes: &Attributes, side: Side) -> Principal {
    let Attributes { methods, paths, hosts, headers } = attributes;
    let mut all = Vec::new();
    if !methods.is_empty() {
        let method = |method: &String| match side {
            Side::Allow => header(":method", exact(method)),
            Side::Deny => header(":method", regex(&format!("(?i){}", escaped(method)))),
        };
        all.push(or(methods.iter().map(method).collect()));
    }
    if !paths.is_empty() {
        all.push(or(paths.iter().map(|one| path(regex(&path_regex(one, side)))).collect()));
    }
    if !hosts.is_empty() {
        all.push(or(hosts.iter().map(|host| header(":authority", regex(&host_regex(host)))).collect()));
    }
    all.extend(headers.iter().map(|(name, value)| a_header(name, value.as_deref(), side)));
    and(all)
}

fn a_header(name: &str, value: Option<&str>, side: Side) -> Principal {
    let names = spellings(name);
    let one = |name: &String| match (value, side) {
        (None, _) => present(name),
        // Envoy looks at each of several by itself: one has to be it, and none anything else.
        (Some(value), Side::Allow) => and(vec![header(name, exact(value)), not(other_than(name, value))]),
        // Several of one name come as a list.
        (Some(value), Side::Deny) => header(name, regex(&format!(r"(.*,)?\s*{}\s*(,.*)?", escaped(value)))),
    };
    match side {
        Side::Deny => or(names.iter().map(one).collect()),
        Side::Allow => {
            let mut all = vec![one(&names[0])];
            all.extend(names[1..].iter().map(|other| not(present(other))));
            and(all)
        }
    }
}

/// The name of a header, and the others that are the same to applications which take `-` for `_`.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    for char in name.chars() {
        let is_either = matches!(char, '-' | '_') && all.len() < MOST_SPELLINGS;
        let other = if char == '-' { '_' } else { '-' };
        let others: Vec<_> =
            all.iter().filter(|_| is_either).map(|known| format!("{known}{other}")).collect();
        all.iter_mut().for_each(|known| known.push(char));
        all.extend(others);
    }
    all
}

/// For DENY also with parameters behind its segments, which some servers cut off, and with its characters in percent-encoding.
fn path_regex(path: &AuthorizedPath, side: Side) -> String {
    let (text, is_prefix) = match path {
        AuthorizedPath::Exact(text) => (text, false),
        AuthorizedPath::Prefix(text) => (text, true),
    };
    let parameters = if side == Side::Deny { "((;|%3[bB])[^/]*)?" } else { "" };
    // `/a/` is the prefix of the same paths as `/a`.
    let text = if is_prefix { text.trim_end_matches('/') } else { text.as_str() };
    let segments: Vec<_> =
        text.split('/').map(|one| format!("{}{parameters}", segment_regex(one, side))).collect();
    let mut regex = segments.join("/");
    if is_prefix {
        regex.push_str("(/.*)?");
    }
    regex
}

/// Envoy decodes letters, digits and little else; applications decode the rest as well. What is written the other way is another path to Envoy and
/// maybe the same to the application: DENY is about both, ALLOW about what it says.
fn segment_regex(segment: &str, side: Side) -> String {
    if side == Side::Allow {
        return escaped(segment);
    }
    segment.chars().map(either_way).collect()
}

/// The character, or its percent-encoding.
fn either_way(char: char) -> String {
    let itself = escaped(char.encode_utf8(&mut [0; 4]));
    if !char.is_ascii() || char.is_ascii_alphanumeric() {
        return itself;
    }
    let digit = |value: u32| match char::from_digit(value, 16) {
        Some(digit) if digit.is_ascii_digit() => digit.to_string(),
        Some(digit) => format!("[{digit}{}]", digit.to_ascii_uppercase()),
        None => String::new(),
    };
    let code = u32::from(char);
    format!("({itself}|%{}{})", digit(code / 16), digit(code % 16))
}

/// In any case, with or without a dot at its end, with any port.
fn host_regex(host: &str) -> String {
    let name = match host.strip_prefix("*.") {
        Some(rest) => format!(r"([^.:/@]+\.)+{}", escaped(rest)),
        None => escaped(host),
    };
    format!(r"(?i){name}\.?(:[0-9]+)?")
}

/// As a regular expression that is about this text only.
fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for char in text.chars() {
        if !(char.is_ascii_alphanumeric() || char == '_' || !char.is_ascii()) {
            all.push('\\');
        }
        all.push(char);
    }
    all
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

fn anybody() -> Principal {
    principal(Identifier::Any(true))
}

fn nobody() -> Principal {
    not(anybody())
}

fn not(other: Principal) -> Principal {
    principal(Identifier::NotId(Box::new(other)))
}

fn and(mut all: Vec<Principal>) -> Principal {
    match all.len() {
        0 => anybody(),
        1 => all.remove(0),
        _ => principal(Identifier::AndIds(Set { ids: all })),
    }
}

fn or(mut all: Vec<Principal>) -> Principal {
    match all.len() {
        0 => nobody(),
        1 => all.remove(0),
        _ => principal(Identifier::OrIds(Set { ids: all })),
    }
}

fn state(key: &str, pattern: MatchPattern) -> Principal {
    principal(Identifier::FilterState(FilterStateMatcher {
        key: key.to_owned(),
        matcher: Some(filter_state_matcher::Matcher::StringMatch(string(pattern))),
    }))
}

fn header(name: &str, pattern: MatchPattern) -> Principal {
    header_that(name, HeaderMatchSpecifier::StringMatch(string(pattern)))
}

fn present(name: &str) -> Principal {
    header_that(name, HeaderMatchSpecifier::PresentMatch(true))
}

/// One of its values is another.
fn other_than(name: &str, value: &str) -> Principal {
    header(name, regex(&other_regex(value)))
}

/// Every text but this. From its end: what is shorter, what goes on with another character, and what is longer.
fn other_regex(text: &str) -> String {
    text.chars().rev().fold(".+".to_owned(), |rest, char| {
        let char = escaped(&char.to_string());
        format!("(|[^{char}].*|{char}{rest})")
    })
}

fn header_that(name: &str, specifier: HeaderMatchSpecifier) -> Principal {
    principal(Identifier::Header(HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }))
}

fn path(pattern: MatchPattern) -> Principal {
    let rule = path_matcher::Rule::Path(string(pattern));
    principal(Identifier::UrlPath(PathMatcher { rule: Some(rule) }))
}

fn string(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

fn exact(text: &str) -> MatchPattern {
    MatchPattern::Exact(text.to_owned())
}

fn regex(text: &str) -> MatchPattern {
    MatchPattern::SafeRegex(RegexMatcher { regex: text.to_owned(), ..RegexMatcher::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deny_knows_a_path_however_it_is_encoded_and_allow_as_it_is_written() {
        let path = AuthorizedPath::Exact("/u:d/(a".to_owned());
        assert_eq!(path_regex(&path, Side::Allow), r"/u\:d/\(a");
        let parameters = "((;|%3[bB])[^/]*)?";
        let expected = format!(r"{parameters}/u(\:|%3[aA])d{parameters}/(\(|%28)a{parameters}");
        assert_eq!(path_regex(&path, Side::Deny), expected);
        for char in "!$&'()*+,=:@-._~".chars() {
            let code = format!("{:x}", u32::from(char));
            let found = either_way(char).replace(['[', ']'], "");
            assert!(found.to_lowercase().contains(&format!("|%{}", &code[..1])), "{char}: {found}");
        }
    }

    #[test]
    fn a_name_has_few_spellings_and_its_own_is_the_first() {
        assert_eq!(spellings("X-Role"), ["X-Role", "X_Role"]);
        assert_eq!(spellings("a_b-c"), ["a_b-c", "a-b-c", "a_b_c", "a-b_c"]);
        let all = spellings("a-b_c-d_e");
        let other =
            |all: &[&str]| all.iter().all(|name| spellings("a-b_c-d_e").contains(&(*name).to_owned()));
        assert_eq!((all.len(), all[0].as_str()), (MOST_SPELLINGS, "a-b_c-d_e"));
        assert!(other(&["a_b_c_d_e", "a-b-c-d-e", "a_b-c_d-e"]), "the API lets in no name with more");
    }
}
