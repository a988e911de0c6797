//! Connections that last: what comes in goes back, by WebSocket and by gRPC, until the client has enough. To see what a proxy's rollout
//! does to them.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::{SinkExt, StreamExt, TryStreamExt, stream};
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT};
use http::header::{SEC_WEBSOCKET_KEY, UPGRADE};
use http::{StatusCode, Version};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::serve::error;

/// Where the WebSocket is.
const WEBSOCKET: &str = "/streams/websocket";
/// A gRPC method; its messages may be of any type.
const GRPC: &str = "/bookinfo.Streams/Echo";
/// In the answer: the address that the stream comes from, which behind a gateway is that of one of its pods.
const PEER: HeaderName = HeaderName::from_static("x-bookinfo-peer");

pub fn routes() -> Router {
    Router::new().route(WEBSOCKET, get(websocket)).route(GRPC, post(grpc))
}

async fn websocket(ConnectInfo(peer): ConnectInfo<SocketAddr>, mut request: Request) -> Response {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = key else {
        return error(StatusCode::BAD_REQUEST, "this is a WebSocket");
    };
    tokio::spawn(echo(hyper::upgrade::on(&mut request)));
    let headers = [
        (CONNECTION, "Upgrade".to_owned()),
        (UPGRADE, "websocket".to_owned()),
        (SEC_WEBSOCKET_ACCEPT, accept),
        (PEER, peer.ip().to_string()),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

async fn echo(upgrade: OnUpgrade) {
    let connection: Upgraded = match upgrade.await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%error, "no WebSocket came of a handshake"),
    };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        // Pings and the end are answered by the library itself.
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// The messages go back as they are, length and all, so none of them has to be understood.
async fn grpc(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request) -> Response {
    let is_grpc =
        request.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    if !is_grpc || request.version() != Version::HTTP_2 {
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "this is a gRPC method, on HTTP/2");
    }
    let messages = request.into_body().into_data_stream().map_ok(Frame::data);
    let status = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from(0))]);
    let end = stream::iter([Ok(Frame::trailers(status))]);
    let headers = [(CONTENT_TYPE, "application/grpc".to_owned()), (PEER, peer.ip().to_string())];
    (headers, Body::new(StreamBody::new(messages.chain(end)))).into_response()
}
