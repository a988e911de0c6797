//! What a GRPCRoute asks of a path: `/<service>/<method>`.

use std::borrow::Cow;

use super::{PathMatch, StringMatch};

/// A service or method that is not asked for.
const ANY: &str = "[^/]+";

impl PathMatch {
    /// The same without [`PathMatch::Rpc`].
    pub fn of_path(&self) -> Cow<'_, Self> {
        match self {
            Self::Rpc { service, method } => Cow::Owned(of_rpc(service.as_ref(), method.as_ref())),
            other => Cow::Borrowed(other),
        }
    }
}

fn of_rpc(service: Option<&StringMatch>, method: Option<&StringMatch>) -> PathMatch {
    match (service, method) {
        (None, None) => PathMatch::default(),
        (Some(StringMatch::Exact(service)), Some(StringMatch::Exact(method))) => {
            PathMatch::Exact(format!("/{service}/{method}"))
        }
        (Some(StringMatch::Exact(service)), None) => PathMatch::Prefix(format!("/{service}")),
        _ => PathMatch::RegularExpression(format!("/{}/{}", expression(service), expression(method))),
    }
}

fn expression(of: Option<&StringMatch>) -> String {
    match of {
        None => ANY.to_owned(),
        Some(StringMatch::Exact(text)) => quote(text),
        Some(StringMatch::RegularExpression(expression)) => format!("(?:{expression})"),
    }
}

/// A text as an expression that means itself.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_a_path() {
        let exact = |text: &str| Some(StringMatch::Exact(text.to_owned()));
        let like = |text: &str| Some(StringMatch::RegularExpression(text.to_owned()));
        let expression = |text: &str| PathMatch::RegularExpression(text.to_owned());
        for (service, method, expected) in [
            (None, None, PathMatch::Prefix("/".to_owned())),
            (exact("shop.Cart"), exact("Add"), PathMatch::Exact("/shop.Cart/Add".to_owned())),
            (exact("shop.Cart"), None, PathMatch::Prefix("/shop.Cart".to_owned())),
            (None, exact("Add"), expression("/[^/]+/Add")),
            (like("shop.*|web"), None, expression("/(?:shop.*|web)/[^/]+")),
            (exact("shop.Cart"), like("A.+"), expression(r"/shop\.Cart/(?:A.+)")),
        ] {
            assert_eq!(*PathMatch::Rpc { service, method }.of_path(), expected);
        }
    }
}
