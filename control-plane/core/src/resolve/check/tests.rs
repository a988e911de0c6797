//! What the CRD lets through and Envoy would refuse, the whole port's routes with it.

use super::*;
use crate::model::UrlRewrite;

fn with(filter: HttpRouteFilter, prefix: &str) -> Option<Finding> {
    let matches =
        vec![HttpRouteMatch { path: PathMatch::Prefix(prefix.to_owned()), ..HttpRouteMatch::default() }];
    rule(&HttpRouteRule { matches, filters: vec![filter], ..HttpRouteRule::default() })
}

fn headers(set: &[(&str, &str)], remove: &[&str]) -> Option<Finding> {
    let modifier = HeaderModifier {
        set: set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        add: Vec::new(),
        remove: remove.iter().map(|name| (*name).to_owned()).collect(),
    };
    with(HttpRouteFilter::ResponseHeaderModifier(modifier), "/")
}

fn rewrite(path: PathModifier, prefix: &str) -> Option<Finding> {
    with(HttpRouteFilter::UrlRewrite(UrlRewrite { hostname: None, path: Some(path) }), prefix)
}

#[test]
fn header_names_are_tokens_and_values_have_no_control_characters() {
    assert_eq!(headers(&[("x-a", "50%\tä"), ("!#$%&'*+-.^_`|~", "")], &["x_b"]), None);
    for name in ["", " ", "a b", "a:b", ":path", "Host", "ä", "a\n"] {
        assert_eq!(
            headers(&[], &[name]).map(|found| found.reason),
            Some(reason::UNSUPPORTED_VALUE),
            "{name:?}"
        );
        assert!(headers(&[(name, "x")], &[]).is_some(), "{name:?}");
    }
    for value in ["a\0", "a\r", "a\nb", "\u{7f}"] {
        assert!(headers(&[("x-a", value)], &[]).is_some(), "{value:?}");
    }
}

#[test]
fn paths_and_hosts_have_no_control_characters() {
    let to = |text: &str| text.to_owned();
    for bad in ["/a\0", "/a\r", "/a\nb"] {
        assert!(rewrite(PathModifier::ReplaceFullPath(to(bad)), "/").is_some());
        assert!(rewrite(PathModifier::ReplacePrefixMatch(to(bad)), "/").is_some());
        let redirect = RequestRedirect { hostname: Some(to(bad)), ..RequestRedirect::default() };
        assert!(with(HttpRouteFilter::RequestRedirect(redirect), "/").is_some());
    }
    assert_eq!(rewrite(PathModifier::ReplaceFullPath(to("/a%20b?x")), "/"), None);
    for bad in ["", "a", "/a?b", "/a#b", "/a\0"] {
        assert!(rewrite(PathModifier::ReplaceFullPath(to("/")), bad).is_some(), "{bad:?}");
    }
}

#[test]
fn a_prefix_that_is_taken_away_is_not_too_long_for_an_expression() {
    let long = format!("/{}", "a".repeat(MAX_STRIPPED));
    let replace =
        |text: &str, prefix: &str| rewrite(PathModifier::ReplacePrefixMatch(text.to_owned()), prefix);
    assert!(replace("/", &long).is_some());
    assert!(replace("", &long).is_some());
    assert_eq!(replace("/", &long[..MAX_STRIPPED]), None);
    assert_eq!(replace("/b", &long), None, "no expression is needed");
}
