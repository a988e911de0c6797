//! The wire types that are our own; everything else on the wire is Envoy's.

/// Signing of workload certificates, `proto/certificates.proto`.
pub mod certificates {
    #![allow(missing_docs, clippy::all)]
    tonic::include_proto!("meshwright.certificates.v1");
}
