//! All services together, on loopback with ports the kernel picks.

mod caller;
mod drain;
mod mesh;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::args::{BackendUrls, BaseUrl, ReviewsVersion};
use crate::client::Client;
use crate::model::Pod;
use crate::serve::{self, Patience};
use crate::{details, productpage, ratings, reviews};

/// Long enough for a busy build machine, except where a test waits for it to pass.
const PATIENT: Duration = Duration::from_secs(10);

fn pod(service: &str, version: &str) -> Pod {
    Pod { service: service.into(), version: version.into(), podname: format!("{service}-{version}-pod") }
}

fn url(address: SocketAddr) -> BaseUrl {
    format!("http://{address}").parse().unwrap()
}

async fn start(me: Pod, routes: Router) -> BaseUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve::run(listener, me, routes, std::future::pending(), Patience::default()));
    url(address)
}

async fn start_ratings() -> BaseUrl {
    start(pod("ratings", "v1"), ratings::routes(pod("ratings", "v1"))).await
}

async fn start_reviews(version: ReviewsVersion, ratings: BaseUrl) -> BaseUrl {
    let me = pod("reviews", version.as_str());
    start(me.clone(), reviews::routes(me, version, ratings, Client::new(PATIENT))).await
}

/// A productpage and a details service around the given reviews and ratings.
async fn start_page(reviews: BaseUrl, ratings: BaseUrl, timeout: Duration) -> BaseUrl {
    let details = start(pod("details", "v1"), details::routes(pod("details", "v1"))).await;
    let me = pod("productpage", "v1");
    let urls = BackendUrls { details, reviews, ratings };
    start(me.clone(), productpage::routes(me, urls, Client::new(timeout))).await
}

/// An address where nobody listens.
async fn nobody() -> BaseUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    url(listener.local_addr().unwrap())
}

async fn get(base: &BaseUrl, path: &str, headers: &[(&'static str, &str)]) -> Response<String> {
    let client = HyperClient::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut request = Request::get(base.join(path)).body(Empty::new()).unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (head, body) = client.request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

async fn get_json(base: &BaseUrl, path: &str) -> Value {
    serde_json::from_str(get(base, path, &[]).await.body()).unwrap()
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}
