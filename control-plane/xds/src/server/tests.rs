use envoy_types::pb::google::protobuf::Any;

use super::*;
use crate::{Resource, TypeUrl};

type Sender = mpsc::UnboundedSender<Result<DeltaDiscoveryRequest, Status>>;
type Events = std::sync::mpsc::Receiver<Event>;

fn snapshot(text: &str) -> Arc<Snapshot> {
    let kind = TypeUrl::Route;
    let body = Any { type_url: kind.as_str().to_owned(), value: text.as_bytes().to_vec() };
    Arc::new(Snapshot::default().with(kind, [Resource::new("r", body)]))
}

fn start(
    snapshots: &watch::Sender<Arc<Snapshot>>,
    deadline: Duration,
    drain: &CancellationToken,
) -> (Sender, Responses, Events) {
    let (sender, requests) = mpsc::unbounded_channel();
    let requests = tokio_stream::wrappers::UnboundedReceiverStream::new(requests);
    let (event_sender, events) = std::sync::mpsc::channel();
    let options = Options { send_deadline: deadline, ..Options::default() };
    let on_event = move |event| _ = event_sender.send(event);
    let responses = serve(requests, snapshots.subscribe(), options, on_event, drain.clone());
    let subscribe = DeltaDiscoveryRequest {
        type_url: TypeUrl::Route.as_str().to_owned(),
        resource_names_subscribe: vec!["r".to_owned()],
        ..DeltaDiscoveryRequest::default()
    };
    sender.send(Ok(subscribe)).unwrap();
    (sender, responses, events)
}

fn text(response: Option<Result<DeltaDiscoveryResponse, Status>>) -> String {
    let resource = response.unwrap().unwrap().resources.swap_remove(0);
    String::from_utf8(resource.resource.unwrap().value).unwrap()
}

fn closed(events: &Events) -> bool {
    events.try_iter().last().is_some_and(|event| matches!(event, Event::Closed { .. }))
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_gets_the_latest_and_not_everything_between() {
    let snapshots = watch::Sender::new(snapshot("0"));
    let (_requests, mut responses, _events) =
        start(&snapshots, Duration::from_secs(30), &CancellationToken::new());
    assert_eq!(text(responses.next().await), "0");
    for number in 1..=50 {
        snapshots.send_replace(snapshot(&number.to_string()));
        tokio::task::yield_now().await;
    }
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "50") {
        seen.push(text(responses.next().await));
    }
    assert!(seen.len() <= 4, "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_client_is_dropped_at_the_deadline() {
    let snapshots = watch::Sender::new(snapshot("0"));
    let (_requests, responses, events) = start(&snapshots, Duration::from_secs(5), &CancellationToken::new());
    tokio::time::sleep(Duration::from_secs(1)).await;
    snapshots.send_replace(snapshot("1"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!closed(&events));
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(closed(&events));
    drop(responses);
}

#[tokio::test]
async fn draining_and_leaving_end_the_stream() {
    let snapshots = watch::Sender::new(snapshot("0"));
    let drain = CancellationToken::new();
    let (_requests, mut responses, _events) = start(&snapshots, Duration::from_secs(5), &drain);
    assert_eq!(text(responses.next().await), "0");
    drain.cancel();
    assert_eq!(responses.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
    assert!(responses.next().await.is_none());

    let (requests, mut responses, events) =
        start(&snapshots, Duration::from_secs(5), &CancellationToken::new());
    assert_eq!(text(responses.next().await), "0");
    drop(requests);
    assert!(responses.next().await.is_none());
    assert!(closed(&events));
}
