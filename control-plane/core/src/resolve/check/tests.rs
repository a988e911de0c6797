//! What the CRD lets through and Envoy would refuse, the whole port's routes with it.

use super::*;
use crate::model::{UrlRewrite, ValueMatch};

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

fn matching(matches: HttpRouteMatch) -> Option<&'static str> {
    let rule = HttpRouteRule { matches: vec![matches], ..HttpRouteRule::default() };
    super::rule(&rule).map(|finding| finding.reason)
}

#[test]
fn services_and_methods_have_no_slash() {
    let exact = |text: &str| Some(StringMatch::Exact(text.to_owned()));
    let like = |text: &str| Some(StringMatch::RegularExpression(text.to_owned()));
    let call = |service, method| {
        matching(HttpRouteMatch { path: PathMatch::Rpc { service, method }, ..HttpRouteMatch::default() })
    };
    for bad in ["/", "shop.Cart/", "/shop.Cart", "shop.Cart/Add", "", "a?b", "a#b", "a\0"] {
        assert_eq!(call(exact(bad), None), Some(reason::UNSUPPORTED_VALUE), "{bad:?}");
        assert_eq!(call(exact("shop.Cart"), exact(bad)), Some(reason::UNSUPPORTED_VALUE), "{bad:?}");
    }
    for method in ["/", ""] {
        assert_eq!(call(None, exact(method)), Some(reason::UNSUPPORTED_VALUE), "{method:?}");
    }
    assert_eq!(call(exact("shop.Cart"), exact("Add")), None);
    assert_eq!(call(None, exact("Add")), None);
    assert_eq!(call(like("shop/.*"), like("A|B")), None, "an expression may say what it likes");
}

#[test]
fn names_of_headers_and_parameters_are_what_envoy_takes() {
    let value = |name: &str| ValueMatch { name: name.to_owned(), value: StringMatch::Exact("1".to_owned()) };
    let header = |name| matching(HttpRouteMatch { headers: vec![value(name)], ..HttpRouteMatch::default() });
    let parameter = |name: &str| {
        matching(HttpRouteMatch { query_params: vec![value(name)], ..HttpRouteMatch::default() })
    };
    for bad in ["", "a b", "a:b", ":path", "a\0", "a\n", "ä"] {
        assert_eq!(header(bad), Some(reason::UNSUPPORTED_VALUE), "{bad:?}");
    }
    assert_eq!(header("X-Version_1"), None);
    assert_eq!(parameter("a b"), None);
    for bad in ["", &"a".repeat(MAX_PARAMETER + 1)] {
        assert_eq!(parameter(bad), Some(reason::UNSUPPORTED_VALUE));
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
