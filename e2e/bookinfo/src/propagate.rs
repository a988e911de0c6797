//! Which request headers go on to the next service.
//!
//! A proxy sees requests come in and go out but cannot know which belong together; only the application can
//! carry a trace (or a routing header such as `end-user`) from one to the other.

use http::header::{HeaderMap, HeaderName, HeaderValue, USER_AGENT};

pub const END_USER: HeaderName = HeaderName::from_static("end-user");

/// Names the tracing systems in use read: W3C, B3 (one header and several), Jaeger, Datadog, SkyWalking,
/// the clouds. Cookies and credentials are left out on purpose: no backend needs them.
const FORWARDED: &[&str] = &[
    "x-request-id",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "sw8",
    "x-cloud-trace-context",
    "x-amzn-trace-id",
    "x-ot-span-context",
    "grpc-trace-bin",
];

/// The headers for the next request, on behalf of `user`.
pub fn onward(incoming: &HeaderMap, user: Option<&HeaderValue>) -> HeaderMap {
    let mut onward = HeaderMap::new();
    for name in FORWARDED.iter().copied().chain([USER_AGENT.as_str()]) {
        // tracestate and baggage may come as several lines, which mean one list.
        for value in incoming.get_all(name) {
            onward.append(HeaderName::from_static(name), value.clone());
        }
    }
    if let Some(user) = user {
        onward.insert(END_USER, user.clone());
    }
    onward
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn every_listed_header_goes_on() {
        for name in FORWARDED {
            assert_eq!(onward(&headers(&[(name, "1")]), None).get(*name).unwrap(), "1");
        }
    }

    #[test]
    fn lists_keep_all_their_lines() {
        let mut incoming = headers(&[("tracestate", "a=1")]);
        incoming.append("tracestate", HeaderValue::from_static("b=2"));
        assert_eq!(onward(&incoming, None).get_all("tracestate").iter().count(), 2);
    }

    #[test]
    fn credentials_and_hop_headers_stay() {
        let incoming = headers(&[
            ("cookie", "bookinfo-user=jason"),
            ("authorization", "Bearer x"),
            ("host", "bookinfo"),
            ("connection", "close"),
            ("content-length", "3"),
            ("user-agent", "curl"),
        ]);
        assert_eq!(onward(&incoming, None), headers(&[("user-agent", "curl")]));
    }

    #[test]
    fn the_user_is_the_one_the_caller_found() {
        let incoming = headers(&[("end-user", "mallory")]);
        let jason = HeaderValue::from_static("jason");
        assert_eq!(onward(&incoming, Some(&jason)), headers(&[("end-user", "jason")]));
        assert!(onward(&incoming, None).is_empty());
    }
}
