//! Bookinfo through the gateway, and each step of the README's walk-through with its shares.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, Patch, PatchParams};
use meshwright_api::labels;
use meshwright_e2e::product::RELEASES;
use meshwright_e2e::soak;
use meshwright_e2e::testing::{apply_yaml, eventually, get, get_with_headers};
use serde_json::json;

use crate::env::{DEADLINE, Env, file};

const REQUESTS: usize = 500;
/// In a row that must be right: a third of all pages is right by chance.
const PAGES: usize = 20;
const VERSIONS: [&str; 3] = ["reviews-v1", "reviews-v2", "reviews-v3"];
const POINTS: f64 = 5.0;
const HOST: &str = "bookinfo.example";

/// Installs Bookinfo with the images of `target/dist` and waits until its page answers.
pub async fn installed(env: &Env) -> Result<SocketAddr> {
    apply_yaml(&env.client, &file("target/dist/bookinfo.yaml")?, "bookinfo").await?;
    let gateway = env.address("bookinfo", "bookinfo", 80).await?;
    eventually("Bookinfo's page", DEADLINE, || async {
        let answer = get(gateway, HOST, "/productpage").await.map_err(|e| format!("{e:#}"))?;
        if answer.status == 200 && answer.body.contains("details-v1") {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await?;
    Ok(gateway)
}

/// Shares of reviews' versions, in percent.
async fn shares(gateway: SocketAddr, headers: &[(&str, &str)]) -> Result<BTreeMap<String, f64>> {
    let mut counts = BTreeMap::<String, usize>::new();
    for _ in 0..REQUESTS {
        let answer = get_with_headers(gateway, HOST, "/reviews/0", headers).await?;
        ensure!(answer.status == 200, "{answer:?}");
        *counts.entry(answer.headers.get("x-bookinfo-version").cloned().unwrap_or_default()).or_default() +=
            1;
    }
    Ok(counts.into_iter().map(|(version, n)| (version, n as f64 * 100.0 / REQUESTS as f64)).collect())
}

/// Applies the step and waits until the shares are as expected: propagation takes its time, the shares are exact.
async fn step(
    env: &Env,
    gateway: SocketAddr,
    route: &str,
    headers: &[(&str, &str)],
    expected: &[(&str, f64)],
) -> Result<()> {
    apply_yaml(&env.client, &file(&format!("e2e/bookinfo/manifests/walkthrough/{route}"))?, "bookinfo")
        .await?;
    eventually(&format!("the shares of {route}"), Duration::from_secs(60), || async {
        let seen = shares(gateway, headers).await.map_err(|e| format!("{e:#}"))?;
        let right =
            expected.iter().all(|(v, share)| (seen.get(*v).copied().unwrap_or(0.0) - share).abs() <= POINTS);
        let known = seen.keys().all(|v| expected.iter().any(|(e, _)| e == v));
        if !(right && known) {
            return Err(format!("{seen:?}"));
        }
        println!("{route} {headers:?}: {seen:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn each_step_of_the_walk_through_gives_its_shares() -> Result<()> {
    let env = Env::with_mesh().await?;
    // Its last step needs node proxies.
    soak::at(&env, RELEASES[1]).await?;
    let gateway = installed(&env).await?;
    let jason = [("end-user", "jason")];
    step(&env, gateway, "1-all-v1.yaml", &[], &[("reviews-v1", 100.0)]).await?;
    step(&env, gateway, "2-split-80-20.yaml", &[], &[("reviews-v1", 80.0), ("reviews-v2", 20.0)]).await?;
    step(&env, gateway, "3-one-user-by-header.yaml", &[], &[("reviews-v1", 100.0)]).await?;
    step(&env, gateway, "3-one-user-by-header.yaml", &jason, &[("reviews-v2", 100.0)]).await?;
    step(&env, gateway, "4-all-v3.yaml", &[], &[("reviews-v3", 100.0)]).await?;
    let thirds = [("reviews-v1", 33.3), ("reviews-v2", 33.3), ("reviews-v3", 33.3)];
    step(&env, gateway, "5-thirds.yaml", &[], &thirds).await?;
    let inside = inside_the_mesh(&env, gateway).await;
    joined(&env, false).await?;
    inside
}

/// The page's own calls: from then on they follow a route of the Service that it calls.
async fn inside_the_mesh(env: &Env, gateway: SocketAddr) -> Result<()> {
    joined(env, true).await?;
    let route = file("e2e/bookinfo/manifests/walkthrough/6-inside-the-mesh.yaml")?;
    apply_yaml(&env.client, &route, "bookinfo").await?;
    eventually("the page to follow its Service's route", DEADLINE, || async {
        for (cookie, version) in [("bookinfo-user=jason", "reviews-v3"), ("bookinfo-user=eve", "reviews-v1")]
        {
            for _ in 0..PAGES {
                let page = get_with_headers(gateway, HOST, "/productpage", &[("cookie", cookie)]).await;
                let page = page.map_err(|e| format!("{e:#}"))?;
                if page.status != 200 || !page.body.contains(version) {
                    let shown = VERSIONS.iter().find(|version| page.body.contains(**version));
                    return Err(format!("status {}, {cookie} gets {shown:?}, not {version}", page.status));
                }
            }
        }
        Ok(())
    })
    .await
}

/// The whole application, or none of it.
async fn joined(env: &Env, joins: bool) -> Result<()> {
    let label = json!({"metadata": {"labels": {labels::MESH: joins.then_some(labels::MESH_ENABLED)}}});
    let namespaces = Api::<Namespace>::all(env.client.clone());
    namespaces.patch("bookinfo", &PatchParams::default(), &Patch::Merge(&label)).await?;
    Ok(())
}
