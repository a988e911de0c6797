//! Settings of what proxies tell, as people write them.

/// Host and port of `host:port`; None if it is no such thing.
pub fn endpoint(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    let is_host = !host.is_empty() && host.bytes().all(known);
    port.parse().ok().filter(|port| is_host && *port > 0).map(|port| (host, port))
}

/// How many of a million `0.5%` and the like are; None if it is no such thing, or more than all.
pub fn millionths(text: &str) -> Option<u32> {
    let (whole, part) = match text.strip_suffix('%')?.split_once('.') {
        Some((whole, part)) => (whole, part),
        None => (text.strip_suffix('%')?, "0"),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() > 3 || part.len() > 4 {
        return None;
    }
    let part: u32 = format!("{part:0<4}").parse().ok()?;
    let all = whole.parse::<u32>().ok()? * 10_000 + part;
    Some(all).filter(|all| *all <= 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        assert_eq!(endpoint("collector.observability.svc:4317"), Some(("collector.observability.svc", 4317)));
        assert_eq!(endpoint("10.0.0.1:1"), Some(("10.0.0.1", 1)));
        for bad in ["", "collector", ":4317", "a:0", "a:65536", "http://a:1", "a b:1", "[::1]:1", "a:"] {
            assert_eq!(endpoint(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_share_is_of_a_million() {
        let cases = [
            ("1%", 10_000),
            ("0%", 0),
            ("100%", 1_000_000),
            ("0.01%", 100),
            ("0.0001%", 1),
            ("12.5%", 125_000),
            ("100.0%", 1_000_000),
        ];
        for (text, expected) in cases {
            assert_eq!(millionths(text), Some(expected), "{text}");
        }
        for bad in ["", "%", "1", "100.1%", "101%", "-1%", ".5%", "1.%", "0.00001%", "1e2%"] {
            assert_eq!(millionths(bad), None, "{bad}");
        }
    }
}
