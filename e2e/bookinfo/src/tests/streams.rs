//! Both kinds of stream, with clients as everybody has them.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use super::*;
use crate::streams;

async fn address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve::run(
        listener,
        pod("streams", "v1"),
        streams::routes(),
        std::future::pending(),
        Patience::default(),
    );
    tokio::spawn(serving);
    address
}

#[tokio::test]
async fn a_websocket_gives_back_what_it_gets_and_says_who_asked() {
    let connection = TcpStream::connect(address().await).await.unwrap();
    let (mut socket, answer) = client_async("ws://test/streams/websocket", connection).await.unwrap();
    assert_eq!(header(answer.headers(), "x-bookinfo-peer"), "127.0.0.1");
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(text));
    }
    socket.close(None).await.unwrap();
    assert!(socket.next().await.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn a_grpc_stream_gives_back_each_message_at_once_and_ends_well() {
    let target = format!("http://{}", address().await);
    let channel = tonic::transport::Endpoint::from_shared(target).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let (sender, messages) = tokio::sync::mpsc::channel::<String>(1);
    let messages = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(messages));
    let path = PathAndQuery::from_static("/bookinfo.Streams/Echo");
    let answer = client.streaming(messages, path, ProstCodec::<String, String>::default()).await.unwrap();
    assert_eq!(answer.metadata().get("x-bookinfo-peer").unwrap(), "127.0.0.1");
    let mut answers = answer.into_inner();
    for text in ["one", "two"] {
        sender.send(text.to_owned()).await.unwrap();
        assert_eq!(answers.message().await.unwrap().as_deref(), Some(text));
    }
    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn what_is_no_stream_is_told_so() {
    let base = url(address().await);
    assert_eq!(get(&base, "/streams/websocket", &[]).await.status(), 400);
    assert_eq!(get(&base, "/bookinfo.Streams/Echo", &[]).await.status(), 405);
}
