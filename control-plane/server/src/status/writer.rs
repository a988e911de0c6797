//! The task that sees to it that statuses say what they should: at once after a change, and every ten seconds in any case. Only policies rest
//! for some seconds where nothing but words and numbers is different.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use meshwright_core::status::Statuses;
use meshwright_core::{ObjectKey, difference};
use meshwright_runtime::CancellationToken;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::kinds::{
    AuthorizationPolicies, GatewayClasses, Gateways, GrpcRoutes, HttpRoutes, MeshTlsPolicies, TcpRoutes,
};
use super::rests::{Rests, is_same_verdict};
use super::write::{Context, Error, Written, write};
use crate::metrics::{Metrics, count};
use crate::snapshots::until;

/// Writes under way at once.
const CONCURRENCY: usize = 16;
/// Lost writes are repaired this often.
const SWEEP: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    GatewayClass(ObjectKey),
    Gateway(ObjectKey),
    HttpRoute(ObjectKey),
    AuthorizationPolicy(ObjectKey),
    MeshTlsPolicy(ObjectKey),
    GrpcRoute(ObjectKey),
    TcpRoute(ObjectKey),
}

/// The writer.
pub struct Writer {
    context: Context,
    wanted: watch::Receiver<Option<Arc<Statuses>>>,
    metrics: Metrics,
    /// What `wanted` said when it was last looked at.
    known: Option<Arc<Statuses>>,
    queue: BTreeSet<Target>,
    running: BTreeSet<Target>,
    rests: Rests<Target>,
    jobs: JoinSet<(Target, Result<Written, Error>)>,
}

impl Writer {
    /// Writes what the index wants while `leadership` lasts.
    pub fn new(
        client: kube::Client,
        leadership: meshwright_k8s::lease::Leadership,
        index: &meshwright_index::Index,
        events: super::Events,
        metrics: Metrics,
    ) -> Self {
        Self {
            context: Context { client, leadership, live: index.live().clone(), events },
            wanted: index.statuses(),
            metrics,
            known: None,
            queue: BTreeSet::new(),
            running: BTreeSet::new(),
            rests: Rests::default(),
            jobs: JoinSet::new(),
        }
    }

    /// Runs until `drain` is cancelled.
    pub async fn run(mut self, drain: CancellationToken) {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leader = self.context.leadership.subscribe();
        let live = self.context.live.clone();
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_wanted();
                }
                () = live.changed() => self.take_touched(),
                Some(done) = self.jobs.join_next() => self.finish(done),
                changed = leader.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.metrics.status_leader.set(i64::from(*leader.borrow_and_update()));
                    self.take_all();
                }
                () = until(self.rests.next()) => self.queue.extend(self.rests.take_rested(Instant::now())),
                _ = sweep.tick() => self.take_all(),
            }
            self.start();
        }
    }

    fn take_wanted(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let empty = Statuses::default();
        let known = self.known.as_deref().unwrap_or(&empty);
        let next = wanted.as_deref().unwrap_or(&empty);
        let classes = difference(&known.gateway_classes, &next.gateway_classes, PartialEq::eq);
        let gateways = difference(&known.gateways, &next.gateways, PartialEq::eq);
        let routes = difference(&known.http_routes, &next.http_routes, PartialEq::eq);
        let grpc_routes = difference(&known.grpc_routes, &next.grpc_routes, PartialEq::eq);
        let tcp_routes = difference(&known.tcp_routes, &next.tcp_routes, PartialEq::eq);
        self.queue.extend(classes.map(|name| Target::GatewayClass(ObjectKey::new("", name.as_str()))));
        self.queue.extend(gateways.cloned().map(Target::Gateway));
        self.queue.extend(routes.map(|key| Target::HttpRoute(ObjectKey::clone(key))));
        let (known_policies, next_policies) = (&known.policies, &next.policies);
        let authorization =
            difference(&known_policies.authorization, &next_policies.authorization, PartialEq::eq);
        let tls = difference(&known_policies.tls, &next_policies.tls, PartialEq::eq);
        self.queue.extend(authorization.cloned().map(Target::AuthorizationPolicy));
        self.queue.extend(tls.cloned().map(Target::MeshTlsPolicy));
        self.queue.extend(grpc_routes.map(|key| Target::GrpcRoute(ObjectKey::clone(key))));
        self.queue.extend(tcp_routes.map(|key| Target::TcpRoute(ObjectKey::clone(key))));
        self.known = wanted;
    }

    fn take_touched(&mut self) {
        let touched = self.context.live.take_touched();
        self.queue.extend(touched.gateway_classes.into_iter().map(Target::GatewayClass));
        self.queue.extend(touched.gateways.into_iter().map(Target::Gateway));
        self.queue.extend(touched.http_routes.into_iter().map(Target::HttpRoute));
        self.queue.extend(touched.authorization_policies.into_iter().map(Target::AuthorizationPolicy));
        self.queue.extend(touched.mesh_tls_policies.into_iter().map(Target::MeshTlsPolicy));
        self.queue.extend(touched.grpc_routes.into_iter().map(Target::GrpcRoute));
        self.queue.extend(touched.tcp_routes.into_iter().map(Target::TcpRoute));
    }

    fn take_all(&mut self) {
        let live = &self.context.live;
        self.queue.extend(live.gateway_classes().into_iter().map(|(key, _)| Target::GatewayClass(key)));
        self.queue.extend(live.gateways().into_iter().map(|(key, _)| Target::Gateway(key)));
        self.queue.extend(live.http_routes().into_iter().map(|(key, _)| Target::HttpRoute(key)));
        let authorization = live.authorization_policies().into_iter();
        self.queue.extend(authorization.map(|(key, _)| Target::AuthorizationPolicy(key)));
        self.queue.extend(live.mesh_tls_policies().into_iter().map(|(key, _)| Target::MeshTlsPolicy(key)));
        self.queue.extend(live.grpc_routes().into_iter().map(|(key, _)| Target::GrpcRoute(key)));
        self.queue.extend(live.tcp_routes().into_iter().map(|(key, _)| Target::TcpRoute(key)));
    }

    /// Starts what is due. Without the Lease, or before the index is ready, there is nothing to do, and the sweep after that will find it.
    fn start(&mut self) {
        let statuses = match &self.known {
            Some(statuses) if self.context.leadership.is_leader() => statuses.clone(),
            _ => {
                self.queue.clear();
                return;
            }
        };
        let due: Vec<Target> =
            self.queue.iter().filter(|target| !self.running.contains(*target)).cloned().collect();
        let now = Instant::now();
        for target in due {
            if self.jobs.len() >= CONCURRENCY {
                return;
            }
            self.queue.remove(&target);
            if self.is_settled(&target, &statuses)
                || (self.has_time(&target, &statuses) && self.rests.holds(&target, now))
            {
                continue;
            }
            self.running.insert(target.clone());
            self.jobs.spawn(one(self.context.clone(), target, statuses.clone()));
        }
    }

    /// Most objects that are looked at say what they should; that is found out here, without a task.
    fn is_settled(&self, target: &Target, statuses: &Statuses) -> bool {
        use super::kinds::Kind;
        fn settled<K: Kind>(context: &Context, key: &ObjectKey, statuses: &Statuses) -> bool {
            K::live(&context.live, key).is_none_or(|live| {
                let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
                // A new time appears only where something changed, so any time will do to compare.
                K::wanted(statuses, key, live.status.as_ref(), now)
                    .is_none_or(|wanted| live.status == Some(wanted))
            })
        }
        match target {
            Target::GatewayClass(key) => settled::<GatewayClasses>(&self.context, key, statuses),
            Target::Gateway(key) => settled::<Gateways>(&self.context, key, statuses),
            Target::HttpRoute(key) => settled::<HttpRoutes>(&self.context, key, statuses),
            Target::AuthorizationPolicy(key) => {
                settled::<AuthorizationPolicies>(&self.context, key, statuses)
            }
            Target::MeshTlsPolicy(key) => settled::<MeshTlsPolicies>(&self.context, key, statuses),
            Target::GrpcRoute(key) => settled::<GrpcRoutes>(&self.context, key, statuses),
            Target::TcpRoute(key) => settled::<TcpRoutes>(&self.context, key, statuses),
        }
    }

    /// Whether nothing but words and numbers of a policy is different.
    fn has_time(&self, target: &Target, statuses: &Statuses) -> bool {
        use super::kinds::Kind;
        fn is_same<K: Kind>(context: &Context, key: &ObjectKey, statuses: &Statuses) -> bool {
            let live = K::live(&context.live, key);
            let Some(known) = live.as_ref().and_then(|live| live.status.as_ref()) else { return false };
            let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
            K::wanted(statuses, key, Some(known), now)
                .is_some_and(|wanted| is_same_verdict(&K::conditions(known), &K::conditions(&wanted)))
        }
        match target {
            Target::AuthorizationPolicy(key) => {
                is_same::<AuthorizationPolicies>(&self.context, key, statuses)
            }
            Target::MeshTlsPolicy(key) => is_same::<MeshTlsPolicies>(&self.context, key, statuses),
            _ => false,
        }
    }

    fn finish(&mut self, done: Result<(Target, Result<Written, Error>), tokio::task::JoinError>) {
        let (target, result) = match done {
            Ok(done) => done,
            Err(error) => {
                // Its target is not known any more: let nothing stay marked as running for ever.
                tracing::error!(%error, "status write ended unexpectedly");
                self.running.clear();
                return;
            }
        };
        self.running.remove(&target);
        match result {
            Ok(Written::Unchanged) => {}
            Ok(Written::Done) => {
                self.rests.written(&target, Instant::now());
                count(&self.metrics.status_writes, "written");
            }
            Ok(Written::NotOurs) => count(&self.metrics.status_writes, "skipped"),
            Err(error) => {
                count(&self.metrics.status_writes, "failed");
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(?target, %error, cause, "could not write status, the next sweep tries again");
            }
        }
    }
}

async fn one(context: Context, target: Target, statuses: Arc<Statuses>) -> (Target, Result<Written, Error>) {
    let result = match &target {
        Target::GatewayClass(key) => write::<GatewayClasses>(&context, key, &statuses).await,
        Target::Gateway(key) => write::<Gateways>(&context, key, &statuses).await,
        Target::HttpRoute(key) => write::<HttpRoutes>(&context, key, &statuses).await,
        Target::AuthorizationPolicy(key) => write::<AuthorizationPolicies>(&context, key, &statuses).await,
        Target::MeshTlsPolicy(key) => write::<MeshTlsPolicies>(&context, key, &statuses).await,
        Target::GrpcRoute(key) => write::<GrpcRoutes>(&context, key, &statuses).await,
        Target::TcpRoute(key) => write::<TcpRoutes>(&context, key, &statuses).await,
    };
    (target, result)
}

#[cfg(test)]
mod tests;
