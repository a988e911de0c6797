//! Path matches and path changes.

use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher};
use meshwright_core::model::{PathMatch, PathModifier};

/// A path match in Envoy's form. Prefixes come without trailing slash and match whole elements.
pub(super) fn specifier(path: &PathMatch) -> PathSpecifier {
    match path {
        PathMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        PathMatch::Prefix(prefix) if prefix == "/" => PathSpecifier::Prefix("/".to_owned()),
        PathMatch::Prefix(prefix) => PathSpecifier::PathSeparatedPrefix(prefix.clone()),
        PathMatch::RegularExpression(expression) => PathSpecifier::SafeRegex(regex(expression.clone())),
        PathMatch::Rpc { .. } => specifier(&path.of_path()),
    }
}

pub(super) fn regex(regex: String) -> RegexMatcher {
    RegexMatcher { regex, engine_type: None }
}

/// How a path is to be changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Rewrite {
    /// Replace the matched prefix by this.
    Prefix(String),
    /// Replace by an expression.
    Regex(RegexMatchAndSubstitute),
}

/// The change for a route that matches `path`. Slashes at the seam need care: `/a` to `/` must not make `//b`
/// of `/a/b`, and `/` to `/x` must not make `/xb` of `/b`.
pub(super) fn rewrite(modifier: &PathModifier, path: &PathMatch) -> Rewrite {
    match modifier {
        PathModifier::ReplaceFullPath(full) => substitute("^.*$".to_owned(), literal(full)),
        PathModifier::ReplacePrefixMatch(replacement) => {
            let prefix = match path {
                PathMatch::Prefix(prefix) => prefix.trim_end_matches('/'),
                // Refused by core; whatever it is, the whole path is not a prefix of anything.
                PathMatch::Exact(_) | PathMatch::RegularExpression(_) | PathMatch::Rpc { .. } => "",
            };
            match (prefix, replacement.trim_end_matches('/')) {
                ("", replacement) => Rewrite::Prefix(format!("{replacement}/")),
                (prefix, "") => substitute(format!("^{}/?(.*)$", quote(prefix)), r"/\1".to_owned()),
                (_, replacement) => Rewrite::Prefix(replacement.to_owned()),
            }
        }
    }
}

fn substitute(pattern: String, substitution: String) -> Rewrite {
    Rewrite::Regex(RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution })
}

/// A text as RE2 substitution that means itself.
fn literal(text: &str) -> String {
    text.replace('\\', r"\\")
}

/// A text as RE2 expression that means itself.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && c != '/' && c != '_' && c != '-' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}
