//! When policies are written, against an API server that takes everything.

use std::convert::Infallible;

use http::{Request, Response};
use kube::client::Body;
use kube::runtime::events::{Recorder, Reporter};
use meshwright_core::conditions::{ACCEPTED, reason};
use meshwright_core::status::{ConditionUpdate, Finding, PolicyStatus, PolicyStatuses};
use meshwright_index::{Live, LiveObjects};
use meshwright_k8s::{Update, lease::Leadership};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, sleep_until};

use super::super::rests::REST;
use super::*;

/// What the policy's status should say.
fn statuses(pods: u32, is_well: bool) -> Option<Arc<Statuses>> {
    let finding = Finding::new(reason::TARGET_NOT_FOUND, "nobody");
    let condition = match is_well {
        true => ConditionUpdate {
            message: format!("in force for {pods}"),
            ..ConditionUpdate::ok(ACCEPTED, reason::ACCEPTED, 1)
        },
        false => ConditionUpdate::bad(ACCEPTED, &finding, 1),
    };
    let status = Arc::new(PolicyStatus { conditions: vec![condition], pods });
    let authorization = [(ObjectKey::new("shop", "p"), status)].into();
    let policies = Arc::new(PolicyStatuses { authorization, ..PolicyStatuses::default() });
    Some(Arc::new(Statuses { policies, ..Statuses::default() }))
}

#[tokio::test(start_paused = true)]
async fn a_policy_rests_where_only_words_change_and_says_at_once_what_matters() {
    let start = Instant::now();
    let (sender, mut written) = mpsc::unbounded_channel();
    let service = tower::service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let is_status = request.uri().path().ends_with("/status");
            let bytes = request.into_body().collect_bytes().await.unwrap();
            if is_status {
                let object: Value = serde_json::from_slice(&bytes).unwrap();
                sender.send(object["status"]["pods"].as_i64().unwrap()).unwrap();
            }
            Ok::<_, Infallible>(Response::new(Body::from(bytes)))
        }
    });
    let client = kube::Client::new(service, "shop");
    let live = LiveObjects::default();
    let policy = Live { uid: "a".to_owned(), resource_version: "1".to_owned(), status: None };
    live.update_authorization_policies(Update::Applied(("shop".to_owned(), "p".to_owned()), policy));
    let events =
        crate::status::Events::new(Recorder::new(client.clone(), Reporter::from("test")), live.clone());
    let (wanted, receiver) = tokio::sync::watch::channel(None);
    let mut writer = Writer {
        context: Context { client, leadership: Leadership::always(), live, events },
        wanted: receiver,
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        known: None,
        queue: BTreeSet::new(),
        running: BTreeSet::new(),
        rests: Rests::default(),
        jobs: JoinSet::new(),
    };
    let mut said = async |writer: &mut Writer, statuses| {
        wanted.send_replace(statuses);
        writer.take_wanted();
        settle(writer).await;
        written.try_recv().ok()
    };

    assert_eq!(said(&mut writer, statuses(1, true)).await, Some(1));
    for pods in 2..=20 {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(said(&mut writer, statuses(pods, true)).await, None);
    }
    // The sweep comes by meanwhile.
    writer.take_all();
    settle(&mut writer).await;
    sleep_until(writer.rests.next().unwrap()).await;
    assert_eq!(start.elapsed(), REST);
    writer.queue.extend(writer.rests.take_rested(Instant::now()));
    assert_eq!(said(&mut writer, statuses(20, true)).await, Some(20), "all that happened meanwhile, once");
    assert_eq!(said(&mut writer, statuses(0, false)).await, Some(0), "another verdict does not wait");
    sleep(REST).await;
    writer.take_all();
    assert_eq!(said(&mut writer, statuses(0, false)).await, None, "it is there");
    assert_eq!(said(&mut writer, statuses(1, true)).await, Some(1));
}

/// Takes what is due to its end.
async fn settle(writer: &mut Writer) {
    writer.start();
    while let Some(done) = writer.jobs.join_next().await {
        writer.finish(done);
    }
}
