//! A client that counts, against services that answer, refuse, and say goodbye.

use axum::http::HeaderMap as Headers;
use axum::routing::get as on_get;
use clap::Parser;

use super::*;
use crate::args::{Args, Service};
use crate::caller;

/// A caller of these URLs, and what it says of itself once `enough` of it is so.
async fn calls(urls: &[String], enough: impl Fn(&Value) -> bool) -> Value {
    let words = ["bookinfo", "caller", "--rate", "50", "--user-agent", "marked", "--url"];
    let args = Args::try_parse_from(words.map(str::to_owned).into_iter().chain([urls.join(",")])).unwrap();
    let Service::Caller(targets) = args.service else { unreachable!("another service") };
    let base = start(pod("caller", "v1"), caller::routes(targets)).await;
    let looking = async {
        loop {
            let calls = get_json(&base, "/calls").await;
            if enough(&calls) {
                return calls;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENT, looking).await.unwrap()
}

#[tokio::test]
async fn answers_and_failures_are_counted_for_each_target() {
    let details = start(pod("details", "v1"), details::routes(pod("details", "v1"))).await;
    let urls = [details.join("/details/0"), details.join("/nothing"), nobody().await.join("/")];
    let kept = |target: &Value| target["kept"] == 1 && target["answered"].as_u64() > Some(3);
    let failed = |target: &Value| target["failed"].as_u64() > Some(3);
    let calls = calls(&urls, |calls| {
        let targets = calls["targets"].as_array().unwrap();
        kept(&targets[0]) && failed(&targets[1]) && failed(&targets[2])
    })
    .await;
    assert_eq!(
        (&calls["targets"][0]["url"], &calls["targets"][0]["failed"]),
        (&urls[0].as_str().into(), &0.into())
    );
    let said = |target: usize| calls["targets"][target]["failures"][0].as_str().unwrap().to_owned();
    assert!(said(1).ends_with("status 404 Not Found"), "{}", said(1));
    for part in [" from port ", " to 127.0.0.1:", ", open for ", ", call 1, at 1"] {
        assert!(said(1).contains(part), "{}", said(1));
    }
    assert!(said(2).contains("opening: "), "{}", said(2));
    assert!(calls["connections"].as_u64() > Some(12), "{calls}");
}

#[tokio::test]
async fn each_connection_has_a_number_and_one_that_says_goodbye_is_not_broken() {
    let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let goodbye = on_get(async move |headers: Headers| {
        sender.send(header(&headers, "user-agent").to_owned()).unwrap();
        [("connection", "close")]
    });
    let polite = start(pod("details", "v1"), Router::new().route("/", goodbye)).await;
    let calls = calls(&[polite.join("/")], |calls| calls["targets"][0]["closed"].as_u64() > Some(0)).await;
    assert_eq!(calls["targets"][0]["broken"], 0, "{calls}");
    let mut numbers = std::collections::BTreeSet::new();
    while let Ok(name) = seen.try_recv() {
        assert!(
            numbers.insert(name.strip_prefix("marked-").unwrap().parse::<u64>().unwrap()),
            "{name} twice"
        );
    }
    assert!(numbers.contains(&1), "{numbers:?}");
}
