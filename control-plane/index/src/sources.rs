//! What is watched.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Resource};
use meshwright_api::gateway as api;
use meshwright_api::{GatewayParameters, PolicyStatus, labels};
use meshwright_k8s::{Source, Update, watch};
use meshwright_runtime::{CancellationToken, ReadyGuard};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::convert::{AuthorizationPolicyView, MeshTlsPolicyView, PodView};
use crate::event::{Event, Seen};
use crate::live::Live;
use crate::{Setup, convert};

/// The CRD that says which release of the Gateway API is installed.
const VERSIONED_CRD: &str = "gatewayclasses.gateway.networking.k8s.io";
/// How often that is looked at: releases change seldom, and a poll of one object needs no list permission.
const VERSION_POLL: Duration = Duration::from_secs(30);

/// Starts every watch; the guards are to be dropped when their kind was listed.
pub(crate) fn spawn(
    setup: &Setup,
    events: &mpsc::Sender<Event>,
    tasks: &mut JoinSet<&'static str>,
    drain: &CancellationToken,
) -> BTreeMap<&'static str, ReadyGuard> {
    let mut watches = Watches { setup, events, tasks, drain, awaited: BTreeMap::new() };
    let made_for_gateways = format!("{},{}={}", labels::GATEWAY_NAME, labels::MANAGED_BY, labels::MANAGER);
    watches.watch("services", |source| source, convert::service, Event::Services);
    watches.watch("namespaces", |source| source, convert::namespace, Event::Namespaces);
    watches.watch(
        "endpointslices",
        |source: Source<EndpointSlice>| source,
        convert::endpoint_slice,
        Event::EndpointSlices,
    );
    watches.watch(
        "deployments",
        |source: Source<Deployment>| source.labels(&made_for_gateways),
        |object| convert::deployment(&object),
        Event::Deployments,
    );
    watches.watch("gatewayclasses", Source::optional, seen_class, Event::GatewayClasses);
    watches.watch("gateways", Source::optional, seen_gateway, Event::Gateways);
    watches.watch("httproutes", Source::optional, seen_route, Event::HttpRoutes);
    watches.watch("referencegrants", Source::optional, convert::reference_grant, Event::ReferenceGrants);
    watches.watch(
        "gatewayparameters",
        Source::optional,
        |object: GatewayParameters| convert::gateway_parameters(&object),
        Event::GatewayParameters,
    );
    if let Some(mesh) = &setup.mesh {
        watches.watch("pods", running, convert::pod, Event::Pods);
        watches.watch(
            "authorizationpolicies",
            Source::optional,
            seen_authorization,
            Event::AuthorizationPolicies,
        );
        watches.watch("meshtlspolicies", Source::optional, seen_tls, Event::MeshTlsPolicies);
        let source = Source::namespaced("meshnodes", setup.client.clone(), &mesh.namespace).optional();
        watches.start(source, convert::mesh_node, Event::MeshNodes);
        // No Gateway here takes them, and its control plane may have no right to list them: it would wait for ever.
        watches.watch("grpcroutes", Source::optional, seen_grpc_route, Event::GrpcRoutes);
        watches.watch("tcproutes", Source::optional, seen_tcp_route, Event::TcpRoutes);
    }
    let what = "gateway API version";
    watches.awaited.insert(what, setup.readiness.guard(what));
    let poll = drain.clone().run_until_cancelled_owned(poll_version(setup.client.clone(), events.clone()));
    watches.tasks.spawn(async move {
        poll.await;
        what
    });
    watches.awaited
}

struct Watches<'a> {
    setup: &'a Setup,
    events: &'a mpsc::Sender<Event>,
    tasks: &'a mut JoinSet<&'static str>,
    drain: &'a CancellationToken,
    awaited: BTreeMap<&'static str, ReadyGuard>,
}

impl Watches<'_> {
    fn watch<K, T>(
        &mut self,
        what: &'static str,
        narrow: impl FnOnce(Source<K>) -> Source<K>,
        convert: impl Fn(K) -> T + Send + 'static,
        wrap: impl Fn(Update<T>) -> Event + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        T: Send + 'static,
    {
        self.start(narrow(Source::all(what, self.setup.client.clone())), convert, wrap);
    }

    fn start<K, T>(
        &mut self,
        source: Source<K>,
        convert: impl Fn(K) -> T + Send + 'static,
        wrap: impl Fn(Update<T>) -> Event + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        T: Send + 'static,
    {
        let (what, source) = (source.what, source.recorder(self.setup.recorder.clone()));
        self.awaited.insert(what, self.setup.readiness.guard(what));
        let run = watch::run(source, convert, wrap, self.events.clone(), self.drain.clone());
        self.tasks.spawn(async move {
            run.await;
            what
        });
    }
}

/// A cluster has many pods that have ended, or wait for a node: they need not be sent at all.
fn running(mut source: Source<PodView>) -> Source<PodView> {
    source.config = source.config.fields("spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed");
    source
}

macro_rules! seen {
    ($name:ident, $object:ty, $status:ty, $model:ty, $convert:path) => {
        fn $name(object: $object) -> Seen<$model, $status> {
            Seen {
                model: $convert(&object),
                live: Live {
                    uid: object.metadata.uid.unwrap_or_default(),
                    resource_version: object.metadata.resource_version.unwrap_or_default(),
                    status: object.status,
                },
            }
        }
    };
}

use meshwright_core::model;
seen!(seen_class, api::GatewayClass, api::GatewayClassStatus, model::GatewayClass, convert::gateway_class);
seen!(seen_gateway, api::Gateway, api::GatewayStatus, model::Gateway, convert::gateway);
seen!(seen_route, api::HttpRoute, api::HttpRouteStatus, model::HttpRoute, convert::http_route);
macro_rules! seen_policy {
    ($name:ident, $view:ty, $model:ty, $convert:path) => {
        fn $name(object: $view) -> Seen<$model, PolicyStatus> {
            let (model, status) = ($convert(&object), object.status());
            let uid = object.metadata.uid.unwrap_or_default();
            let resource_version = object.metadata.resource_version.unwrap_or_default();
            Seen { model, live: Live { uid, resource_version, status } }
        }
    };
}

seen_policy!(
    seen_authorization,
    AuthorizationPolicyView,
    model::AuthorizationPolicy,
    convert::authorization_policy
);
seen_policy!(seen_tls, MeshTlsPolicyView, model::MeshTlsPolicy, convert::mesh_tls_policy);
seen!(seen_grpc_route, api::GrpcRoute, api::GrpcRouteStatus, model::HttpRoute, convert::grpc_route);
seen!(seen_tcp_route, api::TcpRoute, api::TcpRouteStatus, model::HttpRoute, convert::tcp_route);

async fn poll_version(client: kube::Client, events: mpsc::Sender<Event>) {
    let api: Api<CustomResourceDefinition> = Api::all(client);
    let mut last: Option<Option<String>> = None;
    loop {
        let version = match api.get_metadata_opt(VERSIONED_CRD).await {
            Ok(found) => found.and_then(|crd| crd.metadata.annotations?.remove(labels::BUNDLE_VERSION)),
            Err(error) => {
                tracing::warn!(crd = VERSIONED_CRD, %error, "could not read the gateway API's version");
                last.clone().flatten()
            }
        };
        if last.as_ref() != Some(&version) {
            last = Some(version.clone());
            if events.send(Event::BundleVersion(version)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(VERSION_POLL).await;
    }
}
