//! Something is done with pods of an application while they call each other, and clients call them through the gateway.

use anyhow::{Result, ensure};

use super::figures::Figure;
use super::mesh::{OPERATOR_NAMESPACE, at, restored};
use super::observe::settled;
use super::under_load::none_failed;
use crate::product::RELEASES;
use crate::testing::{Backend, Env, Loads, MESH, Members, keep_all};

/// Whose pods, logs and configuration are kept of a failure.
const KEPT: [&str; 3] = [Members::NAMESPACE, MESH, OPERATOR_NAMESPACE];

/// Nothing of what they call fails, no connection is lost, and the pods are the same afterwards. `what` names it in what is printed and kept;
/// the caller ends connections itself that it has kept for `max_age` seconds.
///
/// # Errors
/// When somebody noticed, or the acting failed.
pub async fn with_members(
    env: &Env,
    what: &str,
    max_age: Option<u32>,
    acting: impl AsyncFnOnce(&Env, &Members) -> Result<Vec<Figure>>,
) -> Result<Vec<Figure>> {
    let outcome = undisturbed(env, what, max_age, acting).await;
    let mending = async {
        env.delete_namespace(Members::NAMESPACE).await?;
        restored(env).await?;
        settled(env, true).await
    };
    let mended = mending.await;
    let figures = outcome?;
    mended.map(|()| figures)
}

async fn undisturbed(
    env: &Env,
    what: &str,
    max_age: Option<u32>,
    acting: impl AsyncFnOnce(&Env, &Members) -> Result<Vec<Figure>>,
) -> Result<Vec<Figure>> {
    at(env, RELEASES[1]).await?;
    let members = Members::installed(env, max_age).await?;
    members.label(env, false).await?;
    members.are_listed(env, false).await?;
    let loads = Loads::endless(env, members.backend.address, &members.backend.host(), Backend::PATH)?;
    let acted = acting(env, &members).await;
    let unharmed = members.are_unharmed(env).await;
    let keep = async || keep_all(&env.client, &format!("node-proxies-{what}"), &KEPT).await;
    let is_kept = acted.is_err() || unharmed.is_err();
    if is_kept {
        // At once: what proxies have may be another thing when the loads have ended.
        keep().await;
    }
    // Also after a failure: what comes next must not begin under this load.
    let loaded = loads.stop(&format!("  {what}")).await.and_then(|reports| none_failed(&reports));
    if loaded.is_err() && !is_kept {
        keep().await;
    }
    let (mut figures, calls) = (acted?, unharmed?);
    figures.extend(loaded?);
    let of = |count: fn(&crate::testing::Called) -> u64| calls.targets.iter().map(count).sum();
    let answered = of(|called| called.answered);
    ensure!(answered > 0, "{what}: the caller called nobody");
    figures.extend([
        Figure::count("calls between members", answered, "calls"),
        Figure::count("calls failed", of(|called| called.failed), "calls"),
        Figure::count("connections lost", of(|called| called.broken), "connections"),
    ]);
    Ok(figures)
}
