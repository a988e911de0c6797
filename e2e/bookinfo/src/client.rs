//! One GET to another service, with a deadline and an error that a reader of the page understands.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client as HyperClient, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use crate::args::BaseUrl;

/// Our answers are a few hundred bytes; whatever is larger is not one of ours.
const LARGEST_BODY: usize = 256 * 1024;

#[derive(Clone)]
pub struct Client {
    http: HyperClient<HttpConnector, Empty<Bytes>>,
    timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    pub service: &'static str,
    pub cause: Cause,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    Timeout(Duration),
    Unreachable(String),
    Status(StatusCode),
    Body(String),
}

impl Client {
    pub fn new(timeout: Duration) -> Self {
        // No idle connections: a kept one would pin us to the pod it was opened to, and without a mesh a
        // Service balances connections, so the page would never change its reviews.
        let http = HyperClient::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Self { http, timeout }
    }

    pub async fn get<T: DeserializeOwned>(
        &self,
        service: &'static str,
        base: &BaseUrl,
        path: &str,
        headers: HeaderMap,
    ) -> Result<T, CallError> {
        let answer = match tokio::time::timeout(self.timeout, self.fetch(base, path, headers)).await {
            Ok(answer) => answer,
            Err(_) => Err(Cause::Timeout(self.timeout)),
        };
        answer.map_err(|cause| {
            let error = CallError { service, cause };
            tracing::warn!(%error, path, "a backend failed");
            error
        })
    }

    async fn fetch<T: DeserializeOwned>(
        &self,
        base: &BaseUrl,
        path: &str,
        headers: HeaderMap,
    ) -> Result<T, Cause> {
        let mut request = Request::get(base.join(path))
            .body(Empty::new())
            .map_err(|error| Cause::Unreachable(error.to_string()))?;
        *request.headers_mut() = headers;
        let response =
            self.http.request(request).await.map_err(|error| Cause::Unreachable(innermost(&error)))?;
        if response.status() != StatusCode::OK {
            return Err(Cause::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LARGEST_BODY);
        let body = body.collect().await.map_err(|error| Cause::Body(innermost(error.as_ref())))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| Cause::Body(error.to_string()))
    }
}

impl CallError {
    /// What a gateway would answer in our place.
    pub fn status(&self) -> StatusCode {
        match self.cause {
            Cause::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Cause::Unreachable(_) | Cause::Status(_) | Cause::Body(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service;
        match &self.cause {
            Cause::Timeout(limit) => write!(f, "{service} did not answer within {limit:?}"),
            Cause::Unreachable(why) => write!(f, "{service} could not be reached: {why}"),
            Cause::Status(status) => write!(f, "{service} answered {status}"),
            Cause::Body(why) => write!(f, "{service} sent an answer that cannot be read: {why}"),
        }
    }
}

impl Error for CallError {}

/// hyper's outer errors say "client error (Connect)"; the reason people know is at the bottom of the chain.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
