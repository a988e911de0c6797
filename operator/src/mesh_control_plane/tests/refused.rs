//! What the API server refuses stops nothing else.

use kube::ResourceExt;
use meshwright_api::conditions::{DEGRADED, READY, RECONCILED, reason};

use super::{apply_tests, at, installed, make_ready, measured, take, valid};
use crate::{certificates::tests::root, mesh_control_plane as controller, pods::Count};

/// A mesh whose first revision serves, and a second one that was asked for.
fn two_revisions() -> (super::Seen, String, String) {
    let (mut seen, old) = installed();
    seen.fresh.spec.version = Some("0.2.0".to_owned());
    let mesh = valid(&seen);
    let mut new = String::new();
    for second in 2..8 {
        let step = take(&mut seen, &mesh, at(second));
        if step.create.is_some() {
            new = step.target;
        }
    }
    for revision in &mut seen.revisions {
        revision.metadata.resource_version = Some("1".to_owned());
    }
    seen.fresh.metadata.finalizers = Some(vec![controller::FINALIZER.to_owned()]);
    seen.root = Some(root(3650));
    (seen, old, new)
}

#[tokio::test]
async fn a_refused_revision_stops_neither_its_own_end_nor_the_others() {
    let (mut seen, old, new) = two_revisions();
    // Held, so that nothing has to be on record first; and there is something to record of the new one.
    seen.fresh.spec.upgrade.paused = true;
    seen.fresh.status.as_mut().unwrap().upgrade.as_mut().unwrap().blocked_since = None;
    make_ready(&mut seen, &new, 2);
    let mesh = valid(&seen);
    let step = controller::step::next(&mesh, &seen, &measured(&seen), at(10));
    assert_eq!(step.active(), old);
    let (ctx, asked) = apply_tests::refusing();
    let applied = controller::apply::apply(&ctx, &mesh, &seen, step).await.unwrap();
    assert!(applied.failure.is_some());
    assert_eq!(applied.revisions.len(), 2);
    let asked = asked.lock().unwrap().clone();
    let record = format!("PUT /apis/meshwright.io/v1alpha1/namespaces/prod/meshrevisions/{new}/status");
    assert!(asked.contains(&record), "{record} not in {asked:?}");
    let pruned = "GET /apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
    assert!(asked.iter().any(|a| a.starts_with(pruned)), "{asked:?}");
}

#[tokio::test]
async fn the_status_after_a_refusal_says_what_serves_and_what_was_refused() {
    let (seen, old, _) = two_revisions();
    let mesh = valid(&seen);
    let step = controller::step::next(&mesh, &seen, &measured(&seen), at(10));
    let (ctx, _) = apply_tests::refusing();
    let mut applied = controller::apply::apply(&ctx, &mesh, &seen, step).await.unwrap();
    applied.pods.insert(old.clone(), Count { proxies_ready: 3, ..Count::default() });
    let status = controller::status::succeeded(&ctx, Some(4), seen.fresh.status.clone().unwrap(), &applied);
    let of = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).unwrap();
    assert_eq!((of(READY).status.as_str(), of(RECONCILED).status.as_str()), ("True", "False"));
    assert_eq!(of(RECONCILED).reason, reason::API_REQUEST_FAILED);
    assert_eq!(status.summary.as_deref(), Some(of(RECONCILED).message.as_str()));
    assert_eq!(status.observed_generation, Some(4));
}

#[tokio::test]
async fn fewer_pods_than_there_should_be_are_a_degraded_mesh_that_serves() {
    let (mut seen, old, _) = two_revisions();
    let mesh = valid(&seen);
    let status = |seen: &mut super::Seen| {
        let step = take(seen, &mesh, at(20));
        let applied = controller::apply::Applied {
            releases: controller::apply::Releases::default(),
            pods: seen.pods.clone(),
            root: root(3650),
            gateway_api: (None, Ok(())),
            problems: vec![],
            failure: None,
            recheck: None,
            revisions: seen.revisions.clone(),
            step,
        };
        let (ctx, _) = apply_tests::refusing();
        let status = controller::status::succeeded(&ctx, None, seen.fresh.status.clone().unwrap(), &applied);
        let of = |type_: &str| status.conditions.iter().find(|c| c.type_ == type_).unwrap().status.clone();
        (of(READY), of(DEGRADED))
    };
    assert_eq!(status(&mut seen), ("True".to_owned(), "False".to_owned()));
    make_ready(&mut seen, &old, 1);
    assert_eq!(status(&mut seen), ("True".to_owned(), "True".to_owned()));
    assert!(seen.revisions.iter().any(|r| r.name_any() == old));
}

#[tokio::test]
async fn an_upgrade_of_a_refused_spec_is_watched_also_where_a_write_is_refused() {
    let (mut seen, _, new) = two_revisions();
    // Held, so that nothing has to be on record before what is refused.
    seen.fresh.status.as_mut().unwrap().upgrade.as_mut().unwrap().blocked_since = None;
    make_ready(&mut seen, &new, 2);
    seen.fresh.spec.version = Some("9.9.9".to_owned());
    let (ctx, _) = apply_tests::refusing();
    let invalid = controller::validate(&seen, &ctx.settings.catalogue, &[], at(10)).unwrap_err();
    let error = controller::hold(&seen, &ctx, invalid).await;
    assert!(matches!(error, controller::Error::Meanwhile { .. }), "{error:?}");
}
