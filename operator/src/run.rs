//! The running operator: admin server, Lease, controllers. Losing the Lease ends the process.

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use futures::{StreamExt, channel::mpsc::UnboundedSender};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{ConfigMap, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRoleBinding, RoleBinding},
};
use kube::{
    Api, Client, ResourceExt,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{Controller, WatchStreamExt, controller, reflector::ObjectRef, watcher},
};
use meshwright_api::{
    GATEWAY_CLASS, GatewayParameters, MeshControlPlane, MeshRevision,
    gateway::{Gateway, GatewayClass, ReferenceGrant},
    labels,
};
use meshwright_k8s::lease::{self, LeaseConfig};
use meshwright_runtime::{CancellationToken, Readiness, Shutdown, admin::Admin, install_crypto, telemetry};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::{
    args::RunArgs,
    catalogue::Catalogue,
    context::{Context, Settings},
    farewell, gateway,
    gateway::secret_access,
    mesh_control_plane, mesh_revision,
    metrics::Metrics,
    reconciler, sweep,
};

mod changes;

/// Name of the operator's Lease.
pub const LEASE: &str = "meshwright-operator";
/// Reconciles of one controller at a time; each is a handful of requests.
const CONCURRENCY: u16 = 8;

type Guarded<K> = DeserializeGuard<K>;
type Meta<K> = PartialObjectMeta<K>;

/// Runs until told to stop.
pub fn start(args: RunArgs) -> anyhow::Result<()> {
    install_crypto();
    // Two threads are plenty, and small: nothing here computes for long.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(args))
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init("operator", &args.telemetry)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), namespace = args.namespace, "operator starts");
    let shutdown = Shutdown::on_signals()?;
    let readiness = Readiness::default();
    let api = readiness.guard("api server");
    let metrics = Metrics::default();
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let admin = Admin::new(readiness, Arc::new(registry), telemetry.level());
    // Until the very end, so that a probe does not fail while the operator still works.
    let stopped = CancellationToken::new();
    let server = tokio::spawn(admin.serve(args.admin.admin_addr, stopped.clone()));

    let client =
        Client::try_default().await.context("find the API server: no kubeconfig, or not in a cluster")?;
    client.apiserver_version().await.context("reach the API server")?;
    api.ready(); // a replica that stands by is ready to take over
    let config = LeaseConfig::created_by_us(&args.namespace, LEASE, &args.pod_name);
    let lease_drain = CancellationToken::new();
    let mut lease = lease::spawn(client.clone(), config, lease_drain.clone());
    let ctx = Arc::new(Context::new(client, settings(&args)?, metrics, lease.leadership(), &args.pod_name));
    let leader = lease.subscribe();
    let mut work = std::pin::pin!(lead(leader, &ctx, &shutdown));
    let result = tokio::select! {
        ended = lease.ended() => {
            // A farewell that has begun needs no Lease, and nobody else would finish it.
            if ctx.leaving.is_cancelled() {
                work.await;
            }
            ended.map_err(anyhow::Error::from)
        }
        () = &mut work => Ok(()),
    };
    ctx.metrics.leader.set(0);
    lease_drain.cancel();
    if result.is_ok() {
        // Released, so that the other replica need not wait for it to expire.
        lease.ended().await?;
    }
    stopped.cancel();
    server.await??;
    result
}

fn settings(args: &RunArgs) -> anyhow::Result<Settings> {
    Ok(Settings {
        namespace: args.namespace.clone(),
        service_account: args.service_account.clone(),
        deployment: args.deployment.clone(),
        catalogue: Catalogue::from_env(std::env::vars()).context("read the catalogue of releases")?,
        pull_secrets: args.image_pull_secrets.iter().filter(|s| !s.is_empty()).cloned().collect(),
        gateway_api_dir: args.gateway_api_dir.clone(),
    })
}

// Everything that only the leader does, and the farewell if it cannot.
async fn lead(mut leader: watch::Receiver<bool>, ctx: &Arc<Context>, shutdown: &Shutdown) {
    let drain = shutdown.drain();
    tokio::select! {
        // An error means that the election ended; its own result says why, and we are dropped.
        Ok(_) = leader.wait_for(|leader| *leader) => {}
        () = drain.cancelled() => {
            if farewell::is_the_end(ctx).await {
                farewell::after_the_leader(ctx).await;
            }
            return;
        }
    }
    ctx.metrics.leader.set(1);
    // The Lease may be ours because the other replica has just said farewell: what it let go of must stay so.
    if farewell::is_the_end(ctx).await {
        farewell::say(ctx).await;
        let _ = tokio::time::timeout(farewell::WAIT, drain.cancelled()).await;
        return;
    }
    let stop = CancellationToken::new();
    let controllers = tokio::spawn(controllers(ctx.clone(), stop.clone()));
    tokio::select! {
        () = farewell::noticed(ctx) => {
            farewell::say(ctx).await;
            // Pods that nobody ends were adopted by a new Deployment: a new process begins anew.
            let _ = tokio::time::timeout(farewell::WAIT, drain.cancelled()).await;
        }
        () = drain.cancelled() => {
            if farewell::is_the_end(ctx).await {
                farewell::say(ctx).await;
            }
        }
    }
    stop.cancel();
    if let Err(error) = controllers.await {
        tracing::error!(%error, "controllers ended badly");
    }
}

async fn controllers(ctx: Arc<Context>, stop: CancellationToken) {
    tokio::join!(
        stop.run_until_cancelled(sweep::sweep(&ctx)),
        meshes(ctx.clone(), stop.clone()),
        revisions(ctx.clone(), stop.clone()),
        // Only kinds that are served can be watched.
        when_served(ctx.clone(), stop.clone(), gateways(ctx.clone(), stop.clone())),
        when_served(ctx.clone(), stop.clone(), secrets(ctx.clone(), stop.clone())),
    );
}

async fn when_served(ctx: Arc<Context>, stop: CancellationToken, controller: impl Future<Output = ()>) {
    let mut served = ctx.gateway_api_served.subscribe();
    tokio::select! {
        result = served.wait_for(|served| *served) => if result.is_err() { return },
        () = stop.cancelled() => return,
    }
    controller.await;
}

fn ours() -> watcher::Config {
    watcher::Config::default().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER))
}

// Those of the control planes and node proxies; the Gateways' controller looks after theirs, of which there may be many.
fn of_revisions() -> watcher::Config {
    let components = format!("{},{}", labels::COMPONENT_CONTROL_PLANE, labels::COMPONENT_NODE);
    let component = format!("{} in ({components})", labels::COMPONENT);
    watcher::Config::default().labels(&format!("{}={},{component}", labels::MANAGED_BY, labels::MANAGER))
}

fn config() -> controller::Config {
    controller::Config::default().concurrency(CONCURRENCY)
}

async fn meshes(ctx: Arc<Context>, stop: CancellationToken) {
    let client = &ctx.client;
    // Its kind may be served only later, and a stranger's class with our name has none of our labels.
    let (classes, changed) = futures::channel::mpsc::unbounded();
    let nodes = changes::watch(ctx.clone(), stop.clone(), classes.clone());
    let watch = when_served(ctx.clone(), stop.clone(), watch_class(ctx.clone(), stop.clone(), classes));
    let controller =
        Controller::new(Api::<Guarded<MeshControlPlane>>::all(client.clone()), watcher::Config::default());
    // What a revision owns leads to the mesh by label: the owner reference names the revision. Of the Gateways' objects
    // only the Deployments count here, for the number of ready proxies.
    let controller = controller
        .with_config(config())
        .owns(Api::<Meta<MeshRevision>>::all(client.clone()), watcher::Config::default())
        .watches(Api::<Meta<Deployment>>::all(client.clone()), ours(), |o| mesh_of(&o))
        .watches(Api::<Meta<DaemonSet>>::all(client.clone()), ours(), |o| mesh_of(&o))
        .watches(Api::<Meta<Service>>::all(client.clone()), of_revisions(), |o| mesh_of(&o))
        .watches(Api::<Meta<ServiceAccount>>::all(client.clone()), of_revisions(), |o| mesh_of(&o))
        .watches(Api::<Meta<ConfigMap>>::all(client.clone()), of_revisions(), |o| mesh_of(&o))
        .watches(Api::<Meta<HorizontalPodAutoscaler>>::all(client.clone()), of_revisions(), |o| mesh_of(&o))
        .watches(Api::<Meta<PodDisruptionBudget>>::all(client.clone()), of_revisions(), |o| mesh_of(&o))
        .watches(Api::<Meta<NetworkPolicy>>::all(client.clone()), of_revisions(), |o| mesh_of(&o))
        .watches(Api::<Meta<RoleBinding>>::all(client.clone()), ours(), |o| mesh_of(&o))
        .watches(Api::<Meta<ClusterRoleBinding>>::all(client.clone()), ours(), |o| mesh_of(&o))
        .reconcile_all_on(changed)
        .graceful_shutdown_on(stop.cancelled_owned());
    let run = reconciler::run(
        mesh_control_plane::CONTROLLER,
        controller,
        mesh_control_plane::reconcile,
        ctx.clone(),
    );
    tokio::join!(run, watch, nodes);
}

// Tells of every change of the GatewayClass with our name.
async fn watch_class(ctx: Arc<Context>, stop: CancellationToken, changed: UnboundedSender<()>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={GATEWAY_CLASS}"));
    let api = Api::<Meta<GatewayClass>>::all(ctx.client.clone());
    let mut events = std::pin::pin!(watcher(api, config).default_backoff().touched_objects());
    loop {
        tokio::select! {
            event = events.next() => match event {
                // An end of the other side is the end of the controller.
                Some(Ok(_)) => if changed.unbounded_send(()).is_err() { return },
                Some(Err(error)) => tracing::debug!(%error, "watch of the GatewayClass"),
                None => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

fn mesh_of<K: ResourceExt>(object: &K) -> Option<ObjectRef<Guarded<MeshControlPlane>>> {
    let labels = object.labels();
    let (name, namespace) = (labels.get(labels::MESH_NAME)?, labels.get(labels::MESH_NAMESPACE)?);
    Some(ObjectRef::new(name).within(namespace))
}

async fn revisions(ctx: Arc<Context>, stop: CancellationToken) {
    let api = Api::<Guarded<MeshRevision>>::all(ctx.client.clone());
    let controller = Controller::new(api, watcher::Config::default())
        .with_config(config())
        .graceful_shutdown_on(stop.cancelled_owned());
    reconciler::run(mesh_revision::CONTROLLER, controller, mesh_revision::reconcile, ctx).await;
}

async fn gateways(ctx: Arc<Context>, stop: CancellationToken) {
    let client = &ctx.client;
    let controller =
        Controller::new(Api::<Guarded<Gateway>>::all(client.clone()), watcher::Config::default());
    let (by_mesh, by_class, by_parameters) = (controller.store(), controller.store(), controller.store());
    let controller = controller
        .with_config(config())
        .owns(Api::<Meta<Deployment>>::all(client.clone()), ours())
        .owns(Api::<Meta<Service>>::all(client.clone()), ours())
        .owns(Api::<Meta<ServiceAccount>>::all(client.clone()), ours())
        .owns(Api::<Meta<ConfigMap>>::all(client.clone()), ours())
        .owns(Api::<Meta<HorizontalPodAutoscaler>>::all(client.clone()), ours())
        .owns(Api::<Meta<PodDisruptionBudget>>::all(client.clone()), ours())
        .watches(Api::<Meta<MeshControlPlane>>::all(client.clone()), watcher::Config::default(), move |_| {
            reconciler::all(&by_mesh)
        })
        .watches(Api::<Meta<GatewayClass>>::all(client.clone()), watcher::Config::default(), move |_| {
            reconciler::all(&by_class)
        })
        .watches(Api::<Meta<GatewayParameters>>::all(client.clone()), watcher::Config::default(), move |_| {
            reconciler::all(&by_parameters)
        })
        .graceful_shutdown_on(stop.cancelled_owned());
    reconciler::run(gateway::CONTROLLER, controller, gateway::reconcile, ctx).await;
}

async fn secrets(ctx: Arc<Context>, stop: CancellationToken) {
    let client = &ctx.client;
    let any = watcher::Config::default;
    let controller = Controller::new(Api::<Guarded<MeshControlPlane>>::all(client.clone()), any());
    let (by_gateway, by_grant, by_class) = (controller.store(), controller.store(), controller.store());
    let controller = controller
        .with_config(config())
        .owns(Api::<Meta<MeshRevision>>::all(client.clone()), any())
        .watches(Api::<Meta<RoleBinding>>::all(client.clone()), ours(), |o| mesh_of(&o))
        .watches(Api::<Meta<Gateway>>::all(client.clone()), any(), move |_| reconciler::all(&by_gateway))
        .watches(Api::<Meta<ReferenceGrant>>::all(client.clone()), any(), move |_| reconciler::all(&by_grant))
        .watches(Api::<Meta<GatewayClass>>::all(client.clone()), any(), move |_| reconciler::all(&by_class))
        .graceful_shutdown_on(stop.cancelled_owned());
    reconciler::run(secret_access::CONTROLLER, controller, secret_access::reconcile, ctx).await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::apply::tests::answering;

    #[tokio::test(start_paused = true)]
    async fn who_becomes_leader_at_the_end_only_lets_go() {
        let (ctx, asked) = answering(lease::Leadership::always(), |what| match what {
            "GET /api/v1/namespaces/meshwright-system" => (
                200,
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {
                    "name": "meshwright-system", "deletionTimestamp": "2026-11-20T12:00:00Z"}}),
            ),
            _ => (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []})),
        });
        let ctx = Arc::new(ctx);
        let shutdown = Shutdown::default();
        let ends = tokio::time::timeout(farewell::WAIT * 2, lead(watch::channel(true).1, &ctx, &shutdown));
        assert!(ends.await.is_ok(), "it leads: {:?}", asked.lock().unwrap());
        assert!(ctx.leaving.is_cancelled());
        let asked = asked.lock().unwrap();
        let controllers = "GET /apis/networking.k8s.io/v1/networkpolicies";
        assert!(!asked.iter().any(|a| a == controllers), "controllers have begun: {asked:?}");
    }
}
