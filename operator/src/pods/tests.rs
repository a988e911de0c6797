use serde_json::{Value, json};

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// A pod with one container; times are in seconds.
fn pod(created: i64, restarts: i32, state: &Value, last: &Value) -> Pod {
    let container = json!({"name": "proxy", "image": "i", "imageID": "i", "ready": false, "restartCount": restarts,
        "state": state, "lastState": last});
    let ready = json!({"type": "Ready", "status": "False", "lastTransitionTime": at(created).to_string()});
    serde_json::from_value(json!({
        "metadata": {"name": "p", "creationTimestamp": at(created).to_string()},
        "status": {"containerStatuses": [container], "conditions": [ready]},
    }))
    .unwrap()
}

fn running(since: i64) -> Value {
    json!({"running": {"startedAt": at(since).to_string()}})
}

fn ended(from: i64, to: i64) -> Value {
    json!({"terminated": {"exitCode": 1, "startedAt": at(from).to_string(), "finishedAt": at(to).to_string()}})
}

fn count(pod: &Pod) -> i32 {
    restarts(std::iter::once(pod), at(1000))
}

#[test]
fn all_restarts_of_a_young_pod_count() {
    assert_eq!(count(&pod(1010, 5, &running(1090), &ended(1080, 1085))), 5);
    assert_eq!(count(&pod(1010, 0, &running(1011), &json!({}))), 0);
}

#[test]
fn of_an_old_pod_a_restart_long_ago_does_not_count_with_one_of_now() {
    assert_eq!(count(&pod(0, 7, &running(1090), &ended(10, 1085))), 1);
    assert_eq!(count(&pod(0, 7, &running(1090), &ended(1080, 1085))), 2);
    assert_eq!(count(&pod(0, 7, &running(990), &ended(10, 980))), 0);
    assert_eq!(count(&pod(0, 1, &ended(1050, 1060), &json!({}))), 1);
}

#[test]
fn a_pod_whose_image_was_there_has_run() {
    let waits = json!({"waiting": {"reason": "ImagePullBackOff"}});
    assert!(!has_run(&pod(0, 0, &waits, &json!({}))));
    assert!(has_run(&pod(0, 1, &waits, &ended(1, 2))));
    assert!(has_run(&pod(0, 0, &running(1), &json!({}))));
}

#[test]
fn only_a_pod_that_runs_for_the_first_time_was_never_ready() {
    let time = |pod: &Pod| never_ready_for(pod, at(100)).map(|time| time.as_secs());
    assert_eq!(time(&pod(0, 0, &running(10), &json!({}))), Some(90));
    assert_eq!(time(&pod(0, 1, &running(50), &ended(10, 49))), None);
    assert_eq!(time(&pod(0, 0, &json!({"waiting": {"reason": "ContainerCreating"}}), &json!({}))), None);
    let mut was_ready = pod(0, 0, &running(10), &json!({}));
    let conditions = was_ready.status.as_mut().unwrap().conditions.as_mut().unwrap();
    conditions[0].last_transition_time.as_mut().unwrap().0 = at(60);
    assert_eq!(time(&was_ready), None);
}

#[test]
fn a_proxy_that_should_have_ended_long_ago_is_lost() {
    let mut pod = pod(0, 0, &running(1), &json!({}));
    pod.metadata.namespace = Some("shop".to_owned());
    pod.metadata.labels = Some(
        [(labels::REVISION, "r"), (labels::COMPONENT, labels::COMPONENT_GATEWAY)]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    );
    let count = |pod: &Pod, now| {
        let count = tally(std::slice::from_ref(pod), at(now)).remove("r").unwrap();
        (count.proxies, count.lost.into_iter().next())
    };
    assert_eq!(count(&pod, 5000), (1, None));
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(330)));
    assert_eq!(count(&pod, 389), (1, None), "it still drains");
    assert_eq!(count(&pod, 390), (0, Some("shop/p".to_owned())));
}
