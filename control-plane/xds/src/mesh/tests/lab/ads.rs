//! Control plane and agent of a node in one: serves the translated mesh with placeholders filled in, and the secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};
use envoy_types::pb::envoy::config::core::v3::{
    DataSource, SocketAddress, SubstitutionFormatString, address, data_source::Specifier,
    substitution_format_string::Format,
};
use envoy_types::pb::envoy::config::listener::v3::{Listener, filter};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TcpAccessLogOptions;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use envoy_types::pb::envoy::service::discovery::v3::{
    DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{AggregatedDiscoveryService, AggregatedDiscoveryServiceServer},
};
use envoy_types::util::pack_any;
use futures::Stream;
use meshwright_core::mesh::Mesh;
use meshwright_runtime::CancellationToken;
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::network::Network;
use super::{PODS, log};
use crate::mesh::tests::{PORTS, spiffe, spiffe_in};
use crate::mesh::{Shared, caller_secret, demand, node};
use crate::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Event, Resource, Snapshot, TypeUrl, server};

/// Account of a gateway.
const GATEWAY: &str = "edge";

/// The mesh's certificate authority.
pub struct Authority {
    pub issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate().unwrap();
        Self { issuer: rcgen::CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    /// A certificate for a SPIFFE id, and its key.
    pub fn sign(&self, id: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn secrets(&self) -> Vec<Resource> {
        let roots = secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: Some(inline(self.issuer.pem())),
            ..CertificateValidationContext::default()
        });
        let mut all = BTreeMap::from([("roots".to_owned(), roots)]);
        let accounts: Vec<_> = PODS.iter().map(|(account, ..)| *account).chain([GATEWAY]).collect();
        let elsewhere = accounts.iter().map(|account| spiffe_in("web", account));
        for id in accounts.iter().map(|account| spiffe(account)).chain(elsewhere) {
            let id = id.to_string();
            let certificate = self.certificate(&id);
            if *id == *spiffe(GATEWAY) {
                all.insert("workload".to_owned(), certificate.clone());
            }
            all.insert(caller_secret(&id), certificate.clone());
            all.insert(id.to_string(), certificate);
        }
        all.into_iter().map(|(name, secret)| in_resource(name, secret)).collect()
    }

    fn certificate(&self, id: &str) -> secret::Type {
        let (certificate, key) = self.sign(id);
        secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(certificate.pem())),
            private_key: Some(inline(key.serialize_pem())),
            ..TlsCertificate::default()
        })
    }
}

fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineString(text)), ..DataSource::default() }
}

fn in_resource(name: String, secret: secret::Type) -> Resource {
    Resource::new(name.as_str(), pack_any(Secret { name: name.clone(), r#type: Some(secret) }))
}

/// Whether Envoys get clusters that nobody has called, to measure what it is worth that they do not.
pub fn everything() -> bool {
    std::env::var_os("EVERYTHING").is_some()
}

/// What Envoy is offered, as the agent does it.
#[derive(Default)]
struct Offered {
    /// Not of a gateway.
    on_demand: bool,
    all: Mutex<(Snapshot, BTreeSet<Arc<str>>)>,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Offered {
    fn send(&self, change: impl FnOnce(&mut Snapshot, &mut BTreeSet<Arc<str>>)) {
        let mut all = self.all.lock().unwrap();
        let (snapshot, asked) = &mut *all;
        change(snapshot, asked);
        let mut offered = snapshot.clone();
        if let Some(clusters) = snapshot.resources(TypeUrl::Cluster).filter(|_| self.on_demand) {
            offered.share(TypeUrl::Cluster, Arc::new(demand::offered(clusters, asked)));
        }
        self.snapshots.send_replace(Arc::new(offered));
    }
}

/// What one node is told.
pub struct Node {
    pub name: String,
    pub socket: PathBuf,
    directory: PathBuf,
    offered: Arc<Offered>,
    refused: Arc<Mutex<Vec<String>>>,
    paths: BTreeMap<String, String>,
    secrets: Vec<Resource>,
    edit: fn(&mut Snapshot),
    stop: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Node {
    pub fn start(
        name: &str,
        directory: &Path,
        authority: &Authority,
        network: &Network,
        edit: fn(&mut Snapshot),
    ) -> Self {
        let uids = PODS.iter().map(|(account, ..)| format!("pod:uid-{account}"));
        let places = uids.chain(["blackhole".to_owned()]);
        let paths =
            places.map(|place| (place.clone(), network.path_of(&place).display().to_string())).collect();
        Self::start_with(name, directory, authority, paths, edit)
    }
    pub fn start_with(
        name: &str,
        directory: &Path,
        authority: &Authority,
        paths: BTreeMap<String, String>,
        edit: fn(&mut Snapshot),
    ) -> Self {
        let on_demand = paths.contains_key("blackhole") && !everything();
        let node = Self {
            name: name.to_owned(),
            socket: directory.join(format!("{name}.xds")),
            directory: directory.to_owned(),
            offered: Arc::new(Offered { on_demand, ..Offered::default() }),
            refused: Arc::default(),
            paths,
            secrets: authority.secrets(),
            edit,
            stop: CancellationToken::new(),
        };
        node.serve();
        node
    }

    fn serve(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let (offered, refused, stop) = (self.offered.clone(), self.refused.clone(), self.stop.clone());
        let stopped = stop.clone().cancelled_owned();
        let ads = AggregatedDiscoveryServiceServer::new(Service { offered, refused, stop });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(ads)
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stopped),
        );
    }

    /// Goes away as an agent does that crashes.
    pub fn away(&mut self) {
        std::mem::take(&mut self.stop).cancel();
        std::fs::remove_file(&self.socket).unwrap();
    }

    /// Is there again, and knows nothing of what Envoy asked for.
    pub fn back(&self) {
        self.offered.send(|_, asked| asked.clear());
        self.serve();
    }

    /// Has the certificates of more accounts.
    pub fn with_accounts(mut self, authority: &Authority, accounts: impl Iterator<Item = String>) -> Self {
        for id in accounts.map(|account| spiffe(&account)) {
            let certificate = authority.certificate(&id);
            self.secrets.push(in_resource(caller_secret(&id), certificate.clone()));
            self.secrets.push(in_resource(id.to_string(), certificate));
        }
        self
    }

    pub fn publish(&self, shared: &Shared, mesh: &Mesh) {
        let mut snapshot = node(shared, mesh, &self.name, PORTS);
        (self.edit)(&mut snapshot);
        // Pods that have no network yet.
        let names = super::names(&snapshot, TypeUrl::Listener).into_iter();
        let placeless = names.filter(|name| {
            let uid = name.strip_prefix("pod/").and_then(|rest| rest.split('/').next());
            uid.is_some_and(|uid| !self.paths.contains_key(&format!("pod:{uid}")))
        });
        placeless.for_each(|name| snapshot.edit(TypeUrl::Listener).remove(&name));
        change(&mut snapshot, TypeUrl::Listener, |listener: &mut Listener| self.in_listener(listener));
        self.send(snapshot);
    }

    /// Sends this, with the secrets.
    pub fn send(&self, snapshot: Snapshot) {
        let snapshot = snapshot.with(TypeUrl::Secret, self.secrets.iter().cloned());
        self.offered.send(|known, _| *known = snapshot);
    }

    /// Where what has lost its network leaves from; a gateway has none.
    pub fn black_hole(&self) -> Option<&str> {
        self.paths.get("blackhole").map(String::as_str)
    }

    /// The clusters that Envoy has asked for.
    pub fn asked(&self) -> BTreeSet<Arc<str>> {
        self.offered.all.lock().unwrap().1.clone()
    }

    /// What Envoy did not take.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    fn in_listener(&self, listener: &mut Listener) {
        if let Some(address::Address::SocketAddress(address)) =
            listener.address.as_mut().and_then(|address| address.address.as_mut())
        {
            self.fill_in(address);
        }
        let uid = listener.name.strip_prefix("pod/").and_then(|rest| rest.strip_suffix("/inbound"));
        // A log is a part of the memory that is measured with many pods.
        let is_ours = |uid: &&str| PODS.iter().any(|(account, ..)| uid.strip_prefix("uid-") == Some(account));
        if let Some(uid) = uid.filter(is_ours) {
            let log = log(&self.directory, uid);
            write_down(listener, &log);
        }
    }

    fn fill_in(&self, address: &mut SocketAddress) {
        address.network_namespace_filepath = self.paths[&address.network_namespace_filepath].clone();
    }
}

/// Changes all resources of a type.
pub fn change<T: Message + Default + prost::Name>(
    snapshot: &mut Snapshot,
    kind: TypeUrl,
    mut change: impl FnMut(&mut T),
) {
    let all: Vec<_> = snapshot.resources(kind).into_iter().flat_map(|all| all.iter().cloned()).collect();
    for resource in all {
        let mut proto = T::decode(resource.body().value.as_slice()).unwrap();
        change(&mut proto);
        snapshot.edit(kind).insert(Resource::new(resource.name().clone(), pack_any(proto)));
    }
}

/// Writes down who calls, as soon as the application is reached.
fn write_down(listener: &mut Listener, path: &Path) {
    let text = "%DOWNSTREAM_PEER_URI_SAN%|%REQUESTED_SERVER_NAME%|%DOWNSTREAM_LOCAL_URI_SAN%\n".to_owned();
    let format = SubstitutionFormatString {
        format: Some(Format::TextFormatSource(DataSource {
            specifier: Some(Specifier::InlineString(text)),
            ..DataSource::default()
        })),
        ..SubstitutionFormatString::default()
    };
    let file = FileAccessLog {
        path: path.display().to_string(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(format)),
    };
    for filter in &mut listener.filter_chains[0].filters {
        let Some(filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else { continue };
        if any.type_url.ends_with("TcpProxy") {
            let mut proxy = TcpProxy::decode(any.value.as_slice()).unwrap();
            proxy.access_log.push(AccessLog {
                name: "file".to_owned(),
                config_type: Some(access_log::ConfigType::TypedConfig(pack_any(file.clone()))),
                ..AccessLog::default()
            });
            proxy.access_log_options = Some(TcpAccessLogOptions {
                flush_access_log_on_connected: true,
                ..TcpAccessLogOptions::default()
            });
            *any = pack_any(proxy);
        }
    }
}

struct Service {
    offered: Arc<Offered>,
    refused: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DiscoveryResponse, Status>> + Send>>;
    type DeltaAggregatedResourcesStream =
        Pin<Box<dyn Stream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let (refused, offered) = (self.refused.clone(), self.offered.clone());
        let on_event = move |event| match event {
            Event::Nack { resources, message, .. } => {
                refused.lock().unwrap().push(format!("{resources:?}: {message}"));
            }
            event => {
                let named: Vec<_> = demand::named(&event).cloned().collect();
                if !named.is_empty() {
                    offered.send(|_, asked| asked.extend(named));
                }
            }
        };
        let (snapshots, options) = (self.offered.snapshots.subscribe(), server::Options::default());
        let responses = server::serve(request.into_inner(), snapshots, options, on_event, self.stop.clone());
        Ok(Response::new(Box::pin(responses)))
    }
}
