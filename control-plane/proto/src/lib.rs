//! The wire types that are our own; everything else on the wire is Envoy's.

// Nested like the packages, because generated code of one names another's by `super`.
#[allow(missing_docs, clippy::all)]
mod packages {
    pub mod certificates {
        pub mod v1 {
            tonic::include_proto!("meshwright.certificates.v1");
        }
    }
    pub mod reports {
        pub mod v1 {
            tonic::include_proto!("meshwright.reports.v1");
        }
    }
    pub mod nodes {
        pub mod v1 {
            tonic::include_proto!("meshwright.nodes.v1");
        }
    }
    pub mod inspection {
        pub mod v1 {
            tonic::include_proto!("meshwright.inspection.v1");
        }
    }
}

/// Signing of workload certificates, `proto/certificates.proto`.
pub use packages::certificates::v1 as certificates;
/// What the operator asks a control plane, `proto/inspection.proto`.
pub use packages::inspection::v1 as inspection;
/// What node agents are told and tell, `proto/nodes.proto`.
pub use packages::nodes::v1 as nodes;
/// What proxies report, `proto/reports.proto`.
pub use packages::reports::v1 as reports;
