//! Server certificates.

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret::Type};
use envoy_types::util::pack_any;
use meshwright_core::model::{self, ObjectKey};

use crate::Resource;

/// `kubernetes://<namespace>/<name>`.
pub fn name(secret: &ObjectKey) -> String {
    format!("kubernetes://{}/{}", secret.namespace, secret.name)
}

/// The secret resource.
pub fn resource(secret: &ObjectKey, certificate: &model::TlsCertificate) -> Resource {
    let name = name(secret);
    let proto = Secret {
        name: name.clone(),
        r#type: Some(Type::TlsCertificate(TlsCertificate {
            certificate_chain: Some(inline(&certificate.certificate_chain)),
            private_key: Some(inline(&certificate.private_key.0)),
            ..TlsCertificate::default()
        })),
    };
    Resource::new(name, pack_any(proto))
}

fn inline(bytes: &[u8]) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() }
}
