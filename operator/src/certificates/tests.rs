use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::ResourceExt;
use meshwright_api::{IssuingCaStatus, MeshRevision};
use meshwright_pki::{certs_to_pem, fingerprint, new_root, validity};
use serde_json::json;

use super::{finding, issuing, ledger, root::Root};
use crate::apply::tests::{Answer, server};

const DAY: Duration = Duration::from_secs(86_400);

fn start() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

pub(crate) fn root(days: u32) -> Root {
    let authority = new_root("cluster.local", start(), DAY * days).unwrap();
    Root {
        secret: "meshwright-system/prod.mesh.root".to_owned(),
        pem: certs_to_pem(&[authority.cert().clone()]),
        fingerprint: fingerprint(authority.cert()),
        not_after: validity(authority.cert()).unwrap().until,
        authority,
    }
}

fn revision(issued: Option<(u64, Timestamp)>) -> MeshRevision {
    let mut revision: MeshRevision = serde_json::from_value(json!({
        "apiVersion": "meshwright.io/v1alpha1", "kind": "MeshRevision", "metadata": {"name": "mesh-0a1b2c3d"},
        "spec": {"mesh": "mesh", "version": "0.1.0", "trustDomain": "cluster.local", "workloadTTL": "24h",
            "images": {"controlPlane": "cp", "proxy": "p"}, "controlPlane": {}, "gateways": {}},
    }))
    .unwrap();
    revision.status.get_or_insert_default().issuing_ca = issued.map(|(epoch, not_after)| IssuingCaStatus {
        secret_name: format!("mesh-0a1b2c3d-issuing-{epoch}"),
        fingerprint: String::new(),
        not_after: Time(not_after),
    });
    revision
}

fn mounted(epochs: &[u64]) -> BTreeSet<String> {
    epochs.iter().map(|e| format!("mesh-0a1b2c3d-issuing-{e}")).collect()
}

#[test]
fn a_revision_without_one_gets_the_first_epoch() {
    let plan = issuing::plan(&revision(None), &root(3650), false, &mounted(&[]), start());
    assert_eq!((plan.issue, plan.secret.as_str()), (Some(1), "mesh-0a1b2c3d-issuing-1"));
}

#[test]
fn it_is_renewed_at_half_of_its_life_or_for_a_new_root() {
    let issued = revision(Some((1, start() + DAY * 30)));
    let at = |days: u32, replaced| {
        issuing::plan(&issued, &root(3650), replaced, &mounted(&[1]), start() + DAY * days).issue
    };
    assert_eq!((at(14, false), at(15, false), at(1, true)), (None, Some(2), Some(2)));
}

#[test]
fn a_certificate_is_replaced_with_the_root_that_signed_it() {
    let mut issued = revision(Some((2, start() + DAY * 30)));
    assert!(issuing::is_replaced(&issued, "new"), "nobody knows who signed it");
    let mut signed = |by: &str| {
        issued.annotations_mut().insert("meshwright.io/issuing-signed-by".to_owned(), by.to_owned());
        issuing::is_replaced(&issued, "new")
    };
    assert!(!signed("mesh-0a1b2c3d-issuing-2=new"));
    assert!(signed("mesh-0a1b2c3d-issuing-2=old"));
    assert!(signed("mesh-0a1b2c3d-issuing-3=new"), "annotated, and then not recorded");
    assert!(!issuing::is_replaced(&revision(None), "new"), "there is none");
}

#[tokio::test]
async fn a_secret_that_could_be_created_was_deleted() {
    const PATH: &str = "/api/v1/namespaces/prod/secrets";
    let failure = |reason: &str, code: u16| json!({"kind": "Status", "status": "Failure", "reason": reason, "code": code});
    let created = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}});
    for (code, answer, gone) in [
        (201, created, true),
        (409, failure("AlreadyExists", 409), false),
        (403, failure("Forbidden", 403), false),
    ] {
        let (ctx, mock) = server(vec![Answer(http::Method::POST, PATH, code, answer)]);
        let mut revision = revision(None);
        revision.metadata.namespace = Some("prod".to_owned());
        assert_eq!(issuing::is_gone(&ctx, &revision, "mesh-0a1b2c3d-issuing-2").await.unwrap(), gone);
        let sent = mock.finish();
        assert_eq!(sent[0]["type"], "meshwright.io/ca");
        assert_eq!(sent[0]["data"]["tls.key"], "");
    }
}

#[test]
fn near_the_roots_end_it_is_not_renewed_again_and_again() {
    let root = root(10);
    let issued = revision(Some((4, root.not_after)));
    assert_eq!(issuing::plan(&issued, &root, false, &mounted(&[4]), start() + DAY * 9).issue, None);
}

#[test]
fn old_epochs_go_when_no_pod_mounts_them() {
    let mut issued = revision(Some((4, start() + DAY * 30)));
    let collect =
        |r: &MeshRevision, m: &[u64]| issuing::plan(r, &root(3650), false, &mounted(m), start()).collect;
    assert_eq!(collect(&issued, &[2, 4]), [1]);
    assert_eq!(collect(&issued, &[4]), [1, 2, 3]);
    assert!(collect(&issued, &[3]).is_empty(), "the new one is not in use yet");
    issued.annotations_mut().insert("meshwright.io/issuing-collected".to_owned(), "3".to_owned());
    assert!(collect(&issued, &[4]).is_empty(), "they are gone already");
}

#[test]
fn the_condition_names_what_expires_first() {
    let revisions = [revision(Some((1, start() + DAY * 30)))];
    let ledger = ledger(Some(&root(3650)), &revisions);
    assert_eq!(ledger.len(), 2);
    let at = |days: u32| finding(&ledger, start() + DAY * days);
    assert_eq!((at(0).status, at(25).status, at(31).status), (Some(true), Some(false), Some(false)));
    assert!(at(25).message.contains("mesh-0a1b2c3d-issuing-1"), "{}", at(25).message);
    assert_eq!(finding(&[], start()).status, None);
}
