//! The control plane's address.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::Of;

/// Where agents ask for certificates and configuration.
pub(super) const XDS_PORT: i32 = 15012;

pub(super) fn build(of: &Of<'_>) -> Service {
    Service {
        metadata: of.meta(),
        spec: Some(ServiceSpec {
            selector: of.selector().match_labels,
            ports: Some(vec![ServicePort {
                name: Some("xds".to_owned()),
                port: XDS_PORT,
                target_port: Some(IntOrString::Int(XDS_PORT)),
                protocol: Some("TCP".to_owned()),
                app_protocol: Some("grpc".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
