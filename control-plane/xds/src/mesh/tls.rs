//! Mutual TLS between proxies. Keys and trust anchors are the agent's: their secrets never come from the control plane.

use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::cert_mappers::filter_state_override;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::cert_selectors::on_demand_secret;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::downstream_tls_context::SessionTicketKeysType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    SubjectAltNameMatcher, TlsParameters, UpstreamTlsContext,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};

use super::parts::{extension, transport_socket};
use crate::envoy::common::{ads, boolean, uint32};

/// HTTP/2, HTTP/1 and anything else, by the wire format.
pub(crate) const HTTP2: &str = "mw1-h2";
pub(crate) const HTTP1: &str = "mw1-http";
pub(super) const TCP: &str = "mw1-tcp";

/// The secret with the trust anchors.
const ROOTS: &str = "roots";
/// The secret with a gateway's own certificate.
const GATEWAY: &str = "workload";
/// A secret that there never is: who lost its identity gets no certificate.
const NOBODY: &str = "nobody";
const SOCKET: &str = "envoy.transport_sockets.tls";

/// Shows the certificate of whoever calls, which a connection's filter state tells. One context serves all pods of the node and all
/// Services: with one for each pair of them, or only for each Service, contexts would be most of the proxy's memory.
pub(super) fn client(trust_domain: &str) -> TransportSocket {
    let mapper = filter_state_override::v3::Config { default_value: NOBODY.to_owned() };
    let selector = on_demand_secret::v3::Config {
        config_source: Some(ads()),
        certificate_mapper: Some(extension(
            "envoy.tls.upstream_certificate_mappers.filter_state_override",
            mapper,
        )),
        prefetch_secret_names: Vec::new(),
    };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: vec![TCP.to_owned()],
            custom_tls_certificate_selector: Some(extension(
                "envoy.tls.certificate_selectors.on_demand_secret",
                selector,
            )),
            ..common(of(trust_domain))
        }),
        // A resumed session would be one that another certificate began.
        max_session_keys: uint32(0),
        ..UpstreamTlsContext::default()
    };
    transport_socket(SOCKET, context)
}

/// Shows the certificate of that identity to anybody of the trust domain who shows one.
pub(super) fn server(trust_domain: &str, identity: &str) -> TransportSocket {
    let own = SdsSecretConfig { name: identity.to_owned(), sds_config: Some(ads()) };
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: [HTTP2, HTTP1, TCP].map(str::to_owned).to_vec(),
            tls_certificate_sds_secret_configs: vec![own],
            ..common(of(trust_domain))
        }),
        require_client_certificate: boolean(true),
        disable_stateful_session_resumption: true,
        session_ticket_keys_type: Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)),
        ..DownstreamTlsContext::default()
    };
    transport_socket(SOCKET, context)
}

/// Shows a gateway's own certificate to a pod of that identity, and to no other. The server name is the endpoint's host name.
pub(crate) fn gateway(identity: &str, alpn: &str) -> TransportSocket {
    let own = SdsSecretConfig { name: GATEWAY.to_owned(), sds_config: Some(ads()) };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            alpn_protocols: vec![alpn.to_owned()],
            tls_certificate_sds_secret_configs: vec![own],
            ..common(MatchPattern::Exact(identity.to_owned()))
        }),
        auto_host_sni: true,
        ..UpstreamTlsContext::default()
    };
    transport_socket(SOCKET, context)
}

/// Any identity of the trust domain.
fn of(trust_domain: &str) -> MatchPattern {
    MatchPattern::Prefix(format!("spiffe://{trust_domain}/"))
}

fn common(peer: MatchPattern) -> CommonTlsContext {
    let matcher = SubjectAltNameMatcher {
        san_type: SanType::Uri as i32,
        matcher: Some(StringMatcher { match_pattern: Some(peer), ignore_case: false }),
        ..SubjectAltNameMatcher::default()
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: vec![matcher],
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(SdsSecretConfig {
            name: ROOTS.to_owned(),
            sds_config: Some(ads()),
        }),
        ..CombinedCertificateValidationContext::default()
    };
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13 as i32,
            // Envoy's own limit for clients is 1.2.
            tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
            ..TlsParameters::default()
        }),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..CommonTlsContext::default()
    }
}

/// Whether this is a SPIFFE id, or the beginning of one, and has no character that means anything in an expression.
pub(super) fn is_spiffe(text: &str) -> bool {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "._-/".contains(char);
    text.strip_prefix("spiffe://").is_some_and(|rest| !rest.is_empty() && rest.chars().all(is_plain))
}
