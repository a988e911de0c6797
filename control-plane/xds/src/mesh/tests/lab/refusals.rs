//! Who is not let in, and who is not taken for whom it was meant.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_has_to_be_whom_it_was_listed_as() {
    let mut cluster = mesh();
    let imposter = Peer { uid: "uid-back".into(), identity: spiffe("other"), ..Peer::default() };
    Arc::make_mut(&mut cluster.mesh.peers).insert("10.77.0.21".to_owned(), imposter);
    let Some(lab) = lab(cluster, |_| {}).await else { return };
    let front = lab.pod("front");
    let answer = front.source("10.88.0.1:80").await;
    assert!(answer.contains("503"), "{answer}");
    assert!(front.talk("10.88.0.2:3306").await.is_err());
    assert_eq!(front.source("[fd88::1]:80").await, "from fd77::21", "by its other address it is itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_of_the_proxy_lead_nowhere() {
    let Some(lab) = lab(mesh(), |_| {}).await else { return };
    let (front, outside) = (lab.pod("front"), lab.pod("outside"));
    // Without having been redirected; and with the SNI that says so.
    for port in [PORTS.outbound, 15201, PORTS.inbound, PORT] {
        let answer = outside.source(&format!("10.77.0.21:{port}")).await;
        assert!(!answer.starts_with("from"), "{port}: {answer}");
        let answer = front.source(&format!("10.77.0.21:{port}")).await;
        assert!(!answer.starts_with("from") && !answer.contains("200"), "{port}: {answer}");
    }
    assert_eq!(front.source("10.88.0.1:80").await, "from 10.77.0.21", "nobody is worse for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_shows_a_certificate_of_the_mesh_and_names_a_port_is_let_in() {
    let Some(lab) = lab(mesh(), |_| {}).await else { return };
    let ours = spiffe("outside").to_string();
    let (good, foreign) = (lab.authority.sign(&ours), Authority::new().sign(&ours));
    let stranger = lab.authority.sign("spiffe://elsewhere/ns/shop/sa/outside");
    let answer = async |certificate, name, alpn| ask(lab.pod("outside"), certificate, name, alpn).await;
    let tcp: &[&[u8]] = &[b"mw1-tcp"];
    assert_eq!(answer(None, "port.example", tcp).await, None, "no certificate");
    assert_eq!(answer(Some(&foreign), "port.example", tcp).await, None, "another authority");
    assert_eq!(answer(Some(&stranger), "port.example", tcp).await, None, "another trust domain");
    assert_eq!(answer(Some(&good), "port.example", tcp).await.as_deref(), Some(""), "no port");
    assert_eq!(answer(Some(&good), "10.77.0.21", tcp).await.as_deref(), Some(""), "no SNI");
    assert_eq!(answer(Some(&good), "port.example", &[b"h2"]).await, None, "another format");
    assert_eq!(lab.pod("outside").source("10.77.0.21:8080").await, "from 10.77.0.99", "in plaintext as ever");
}

/// The beginning of a handshake.
pub fn hello(alpn: &[u8]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("port.example").unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

type Pair = (rcgen::Certificate, rcgen::KeyPair);

/// What is answered after the handshake; None if that fails. TLS here refuses names that are numbers, so no port can be named.
async fn ask(from: &Namespace, certificate: Option<&Pair>, name: &str, alpn: &[&[u8]]) -> Option<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let stream = from.connect(&format!("10.77.0.21:{PORT}")).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(name, stream).await.ok()?;
    // Of a certificate that was refused a client of TLS 1.3 hears after its handshake.
    stream.write_all(b"hello").await.ok()?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        Err(error) if error.to_string().contains("alert") => None,
        _ => Some(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// Who the server is does not matter here.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
