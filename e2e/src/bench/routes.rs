//! How long a route takes from the API server to the proxies, alone and among many.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;

use super::percentile::percentile;
use super::probe::Probe;
use super::report::Report;
use crate::testing::{Audit, Backend, DEADLINE, Env, Write, eventually};

/// Requests to the API server at once, when many routes are applied together.
const APPLIED_AT_ONCE: usize = 16;
/// Connections that ask for them; more than one, so that more than one proxy is asked.
const PROBES: usize = 6;
/// Between two questions for a single route: what the figure may be off by.
const BETWEEN: Duration = Duration::from_millis(1);
/// Between two questions for one of many routes: the machine has more to do than to answer 404.
const LOOK: Duration = Duration::from_millis(5);

/// Routes added one at a time: from just before the request to the first 200, asked for every millisecond. (Without the pause the
/// questions kept one of two cores busy and were themselves part of the delay: 77 ms in the median where it is 55 with it.)
///
/// # Errors
/// When a route never answers.
pub async fn one_by_one(env: &Env, backend: &Backend, count: usize, report: &mut Report) -> Result<()> {
    let routes = env.routes(backend.namespace);
    let (mut times, mut requests, mut unexpected, mut broken) = (Vec::new(), Vec::new(), 0, 0);
    for number in 0..count {
        let name = format!("one-{number}");
        let host = host(&name);
        let object = route(&name)?;
        let mut probe = Probe::new(backend.address);
        ensure!(
            !probe.is_routed(&host, Backend::PATH).await,
            "{host} is routed before its route was applied"
        );
        let start = Instant::now();
        let applying = apply(routes.clone(), object);
        let applying = tokio::spawn(async move { applying.await.map(|()| start.elapsed()) });
        while !probe.is_routed(&host, Backend::PATH).await {
            if start.elapsed() > DEADLINE {
                bail!("{host} is not routed after {DEADLINE:?}");
            }
            tokio::time::sleep(BETWEEN).await;
        }
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        unexpected += probe.unexpected;
        broken += probe.broken;
        let request = applying.await.context("apply a route")??;
        requests.push(request.as_secs_f64() * 1000.0);
    }
    for (what, times) in [("route applied to first 200", times), ("of it the API server's answer", requests)]
    {
        for (name, percent) in [("p50", 50.0), ("p99", 99.0), ("max", 100.0)] {
            let value = percentile(&times, percent).context("no route was added")?;
            report.add(&format!("{what}, {name} of {count}"), value, "ms");
        }
    }
    report.add("responses other than 404 and 200 meanwhile", unexpected as f64, "responses");
    report.add("connections broken meanwhile", broken as f64, "connections");
    Ok(())
}

/// Many routes at once: until each of them answers, until each has its status, and what that cost in writes.
///
/// # Errors
/// When a route never answers, or never has a status.
pub async fn together(env: &Env, backend: &Backend, count: usize, report: &mut Report) -> Result<()> {
    let routes = env.routes(backend.namespace);
    let names: &[String] = &(0..count).map(|number| format!("many-{number}")).collect::<Vec<_>>();
    let mut audit = if env.cluster.context().is_none() { Some(Audit::from_now(env)?) } else { None };
    let start = Instant::now();
    let applying = stream::iter(names.iter().map(|name| async {
        let object = route(name)?;
        apply(routes.clone(), object).await
    }))
    .buffer_unordered(APPLIED_AT_ONCE)
    .try_collect::<Vec<()>>();
    // Each asks for its share in turn: when the last one is routed, all have been.
    let asking = futures::future::try_join_all((0..PROBES).map(|first| async move {
        let share = names.iter().skip(first).step_by(PROBES);
        let mut probe = Probe::new(backend.address);
        for name in share {
            let host = host(name);
            while !probe.is_routed(&host, Backend::PATH).await {
                if start.elapsed() > DEADLINE * 2 {
                    bail!("{host} is not routed after {:?}", DEADLINE * 2);
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(probe.unexpected + probe.broken)
    }));
    let applied = async { applying.await.map(|_| start.elapsed()) };
    let (applied, failed) = futures::future::try_join(applied, asking).await?;
    let routed = start.elapsed();
    let all: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    accepted(&routes, &all).await?;
    let reported = start.elapsed();
    report.add(&format!("{count} routes applied"), applied.as_secs_f64(), "s");
    report.add(&format!("{count} routes programmed"), routed.as_secs_f64(), "s");
    report.add(&format!("{count} routes with status"), reported.as_secs_f64(), "s");
    report.add(
        "answers other than 404 and 200, and broken connections",
        failed.iter().sum::<u64>() as f64,
        "times",
    );
    let Some(audit) = &mut audit else {
        println!("status writes: not measured outside, they are counted in the API server's audit log");
        return Ok(());
    };
    let of_routes = |write: &&Write| {
        write.resource == "httproutes"
            && write.subresource == "status"
            && write.namespace == backend.namespace
            && all.contains(write.name.as_str())
    };
    let writes = audit.writes()?;
    let writes: Vec<_> = writes.iter().filter(of_routes).collect();
    let conflicts = writes.iter().filter(|write| write.code == 409).count();
    report.add(&format!("status writes for {count} routes"), writes.len() as f64, "writes");
    report.add("status writes among them that met a conflict", conflicts as f64, "writes");
    Ok(())
}

/// Waits until each of these routes has a parent that accepted it.
async fn accepted(routes: &Api<DynamicObject>, names: &BTreeSet<&str>) -> Result<()> {
    eventually("a status for every route", DEADLINE * 2, || async {
        let list = routes.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
        let ours = list.items.iter().filter(|route| names.contains(route.name_any().as_str()));
        let accepted = ours.filter(|route| {
            let conditions = route.data.pointer("/status/parents/0/conditions").and_then(|c| c.as_array());
            conditions.into_iter().flatten().any(|c| c["type"] == "Accepted" && c["status"] == "True")
        });
        match accepted.count() {
            all if all == names.len() => Ok(()),
            some => Err(format!("{some} of {}", names.len())),
        }
    })
    .await
}

async fn apply(routes: Api<DynamicObject>, route: DynamicObject) -> Result<()> {
    let name = route.name_any();
    let params = PatchParams::apply("meshwright-e2e").force();
    routes
        .patch(&name, &params, &Patch::Apply(&route))
        .await
        .with_context(|| format!("apply {name}"))
        .map(drop)
}

fn host(name: &str) -> String {
    format!("{name}.bench.example")
}

fn route(name: &str) -> Result<DynamicObject> {
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"name": Backend::GATEWAY}],
            "hostnames": [host(name)],
            "rules": [{"backendRefs": [{"name": "a", "port": 9080}]}],
        },
    });
    serde_json::from_value(object).context("an HTTPRoute")
}
