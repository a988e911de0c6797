//! The agent as a whole, with a fake control plane and either a fake or the real Envoy.

mod drain;
pub(crate) mod envoy;
pub(crate) mod fake;
mod identity;
mod relay;
mod report;
mod stats;
mod streams;

use fake::ControlPlane;

#[test]
fn bootstrap_is_what_envoy_gets() {
    let mut args =
        fake::args("gateway-0", "127.0.0.1:15012".to_owned(), std::path::Path::new("/run/meshwright"));
    args.pod_ip = "10.0.0.7".to_owned();
    insta::assert_json_snapshot!(crate::bootstrap::bootstrap(&args, None));
    let limited = crate::bootstrap::bootstrap(&args, Some(1 << 30));
    insta::assert_json_snapshot!(limited["overload_manager"]);
}

#[tokio::test]
async fn a_foreign_control_plane_gets_neither_token_nor_stream() {
    let dir = tempfile::tempdir().unwrap();
    let honest = ControlPlane::start(dir.path()).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = ControlPlane::start(elsewhere.path()).await;
    let args = fake::args("gateway-0", foreign.address.clone(), dir.path());
    let agent = fake::Agent::without_envoy(&args);
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!((foreign.signed(), honest.signed()), (0, 0));
    drop(agent);
}
