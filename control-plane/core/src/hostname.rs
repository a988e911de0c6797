//! Hostnames of listeners and routes: exact, `*.suffix`, or `*` for any. A wildcard stands for one or more
//! labels.

use std::cmp::Ordering;

/// Matches every host.
pub const ANY: &str = "*";

/// The form that the rest of this crate uses: lower case, and [`ANY`] for an absent or empty hostname.
pub fn normalize(hostname: Option<&str>) -> String {
    match hostname {
        None | Some("") => ANY.to_owned(),
        Some(hostname) => hostname.to_ascii_lowercase(),
    }
}

/// Whether every host that `inner` stands for is one that `outer` stands for.
pub fn covers(outer: &str, inner: &str) -> bool {
    if outer == ANY || outer == inner {
        return true;
    }
    // `*.example.com` covers `a.example.com` and `*.a.example.com`, not `example.com`: the dot stays in the
    // suffix.
    let Some(suffix) = outer.strip_prefix('*') else { return false };
    let inner = inner.strip_prefix('*').unwrap_or(inner);
    inner.len() > suffix.len() && inner.ends_with(suffix)
}

/// The hosts that both stand for, as one hostname; None if there is none. One of two that overlap always
/// covers the other.
pub fn intersection(a: &str, b: &str) -> Option<String> {
    if covers(a, b) {
        Some(b.to_owned())
    } else if covers(b, a) {
        Some(a.to_owned())
    } else {
        None
    }
}

/// Orders by how specific a hostname is, most specific first: exact before wildcard, more characters before
/// fewer.
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    let rank = |hostname: &str| (hostname.starts_with('*'), std::cmp::Reverse(hostname.len()));
    rank(a).cmp(&rank(b))
}

/// The index of the hostname that a request for `host` (itself possibly a wildcard) belongs to: the most
/// specific one that covers it.
pub fn most_specific<'a>(hostnames: impl Iterator<Item = &'a str>, host: &str) -> Option<usize> {
    hostnames
        .enumerate()
        .filter(|(_, hostname)| covers(hostname, host))
        .min_by(|(_, a), (_, b)| by_specificity(a, b))
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_labels_below_it_but_not_itself_bare() {
        assert!(covers("*.example.com", "a.example.com"));
        assert!(covers("*.example.com", "b.a.example.com"));
        assert!(covers("*.example.com", "*.a.example.com"));
        assert!(covers("*.example.com", "*.example.com"));
        assert!(!covers("*.example.com", "example.com"));
        assert!(!covers("*.example.com", "aexample.com"));
        assert!(!covers("a.example.com", "*.example.com"));
        assert!(covers(ANY, "*.example.com"));
    }

    #[test]
    fn the_intersection_is_the_narrower_one() {
        assert_eq!(intersection("*.example.com", "a.example.com").as_deref(), Some("a.example.com"));
        assert_eq!(intersection("*.a.example.com", "*.example.com").as_deref(), Some("*.a.example.com"));
        assert_eq!(intersection("*.example.com", "example.org"), None);
        assert_eq!(intersection("*.example.com", "*"), Some("*.example.com".to_owned()));
    }

    #[test]
    fn a_host_belongs_to_the_most_specific_hostname() {
        let hostnames = ["*", "*.example.com", "*.foo.example.com", "a.foo.example.com"];
        let pick = |host| most_specific(hostnames.iter().copied(), host);
        assert_eq!(pick("a.foo.example.com"), Some(3));
        assert_eq!(pick("b.foo.example.com"), Some(2));
        assert_eq!(pick("b.example.com"), Some(1));
        assert_eq!(pick("other.org"), Some(0));
        assert_eq!(pick("*.foo.example.com"), Some(2));
    }
}
