//! Which of several matching rules wins.
//!
//! The order is HTTPRoute's: the more specific hostname (of the route, before it is narrowed by the
//! listener's), then an exact path, then the longest prefix, a method, the most headers, the most query
//! parameters; then the older route, then `{namespace}/{name}`, then the order in the route. Where the API
//! leaves regular expressions open: after exact paths, before prefixes, longer ones first. GRPCRoute's has the characters of the service
//! and then those of the method in the place of the path.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use crate::config::RouteEntry;
use crate::hostname;
use crate::model::{HttpRouteMatch, ObjectKey, PathMatch, StringMatch};

/// A match that competes for a virtual host.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// The route's own hostname, [`hostname::ANY`] if it has none.
    pub hostname: String,
    /// The route's age, seconds since the epoch.
    pub created: i64,
    /// What it is about.
    pub entry: Arc<RouteEntry>,
}

/// Orders candidates, winner first. A total order: two candidates are equal only if they are the same match
/// of the same rule.
pub(crate) fn compare(a: &Candidate, b: &Candidate) -> Ordering {
    hostname::by_specificity(&a.hostname, &b.hostname)
        .then_with(|| specificity(&a.entry.matches).cmp(&specificity(&b.entry.matches)))
        .then_with(|| a.created.cmp(&b.created))
        .then_with(|| alphabetically(&a.entry.route, &b.entry.route))
        .then_with(|| a.entry.rule_index.cmp(&b.entry.rule_index))
        .then_with(|| a.entry.match_index.cmp(&b.entry.match_index))
}

/// The API compares the text `{namespace}/{name}`, which is not the same as comparing the parts: `a-b/x`
/// comes before `a/x`.
fn alphabetically(a: &ObjectKey, b: &ObjectKey) -> Ordering {
    let bytes =
        |key: &ObjectKey| -> Vec<u8> { [key.namespace.as_bytes(), b"/", key.name.as_bytes()].concat() };
    if a.namespace == b.namespace { a.name.cmp(&b.name) } else { bytes(a).cmp(&bytes(b)) }
}

type Specificity = (u8, Reverse<usize>, Reverse<usize>, Reverse<bool>, Reverse<usize>, Reverse<usize>);

/// Smaller is more specific.
fn specificity(matches: &HttpRouteMatch) -> Specificity {
    let characters = |one: &Option<StringMatch>| match one {
        Some(StringMatch::Exact(text) | StringMatch::RegularExpression(text)) => text.chars().count(),
        None => 0,
    };
    let (rank, length, second) = match &matches.path {
        PathMatch::Exact(_) => (0, 0, 0),
        PathMatch::RegularExpression(expression) => (1, expression.chars().count(), 0),
        PathMatch::Prefix(prefix) => (2, prefix.chars().count(), 0),
        // Only competes with its own kind.
        PathMatch::Rpc { service, method } => (3, characters(service), characters(method)),
    };
    (
        rank,
        Reverse(length),
        Reverse(second),
        Reverse(matches.method.is_some()),
        Reverse(matches.headers.len()),
        Reverse(matches.query_params.len()),
    )
}

#[cfg(test)]
mod tests;
