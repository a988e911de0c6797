//! TLS 1.3 between parts of the mesh: chains end at our roots, identities are SPIFFE ids, DNS names mean nothing.
//!
//! Certificates and roots sit behind handles and are looked up at each handshake, so they rotate without a restart.
//! Sessions are never resumed: a resumed session would outlive the root it was verified with.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{Error, Identity, SpiffeId, inspect, peer_identity};

/// The certificate to present; empty until the first `set`.
#[derive(Clone, Debug, Default)]
pub struct DynamicIdentity(Arc<RwLock<Option<Arc<CertifiedKey>>>>);

impl DynamicIdentity {
    /// Presents this identity from the next handshake on.
    pub fn set(&self, identity: &Identity) -> Result<(), Error> {
        let key = provider().key_provider.load_private_key(identity.key.der())?;
        let certified = CertifiedKey::new(identity.chain.clone(), key);
        certified.keys_match()?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for DynamicIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}

impl ResolvesClientCert for DynamicIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get()
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
    }
}

#[derive(Debug)]
struct Anchors {
    store: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
}

/// The trust anchors.
#[derive(Clone, Debug)]
pub struct DynamicRoots(Arc<RwLock<Arc<Anchors>>>);

impl DynamicRoots {
    /// At least one, self-signed CAs only: Envoy would take an intermediate for an anchor too, and then removing its
    /// root would remove nothing.
    pub fn new(roots: &[CertificateDer<'static>]) -> Result<Self, Error> {
        Ok(Self(Arc::new(RwLock::new(anchors(roots)?))))
    }

    /// Trusts these, and only these, from the next handshake on.
    pub fn set(&self, roots: &[CertificateDer<'static>]) -> Result<(), Error> {
        let anchors = anchors(roots)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = anchors;
        Ok(())
    }

    /// Checks a chain, leaf first, as a peer of ours would.
    pub fn verify_chain(
        &self,
        chain: &[CertificateDer<'_>],
        now: jiff::Timestamp,
    ) -> Result<SpiffeId, Error> {
        let (leaf, intermediates) =
            chain.split_first().ok_or_else(|| Error::Certificate("the chain is empty".to_owned()))?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        self.get().clients.verify_client_cert(leaf, intermediates, now)?;
        peer_identity(leaf)
    }

    fn get(&self) -> Arc<Anchors> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn anchors(roots: &[CertificateDer<'static>]) -> Result<Arc<Anchors>, Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        let parsed = inspect::parse(root)?;
        if !inspect::is_ca(&parsed)? || parsed.subject() != parsed.issuer() {
            return Err(Error::Certificate("a trust anchor is not a self-signed CA".to_owned()));
        }
        store.add(root.clone())?;
    }
    let store = Arc::new(store);
    let clients = WebPkiClientVerifier::builder_with_provider(store.clone(), provider())
        .build()
        .map_err(|e| Error::Certificate(e.to_string()))?;
    Ok(Arc::new(Anchors { store, clients }))
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// It may come without; what it shows is verified.
    Optional,
    /// It must.
    Required,
}

/// For servers. After the handshake `peer_identity` of the first peer certificate names the client.
pub fn server_config(
    identity: DynamicIdentity,
    roots: DynamicRoots,
    client_auth: ClientAuth,
) -> Result<ServerConfig, Error> {
    let verifier = ClientVerifier { roots, mandatory: client_auth == ClientAuth::Required };
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(identity));
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For clients that expect one certain server. Without an identity (yet) no certificate is shown.
pub fn client_config(
    identity: DynamicIdentity,
    roots: DynamicRoots,
    server: SpiffeId,
) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous() // means: a verifier of our own
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { roots, server }))
        .with_client_cert_resolver(Arc::new(identity));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

#[derive(Debug)]
struct ServerVerifier {
    roots: DynamicRoots,
    server: SpiffeId,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let parsed = ParsedCertificate::try_from(leaf)?;
        let store = self.roots.get().store.clone();
        verify_server_cert_signed_by_trust_anchor(&parsed, &store, intermediates, now, algorithms.all)?;
        let id = peer_identity(leaf).map_err(|e| rustls::Error::General(e.to_string()))?;
        if id != self.server {
            return Err(rustls::Error::General(format!("server is {id}, not {}", self.server)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct ClientVerifier {
    roots: DynamicRoots,
    mandatory: bool,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    // No hints: they cannot change while the server runs, and our clients have one certificate anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.roots.get().clients.verify_client_cert(leaf, intermediates, now)?;
        peer_identity(leaf).map_err(|e| rustls::Error::General(e.to_string()))?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.get().clients.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.get().clients.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.get().clients.supported_verify_schemes()
    }
}
