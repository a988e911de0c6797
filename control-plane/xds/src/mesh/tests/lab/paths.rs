//! Every protocol on every way: it arrives, from the pod that it left, and nothing of it is lost.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

const WEB: &str = "10.88.0.1:80";

#[tokio::test(flavor = "multi_thread")]
async fn every_protocol_arrives_on_every_way() {
    let Some(lab) = lab(mesh(), |_| {}).await else { return };
    let front = lab.pod("front");

    // To a Service, over mutual TLS: the application's caller is the proxy in its own pod.
    assert_eq!(front.source(WEB).await, "from 10.77.0.21");
    assert_eq!(front.source("[fd88::1]:80").await, "from fd77::21");
    assert_eq!(front.source("10.88.0.3:8000").await, "from 10.77.0.21", "detected");
    for address in [WEB, "10.88.0.3:8000"] {
        assert_eq!(front.get_http2(address).await.unwrap(), "from 10.77.0.21\nHTTP/2.0 /two\n");
    }
    // The server speaks first; detected where nothing was declared, after a moment.
    for address in ["10.88.0.2:3306", "10.88.0.4:8000"] {
        assert_eq!(front.talk(address).await.unwrap(), "hello 10.77.0.21 ping bye", "{address}");
    }
    // To itself.
    assert_eq!(front.source("10.88.0.5:80").await, "from 10.77.0.11");

    // To pods by their own addresses, over mutual TLS, too.
    assert_eq!(front.source("10.77.0.21:8080").await, "from 10.77.0.21");
    assert_eq!(front.source("[fd77::21]:8080").await, "from fd77::21");
    assert_eq!(front.source("10.77.0.12:8080").await, "from 10.77.0.12", "on the same node");
    assert_eq!(front.talk("10.77.0.21:3306").await.unwrap(), "hello 10.77.0.21 ping bye");

    // In plaintext to whoever is outside, with the pod's own address; and from outside.
    assert_eq!(front.source("10.77.0.99:8080").await, "from 10.77.0.11");
    assert_eq!(front.source("[fd77::99]:8080").await, "from fd77::11");
    assert_eq!(front.talk("10.77.0.99:3306").await.unwrap(), "hello 10.77.0.11 ping bye");
    assert_eq!(lab.pod("outside").source("10.77.0.21:8080").await, "from 10.77.0.99");

    // A Service that has both: each endpoint in its own way.
    let mut sources = std::collections::BTreeSet::new();
    until("both endpoints answer", async || {
        sources.insert(front.source("10.88.0.6:80").await);
        (sources.len() == 2).then_some(())
    })
    .await;
    assert!(sources.contains("from 10.77.0.11") && sources.contains("from 10.77.0.21"), "{sources:?}");

    let callers = lab.callers("back", |callers| callers.len() >= 9).await;
    let front = "spiffe://cluster.local/ns/shop/sa/front";
    let back = "spiffe://cluster.local/ns/shop/sa/back";
    for caller in &callers {
        let known = [format!("{front}|8080|{back}"), format!("{front}|3306|{back}")];
        assert!(known.contains(caller), "{caller}");
    }
    for (node, _) in &lab.nodes {
        assert_eq!(node.refused(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_is_what_it_would_be_without_a_proxy() {
    let Some(lab) = lab(mesh(), |_| {}).await else { return };
    let front = lab.pod("front");
    let sent = "X-Envoy-Retry-On: 5xx\r\nx-envoy-upstream-rq-timeout-ms: 1\r\nX-Forwarded-Client-Cert: By=me\r\n\
                X-Meshwright-Destination: 1.2.3.4:5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 9.9.9.9\r\nX-Case-Kept: Yes\r\n";
    let (head, body) = front.get(WEB, sent).await.unwrap();
    assert!(body.contains("GET /path?q=1 HTTP/1.1\r\n"), "{body}");
    for kept in
        ["Host: shop.example", "X-Forwarded-Proto: https", "X-Forwarded-For: 9.9.9.9", "X-Case-Kept: Yes"]
    {
        assert!(body.contains(&format!("{kept}\r\n")), "{kept} is not in {body}");
    }
    let lower = body.to_ascii_lowercase();
    for gone in ["x-envoy", "client-cert", "x-meshwright", "x-request-id"] {
        assert!(!lower.contains(gone), "{gone} is in {body}");
    }
    assert!(head.contains("X-Served-By: app\r\n"), "{head}");
    assert!(!head.to_ascii_lowercase().contains("x-envoy") && !head.contains("server:"), "{head}");

    // A client that may not keep its connection, and one that does not want to.
    let mut stream = front.connect(WEB).await.unwrap();
    let (head, body) = client::get(&mut stream, "HTTP/1.0", "").await.unwrap();
    assert!(head.contains("200") && body.starts_with("from 10.77.0.21"), "{head}{body}");
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    let (_, body) = front.get(WEB, "Connection: close\r\n").await.unwrap();
    assert!(body.starts_with("from 10.77.0.21"), "{body}");

    let mut stream = front.connect(WEB).await.unwrap();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let (head, _) = client::get(&mut stream, "HTTP/1.1", upgrade).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"over the socket\n").await.unwrap();
    assert_eq!(client::line(&mut stream).await.unwrap(), "over the socket");
}
