use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::CompiledRule;
use crate::model::{ObjectKey, RouteKind, StringMatch, ValueMatch};

fn value(name: String) -> ValueMatch {
    ValueMatch { name, value: StringMatch::Exact("x".to_owned()) }
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let path = prop_oneof![
        Just(PathMatch::Exact("/e".to_owned())),
        "/[a-b]{0,3}".prop_map(PathMatch::Prefix),
        "/[a-b]{0,2}".prop_map(PathMatch::RegularExpression),
    ];
    let hostname = proptest::sample::select(vec!["*", "*.a.com", "a.com", "long.a.com", "*.long.a.com"]);
    (hostname, path, any::<bool>(), 0_usize..3, 0_usize..3, 0_i64..2, 0_usize..2, 0_usize..2, 0_usize..2)
        .prop_map(|(hostname, path, method, headers, params, created, name, rule_index, match_index)| {
            Candidate {
                hostname: hostname.to_owned(),
                created,
                entry: Arc::new(RouteEntry {
                    kind: RouteKind::Http,
                    route: ObjectKey::new(["a", "a-b"][name], "r"),
                    rule_index,
                    match_index,
                    matches: HttpRouteMatch {
                        path,
                        headers: (0..headers).map(|index| value(format!("h{index}"))).collect(),
                        query_params: (0..params).map(|index| value(format!("q{index}"))).collect(),
                        method: method.then(|| "GET".to_owned()),
                    },
                    rule: Arc::new(CompiledRule::default()),
                }),
            }
        })
}

/// The specification, line by line: whether `a` has to win, `b` has to win, or this line says nothing.
fn by_the_book(a: &Candidate, b: &Candidate) -> Ordering {
    let more = |a: usize, b: usize| b.cmp(&a);
    let exact_host = |c: &Candidate| if c.hostname.contains('*') { 0 } else { c.hostname.len() };
    let exact_path = |c: &Candidate| usize::from(matches!(c.entry.matches.path, PathMatch::Exact(_)));
    let regex = |c: &Candidate| match &c.entry.matches.path {
        PathMatch::RegularExpression(text) => 1 + text.len(),
        _ => 0,
    };
    let prefix = |c: &Candidate| match &c.entry.matches.path {
        PathMatch::Prefix(text) => text.len(),
        _ => 0,
    };
    let lines = [
        more(exact_host(a), exact_host(b)),
        more(a.hostname.len(), b.hostname.len()),
        more(exact_path(a), exact_path(b)),
        more(regex(a), regex(b)),
        more(prefix(a), prefix(b)),
        more(usize::from(a.entry.matches.method.is_some()), usize::from(b.entry.matches.method.is_some())),
        more(a.entry.matches.headers.len(), b.entry.matches.headers.len()),
        more(a.entry.matches.query_params.len(), b.entry.matches.query_params.len()),
        a.created.cmp(&b.created),
        a.entry.route.to_string().cmp(&b.entry.route.to_string()),
        a.entry.rule_index.cmp(&b.entry.rule_index),
        a.entry.match_index.cmp(&b.entry.match_index),
    ];
    lines.into_iter().find(|line| line.is_ne()).unwrap_or(Ordering::Equal)
}

proptest! {
    #[test]
    fn the_order_is_the_specifications(a in candidate(), b in candidate()) {
        prop_assert_eq!(compare(&a, &b), by_the_book(&a, &b));
        prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
    }

    #[test]
    fn the_order_is_transitive(a in candidate(), b in candidate(), c in candidate()) {
        let mut sorted = [a, b, c];
        sorted.sort_by(compare);
        prop_assert!(compare(&sorted[0], &sorted[1]).is_le());
        prop_assert!(compare(&sorted[1], &sorted[2]).is_le());
        prop_assert!(compare(&sorted[0], &sorted[2]).is_le());
    }
}
