//! Waiting for something to become true, with a deadline and with what was seen last.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use kube::api::{Api, DynamicObject};

const POLL: Duration = Duration::from_millis(100);

/// Asks again until `probe` gives a value.
///
/// # Errors
/// After `deadline`: what was waited for, and what `probe` said last.
pub async fn eventually<T, F, Fut>(what: &str, deadline: Duration, probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    eventually_each(POLL, what, deadline, probe).await
}

/// The same where to ask costs something: once in `every`.
///
/// # Errors
/// Those of [`eventually`].
pub async fn eventually_each<T, F, Fut>(
    every: Duration,
    what: &str,
    deadline: Duration,
    mut probe: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        let seen = match probe().await {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if start.elapsed() > deadline {
            bail!("{what}: not after {} s; last seen: {seen}", deadline.as_secs());
        }
        tokio::time::sleep(every).await;
    }
}

/// Waits until the object has this condition with this status.
///
/// # Errors
/// After `deadline`, with all conditions seen.
pub async fn condition(
    api: &Api<DynamicObject>,
    name: &str,
    type_: &str,
    status: &str,
    deadline: Duration,
) -> Result<()> {
    eventually(&format!("condition {type_}={status} of {name}"), deadline, || async {
        let object = api.get(name).await.map_err(|e| e.to_string())?;
        let conditions = object.data.pointer("/status/conditions").cloned().unwrap_or_default();
        let met =
            conditions.as_array().into_iter().flatten().any(|c| c["type"] == type_ && c["status"] == status);
        if met { Ok(()) } else { Err(conditions.to_string()) }
    })
    .await
}

/// Waits until the object is there (or gone).
///
/// # Errors
/// After `deadline`.
pub async fn exists(api: &Api<DynamicObject>, name: &str, wanted: bool, deadline: Duration) -> Result<()> {
    let what = format!("{name} {}", if wanted { "to exist" } else { "to be gone" });
    eventually(&what, deadline, || async {
        let found = api.get_opt(name).await.map_err(|e| e.to_string())?;
        match found {
            Some(object) if !wanted => {
                Err(format!("it is there, finalizers {:?}", object.metadata.finalizers))
            }
            None if wanted => Err("it is not there".to_owned()),
            _ => Ok(()),
        }
    })
    .await
}
