//! Policies between the workloads of a mesh: who may call whom, and who takes plaintext.

mod authorization;
mod target;
mod tls;

pub use authorization::{
    AuthorizationAction, AuthorizationMode, AuthorizationPolicy, AuthorizationPolicySpec, AuthorizationRule,
    HeaderMatch, HttpAttributes, NetworkAttributes, PathMatch, PathMatchType, ServiceAccountSource, Source,
    SourceType,
};
pub use target::{PolicyStatus, Selector, SelectorRequirement, TargetKind, TargetRef};
pub use tls::{MeshTLSPolicy, MeshTLSPolicySpec, PortTlsMode, TlsMode};
