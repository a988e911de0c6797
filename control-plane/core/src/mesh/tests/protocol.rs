use super::*;
use Protocol::{Detect, Http, Tcp};

#[test]
fn app_protocol_comes_first() {
    for (application, expected) in [
        ("kubernetes.io/h2c", Http),
        ("kubernetes.io/ws", Http),
        ("http", Http),
        ("HTTP", Http),
        ("http2", Http),
        ("http-alt", Http),
        ("grpc", Http),
        ("grpc-web", Http),
        ("kubernetes.io/wss", Tcp),
        ("https", Tcp),
        ("tls", Tcp),
        ("tcp", Tcp),
        ("mysql", Tcp),
        ("example.com/anything", Tcp),
    ] {
        // Whatever name and number say.
        assert_eq!(protocol(&port("tcp", 3306, Some(application))), expected, "{application}");
        assert_eq!(protocol(&port("http", 80, Some(application))), expected, "{application}");
    }
    assert_eq!(protocol(&port("http", 80, Some(""))), Http);
}

#[test]
fn the_first_word_of_the_name_counts() {
    for (name, expected) in [
        ("http", Http),
        ("http-web", Http),
        ("http2", Http),
        ("http2-api", Http),
        ("grpc", Http),
        ("grpc-web", Http),
        ("https", Tcp),
        ("https-web", Tcp),
        ("tls", Tcp),
        ("tcp", Tcp),
        ("tcp-http", Tcp),
        ("mysql", Tcp),
        ("mongo-0", Tcp),
        ("redis", Tcp),
        ("web", Detect),
        ("httpd", Detect),
        ("api-http", Detect),
        ("metrics", Detect),
        ("", Detect),
    ] {
        assert_eq!(protocol(&port(name, 8080, None)), expected, "{name}");
    }
    assert_eq!(protocol(&port("http-db", 3306, None)), Http, "what is declared is more than a number");
}

#[test]
fn nobody_waits_for_the_client_where_the_server_begins() {
    for number in [25, 465, 587, 993, 1433, 3306, 5432, 6379, 9042, 9300, 11211, 27017] {
        assert_eq!(protocol(&port("", number, None)), Tcp, "{number}");
    }
    for number in [80, 443, 8080, 8443, 9090] {
        assert_eq!(protocol(&port("", number, None)), Detect, "{number}");
    }
}
