//! Delta xDS: the protocol ([`DeltaSession`], [`server`]) and, in `envoy`, the translation into Envoy's resources.
//!
//! The protocol part knows nothing of Kubernetes. Whoever computes configuration publishes a [`Snapshot`] for each
//! proxy; whoever accepts streams hands them to [`server::serve`]:
//!
//! ```no_run
//! use std::sync::Arc;
//! use meshwright_runtime::CancellationToken;
//! use meshwright_xds::{Event, Resource, Snapshot, TypeUrl, server};
//! # use meshwright_xds::{DeltaDiscoveryRequest, Requests};
//! # fn stream(inbound: tonic::Streaming<DeltaDiscoveryRequest>, cluster: meshwright_xds::Any, drain: CancellationToken) {
//! let (snapshots, receiver) = tokio::sync::watch::channel(Arc::new(Snapshot::default()));
//! // `inbound` is the request stream of `delta_aggregated_resources`; the result is its response stream.
//! let responses = server::serve(
//!     inbound,
//!     receiver,
//!     server::Options::default(),
//!     |event: Event| tracing::info!(?event), // ACKs, NACKs, subscriptions; must not block
//!     drain,
//! );
//! // Later, when something changed: the latest snapshot wins, unchanged resources are not sent again.
//! snapshots.send_replace(Arc::new(
//!     Snapshot::default().with(TypeUrl::Cluster, [Resource::new("bookinfo/reviews", cluster)]),
//! ));
//! # drop(responses); }
//! ```
//!
//! To learn the node before choosing a snapshot, read the first request and pass the rest on with
//! [`server::first_request`] and [`server::serve_after`].
//!
//! What the engine guarantees, each with a test: versions are content hashes; both wildcard forms; on reconnect
//! nothing the client holds is sent again and what vanished is removed; unknown names are answered in
//! `removed_resources` and sent when they appear; order CDS, EDS, LDS, RDS, SDS, then removals; endpoints follow
//! every cluster that is sent, also when they are published after it; one RouteConfiguration a response; a rejected response with several resources is sent
//! again in halves until the culprit stands alone, and only that one becomes [`Event::Nack`]; rejected content stays
//! away until its hash changes and holds nothing else up.

pub mod envoy;
pub mod mesh;
pub mod server;
mod session;
mod types;

pub use envoy_types::pb::{
    envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
    google::protobuf::Any,
};
pub use server::Requests;
pub use session::{DeltaSession, Event, MaybeSent, Outcome};
pub use types::{Resource, Resources, Snapshot, TypeUrl};
