//! Asks control planes: gRPC to a pod's own address over mutual TLS, where each side proves a SPIFFE id.

use std::{
    collections::{BTreeSet, HashMap},
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use k8s_openapi::jiff::Timestamp;
use meshwright_api::names;
use meshwright_pki::{
    SpiffeId,
    tls::{DynamicIdentity, DynamicRoots, client_config},
};
use meshwright_proto::inspection::{
    ObservePairsRequest, ObserveRequest, ObserveResponse, ObservedNode, RenderRequest, RenderResponse,
    inspection_service_client::InspectionServiceClient,
};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint, Uri},
};

use super::{credentials::Credentials, replica::Replica};
use crate::certificates::root::Root;

/// Longest time for TCP, TLS and HTTP/2 together.
const CONNECT: Duration = Duration::from_secs(2);
/// Longest time for an observation.
const OBSERVE: Duration = Duration::from_secs(3);
/// Longest time for a rendering: everything is translated, and it is asked for once.
const RENDER: Duration = Duration::from_secs(10);
/// An hour of a hundred busy proxies has this size; tonic's own limit is 4 MiB.
const LARGEST: usize = 32 << 20;

type Service = InspectionServiceClient<Channel>;
/// What is shown, and what is trusted; both change by themselves.
type Handles = (DynamicIdentity, DynamicRoots);
/// Address and UID of a pod.
type Key = (SocketAddr, String);

/// A replica did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nobody to ask.
    #[error("control-plane pod {pod} does not run; see its events")]
    Stopped {
        /// Which pod.
        pod: String,
    },
    /// The operator has no certificate to show.
    #[error("could not make the operator's client certificate for control-plane pod {pod}")]
    Identity {
        /// Which pod.
        pod: String,
        /// Why not.
        #[source]
        source: meshwright_pki::Error,
    },
    /// No connection, or the pod is not who it should be.
    #[error("could not connect to control-plane pod {pod} at {address}; does a NetworkPolicy forbid it?")]
    Connect {
        /// Which pod.
        pod: String,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
    /// An error came back.
    #[error("control-plane pod {pod} failed to {what}: {} ({:?}); see its log", .source.message(), .source.code())]
    Failed {
        /// Which pod.
        pod: String,
        /// What was asked for.
        what: &'static str,
        /// Its answer.
        source: Box<Status>,
    },
    /// No answer in time.
    #[error("control-plane pod {pod} did not {what} within {} s", .after.as_secs())]
    Late {
        /// Which pod.
        pod: String,
        /// What was awaited.
        what: &'static str,
        /// How long.
        after: Duration,
    },
}

/// A mesh whose control planes are asked.
#[derive(Debug, Clone, Copy)]
pub struct Mesh<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its trust domain.
    pub trust_domain: &'a str,
    /// Signs the operator's certificate, and is what the replicas' must end at.
    pub root: &'a Root,
}

/// Connections to control planes.
#[derive(Debug, Default)]
pub struct Client(Mutex<Connections>);

#[derive(Debug, Default)]
struct Connections {
    credentials: Option<Credentials>,
    channels: HashMap<Key, Channel>,
}

impl Client {
    /// What the replica knows of proxies and of itself; slots from `since` on, in Unix seconds.
    pub async fn observe(
        &self,
        mesh: &Mesh<'_>,
        replica: &Replica,
        since: i64,
    ) -> Result<ObserveResponse, Error> {
        let ask = |mut service: Service| async move { service.observe(ObserveRequest { since }).await };
        self.call(mesh, replica, "tell what it observes", OBSERVE, ask).await
    }

    /// What proxies of these nodes told the replica; slots from `since` on, in Unix seconds.
    pub async fn observe_pairs(
        &self,
        mesh: &Mesh<'_>,
        replica: &Replica,
        since: i64,
        nodes: &BTreeSet<String>,
    ) -> Result<Vec<ObservedNode>, Error> {
        let ask = |mut service: Service| async move {
            service.observe_pairs(ObservePairsRequest { since, nodes: nodes.iter().cloned().collect() }).await
        };
        let told = self.call(mesh, replica, "tell what nodes reported", OBSERVE, ask).await;
        told.map(|response| response.nodes)
    }

    /// Everything that the replica gives, or would give, to proxies.
    pub async fn render(&self, mesh: &Mesh<'_>, replica: &Replica) -> Result<RenderResponse, Error> {
        let ask = |mut service: Service| async move { service.render(RenderRequest {}).await };
        self.call(mesh, replica, "render its configuration", RENDER, ask).await
    }

    /// Closes connections to all other pods.
    pub fn keep_only(&self, replicas: &[Replica]) {
        let kept: BTreeSet<&str> = replicas.iter().map(|r| r.uid.as_str()).collect();
        self.connections().channels.retain(|(_, uid), _| kept.contains(uid.as_str()));
    }

    async fn call<T, F>(
        &self,
        mesh: &Mesh<'_>,
        replica: &Replica,
        what: &'static str,
        deadline: Duration,
        ask: impl Fn(Service) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let pod = || replica.pod.clone();
        let Some(address) = replica.address() else { return Err(Error::Stopped { pod: pod() }) };
        let key = (address, replica.uid.clone());
        // Each time, because a channel that is kept connects again by itself, too.
        let handles = self.credentials(mesh).map_err(|source| Error::Identity { pod: pod(), source })?;
        let kept = self.connections().channels.get(&key).cloned();
        let mut is_kept = kept.is_some();
        let mut channel = match kept {
            Some(channel) => channel,
            None => self.connect(mesh, replica, address, &handles).await?,
        };
        loop {
            let answer = timeout(deadline, ask(service(channel))).await;
            match answer {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                // The other side ends connections from time to time: that says nothing about how it is.
                Ok(Err(_)) if is_kept => {
                    is_kept = false;
                    self.drop(&key);
                    channel = self.connect(mesh, replica, address, &handles).await?;
                }
                Ok(Err(source)) => {
                    self.drop(&key);
                    return Err(Error::Failed { pod: pod(), what, source: Box::new(source) });
                }
                Err(_) => {
                    self.drop(&key);
                    return Err(Error::Late { pod: pod(), what, after: deadline });
                }
            }
        }
    }

    async fn connect(
        &self,
        mesh: &Mesh<'_>,
        replica: &Replica,
        address: SocketAddr,
        (identity, roots): &Handles,
    ) -> Result<Channel, Error> {
        let pod = || replica.pod.clone();
        let server = SpiffeId::workload(mesh.trust_domain, mesh.namespace, &replica.revision);
        let config = server.and_then(|server| client_config(identity.clone(), roots.clone(), server));
        let config = config.map_err(|source| Error::Identity { pod: pod(), source })?;
        let connected = timeout(CONNECT, connect(address, TlsConnector::from(Arc::new(config)))).await;
        let late = |_| Error::Late { pod: pod(), what: "accept a connection", after: CONNECT };
        let channel =
            connected.map_err(late)?.map_err(|source| Error::Connect { pod: pod(), address, source })?;
        self.connections().channels.insert((address, replica.uid.clone()), channel.clone());
        Ok(channel)
    }

    fn credentials(&self, mesh: &Mesh<'_>) -> Result<Handles, meshwright_pki::Error> {
        let id = names::operator_id(mesh.trust_domain).parse::<SpiffeId>()?;
        let now = Timestamp::now();
        let mut connections = self.connections();
        let known = connections.credentials.take().filter(|c| c.are_for(mesh.root, &id));
        let mut credentials = match known {
            Some(credentials) => credentials,
            None => {
                // Verified with another root, or as somebody else.
                connections.channels.clear();
                Credentials::new(mesh.root, id, now)?
            }
        };
        credentials.keep_fresh(mesh.root, now)?;
        let handles = (credentials.identity.clone(), credentials.roots.clone());
        connections.credentials = Some(credentials);
        Ok(handles)
    }

    fn drop(&self, key: &Key) {
        self.connections().channels.remove(key);
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn service(channel: Channel) -> Service {
    InspectionServiceClient::new(channel).max_decoding_message_size(LARGEST)
}

async fn connect(address: SocketAddr, tls: TlsConnector) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            // Only the SPIFFE id counts; this name is neither sent nor checked.
            let name = ServerName::try_from("control-plane").map_err(std::io::Error::other)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, stream).await?))
        }
    });
    // The channel connects again by itself, also much later.
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(CONNECT);
    endpoint.connect_with_connector(connector).await
}
