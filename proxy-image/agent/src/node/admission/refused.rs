//! Who may not be connected any more.

use std::collections::BTreeSet;

use meshwright_proto::nodes::{Admission, CallerRule};

/// Whether a caller may not call some port that it could call before; or, if `ways` count, not on the way on which it is connected. None is
/// somebody of whom nobody knows who it is.
pub(super) fn is_refused(before: &Admission, after: &Admission, id: Option<&str>, ways: bool) -> bool {
    let is_http = |port: &&u32| !before.http_ports.contains(port);
    if ways && after.http_ports.iter().filter(is_http).any(|port| admits(before, id, *port, true)) {
        return true;
    }
    let rules = [before, after].into_iter().flat_map(|one| one.allow.iter().chain(&one.deny));
    // And any port that no rule names.
    let mut ports: BTreeSet<u32> = rules.flat_map(|rule| rule.ports.iter().copied()).collect();
    ports.insert(0);
    ports.iter().any(|port| admits(before, id, *port, true) && !admits(after, id, *port, false))
}

/// `unknown`: what is so for somebody of whom it cannot be said.
fn admits(admission: &Admission, id: Option<&str>, port: u32, unknown: bool) -> bool {
    let matches = |rule: &CallerRule, unclear: bool| {
        (rule.ports.is_empty() || rule.ports.contains(&port)) && is_about(rule, id).unwrap_or(unclear)
    };
    !admission.deny.iter().any(|rule| matches(rule, !unknown))
        && (!admission.limited || admission.allow.iter().any(|rule| matches(rule, unknown)))
}

/// None where that depends on who it is.
fn is_about(rule: &CallerRule, id: Option<&str>) -> Option<bool> {
    if rule.everybody {
        return Some(true);
    }
    if rule.ids.is_empty() && rule.below.is_empty() {
        return Some(false);
    }
    let id = id?;
    let below = |prefix: &String| id.starts_with(prefix.as_str());
    Some(rule.ids.iter().any(|one| one == id) || rule.below.iter().any(below))
}
