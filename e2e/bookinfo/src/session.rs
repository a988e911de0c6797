//! Who the page is shown to. No password and no signature: the name is a routing key for the walk-through,
//! and whoever can set a cookie can as well send the `end-user` header.

use http::header::{COOKIE, HeaderMap, HeaderValue};

use crate::propagate::END_USER;

const NAME: &str = "bookinfo-user";
const LONGEST: usize = 40;

/// The user of this request: the `end-user` header, else the cookie, else the user `test` for `?u=test`.
pub fn user(headers: &HeaderMap, u: Option<&str>) -> Option<HeaderValue> {
    if let Some(user) = headers.get(END_USER) {
        return Some(user.clone());
    }
    let signed_in = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(name, value)| (name == NAME && is_name(value)).then_some(value));
    let name = signed_in.or((u == Some("test")).then_some("test"))?;
    HeaderValue::from_str(name).ok()
}

/// The `set-cookie` value of a login; none if the name cannot be a user's.
pub fn login(username: &str) -> Option<HeaderValue> {
    let username = username.trim();
    if !is_name(username) {
        return None;
    }
    HeaderValue::from_str(&format!("{NAME}={username}; Path=/; HttpOnly; SameSite=Lax")).ok()
}

pub fn logout() -> HeaderValue {
    HeaderValue::from_static("bookinfo-user=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax")
}

/// Only what needs no quoting in a cookie, a header or a curl line.
fn is_name(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn the_header_wins_over_the_cookie_and_the_cookie_over_the_query() {
        let mut headers = with(COOKIE, "theme=x; bookinfo-user=jason");
        assert_eq!(user(&headers, Some("test")).unwrap(), "jason");
        headers.insert(END_USER, HeaderValue::from_static("eve"));
        assert_eq!(user(&headers, None).unwrap(), "eve");
        assert_eq!(user(&HeaderMap::new(), Some("test")).unwrap(), "test");
        assert_eq!(user(&HeaderMap::new(), Some("normal")), None);
    }

    #[test]
    fn a_login_is_read_back_as_the_same_user() {
        let cookie = login(" jason ").unwrap();
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&pair).unwrap())]);
        assert_eq!(user(&headers, None).unwrap(), "jason");
    }

    #[test]
    fn names_that_could_break_out_of_a_cookie_are_refused() {
        for bad in ["", " ", "a;b", "a\r\nx: y", "<b>", "a b", &"x".repeat(41)] {
            assert!(login(bad).is_none(), "{bad:?}");
        }
        assert_eq!(user(&with(COOKIE, "bookinfo-user=<script>"), None), None);
    }
}
