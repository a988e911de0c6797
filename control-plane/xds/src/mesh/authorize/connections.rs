//! Decisions about connections, as expressions.

use std::collections::BTreeSet;

use envoy_types::pb::envoy::extensions::filters::common::set_filter_state::v3::FilterStateValue;
use envoy_types::pb::envoy::extensions::filters::network::set_filter_state::v3::Config;
use meshwright_core::mesh::{Authorization, Caller, Rule, RuleSet};

use super::super::fixed::INBOUND;
use super::super::{pod, state};
use super::{ADMITTED, APART, CALLED, CALLER, CHECKED, HTTP, POD, PORT, REFUSED, TRIED, VERDICT, plain};

/// An expression may have 100,000 characters, and the verdict has up to four lists of conditions in it: DENY and ALLOW of what is enforced and of
/// what is tried. A list that is longer than this is put together of several expressions.
const MAX: usize = 20_000;
const OR: &str = " || ";

const ID: &str = "connection.uri_san_peer_certificate";
const SNI: &str = "connection.requested_server_name";
/// A port as we write it. Whoever connects to the application would take others for the same number: `+80`, `080`.
const IS_PORT: &str = "connection.requested_server_name.matches('^[1-9][0-9]{0,4}$')";

/// What a pod's listener notes about a connection.
pub(super) fn config(uid: &str, identity: &str, authorization: Option<&Authorization>) -> Config {
    let way = |text: &str| vec![state::unless_empty(state::value(state::CLUSTER, text))];
    let Some(Authorization { enforced, tried }) = authorization.filter(|one| !is_open(one)) else {
        return Config {
            on_new_connection: way(INBOUND),
            on_downstream_tls_handshake: pod::arrived(),
            ..Config::default()
        };
    };
    let http = authorization.map(Authorization::http_ports).unwrap_or_default();
    let told = |object, text| state::handed_on(state::string(object, text));
    let mut values = pod::arrived();
    values.extend([told(CALLED, identity), told(CALLER, "%DOWNSTREAM_PEER_URI_SAN%")]);
    let is_admitted = admits(enforced, "enforced", &mut values);
    let would_be = tried.as_ref().map(|set| admits(set, "tried", &mut values));
    let admitted = match would_be {
        Some(would_be) => format!("({would_be} ? '{ADMITTED}' : '{TRIED}')"),
        None => format!("'{ADMITTED}'"),
    };
    let verdict = format!("%CEL({IS_PORT} && {is_admitted} ? {admitted} : '{REFUSED}')%");
    values.push(told(VERDICT, &verdict));
    values.extend([told(POD, uid), told(PORT, &format!("%CEL({IS_PORT} ? {SNI} : '')%"))]);
    values.push(apart());
    if http.is_empty() {
        return Config {
            on_new_connection: way(CHECKED),
            on_downstream_tls_handshake: values,
            ..Config::default()
        };
    }
    let way = way(&format!("%CEL({SNI} in [{}] ? '{HTTP}' : '{CHECKED}')%", quoted(&http)));
    Config { on_new_connection: way, on_downstream_tls_handshake: values, ..Config::default() }
}

/// What tells connections apart on their way to the next listener. Envoy pools such ways, and gives every connection of a pool the filter state
/// of the first one: without this, who is refused would go on with the verdict about somebody else. All that is told depends on it alone.
fn apart() -> FilterStateValue {
    let all = [POD, PORT, CALLER, VERDICT].map(|object| format!("%FILTER_STATE({object}:PLAIN)%"));
    state::handed_on(state::separating(APART, &all.join("|")))
}

pub(super) fn is_open(authorization: &Authorization) -> bool {
    authorization.enforced.is_open() && authorization.tried.is_none()
}

fn quoted(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<_> = ports.iter().map(|port| format!("'{port}'")).collect();
    ports.join(",")
}

/// Whether the rules let a connection in.
fn admits(set: &RuleSet, name: &str, values: &mut Vec<FilterStateValue>) -> String {
    let set = set.of_connections();
    let denied = set.deny.iter().map(|rule| condition(rule, "true")).collect();
    let mut text = format!("!({})", any(denied, &format!("{name}/deny"), "!= b'no'", values));
    if let Some(allow) = &set.allow {
        let allowed = allow.iter().map(|rule| condition(rule, "false")).collect();
        text.push_str(&format!(" && ({})", any(allowed, &format!("{name}/allow"), "== b'yes'", values)));
    }
    format!("({text})")
}

/// Whether a rule is about a connection; `unclear` is what it says of callers that cannot be written down.
fn condition(rule: &Rule, unclear: &str) -> String {
    let mut parts = Vec::new();
    if !rule.ports.is_empty() {
        parts.push(format!("{SNI} in [{}]", quoted(&rule.ports)));
    }
    if let Some(callers) = &rule.callers {
        let (mut exact, mut any) = (Vec::new(), Vec::new());
        for caller in callers {
            match caller {
                Caller::Id(id) => match plain(id) {
                    Some(id) => exact.push(format!("'{id}'")),
                    None => any.push(unclear.to_owned()),
                },
                Caller::Below(prefix) => any.push(match plain(prefix) {
                    Some(prefix) => format!("{ID}.startsWith('{prefix}')"),
                    None => unclear.to_owned(),
                }),
            }
        }
        if !exact.is_empty() {
            any.insert(0, format!("{ID} in [{}]", exact.join(",")));
        }
        parts.push(if any.is_empty() { "false".to_owned() } else { format!("({})", any.join(" || ")) });
    }
    if parts.is_empty() { "true".to_owned() } else { format!("({})", parts.join(" && ")) }
}

/// Whether one of these holds. What is too long for one expression is decided before, in parts, under names of its own, of which `holds` says
/// when it does: one that could not be decided is to refuse.
fn any(conditions: Vec<String>, name: &str, holds: &str, values: &mut Vec<FilterStateValue>) -> String {
    if conditions.is_empty() {
        return "false".to_owned();
    }
    let length = |condition: &String| condition.len() + OR.len();
    if conditions.iter().map(length).sum::<usize>() < MAX {
        return conditions.join(OR);
    }
    let mut parts: Vec<String> = Vec::new();
    for condition in conditions {
        match parts.last_mut().filter(|last| last.len() + length(&condition) < MAX) {
            Some(last) => last.extend([OR, &condition]),
            None => parts.push(condition),
        }
    }
    let named = parts.iter().enumerate().map(|(index, part)| {
        let name = format!("meshwright.io/{name}/{index}");
        values.push(state::string(&name, &format!("%CEL({part} ? 'yes' : 'no')%")));
        format!("filter_state['{name}'] {holds}")
    });
    named.collect::<Vec<_>>().join(OR)
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    /// About as long as that.
    fn rules(length: usize) -> Vec<Rule> {
        let id = |number: usize| Caller::Id(format!("spiffe://td/ns/shop/sa/{number:040}").into());
        let one = |number: usize| Rule { callers: Some([id(number)].into()), ..Rule::default() };
        (0..).map(one).take(length / 110).collect()
    }

    #[test]
    fn no_expression_is_too_long_for_envoy() {
        for length in [19_000, 38_000, 39_900, 60_000, 400_000] {
            let set = || RuleSet { allow: Some(rules(length)), deny: rules(length) };
            let short = || RuleSet {
                allow: Some(vec![Rule { callers: Some([].into()), ..Rule::default() }; length / 8]),
                deny: Vec::new(),
            };
            for (enforced, tried) in [(set(), set()), (short(), short())] {
                let all = config("u", "spiffe://td/x", Some(&Authorization { enforced, tried: Some(tried) }));
                let values = all.on_downstream_tls_handshake;
                assert!(values.len() > 5);
                let longest = values.iter().map(Message::encoded_len).max();
                assert!(longest.is_some_and(|longest| longest < 99_000), "{length}: {longest:?}");
            }
        }
    }
}
