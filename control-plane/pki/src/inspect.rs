//! Reading certificates.

use jiff::Timestamp;
use rand::Rng;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::{Error, SpiffeId};

/// From when until when a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// NotBefore.
    pub from: Timestamp,
    /// NotAfter.
    pub until: Timestamp,
}

pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Error> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Error::Certificate("bytes after its end".to_owned())),
        Err(e) => Err(Error::Certificate(e.to_string())),
    }
}

pub(crate) fn is_ca(certificate: &X509Certificate<'_>) -> Result<bool, Error> {
    let constraints = certificate.basic_constraints().map_err(|e| Error::Certificate(e.to_string()))?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca))
}

/// The identity in a peer's certificate: its one and only URI name. A verifier must have checked the chain before.
pub fn peer_identity(der: &[u8]) -> Result<SpiffeId, Error> {
    let certificate = parse(der)?;
    if is_ca(&certificate)? {
        return Err(Error::Certificate("a CA has no identity of its own".to_owned()));
    }
    let names = certificate.subject_alternative_name().map_err(|e| Error::Certificate(e.to_string()))?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse(),
        (None, _) => Err(Error::Certificate("no URI name".to_owned())),
        // Two readers could pick two different ones (CVE-2022-40716).
        (Some(_), Some(_)) => Err(Error::Certificate("more than one URI name".to_owned())),
    }
}

/// When the certificate is valid.
pub fn validity(der: &[u8]) -> Result<Validity, Error> {
    let certificate = parse(der)?;
    let time = |seconds| Timestamp::from_second(seconds).map_err(|e| Error::Certificate(e.to_string()));
    Ok(Validity {
        from: time(certificate.validity().not_before.timestamp())?,
        until: time(certificate.validity().not_after.timestamp())?,
    })
}

/// When to renew: half of the lifetime, ten per cent earlier or later, so that a fleet does not come at once.
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, rng: &mut impl Rng) -> Timestamp {
    let life = not_after.as_second().saturating_sub(not_before.as_second()).max(0);
    // Whole seconds of at most a few decades: exact in f64.
    let delay = life as f64 * 0.5 * rng.random_range(0.9..=1.1);
    Timestamp::from_second(not_before.as_second() + delay as i64).unwrap_or(not_after)
}

/// SHA-256 of the certificate in lower-case hex.
pub fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All certificates in a PEM file; an error if there is none.
pub fn certs_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|e| Error::Certificate(e.to_string()))?;
    if all.is_empty() {
        return Err(Error::Certificate("no certificate in the PEM text".to_owned()));
    }
    for der in &all {
        parse(der)?;
    }
    Ok(all)
}

/// The certificates as PEM.
pub fn certs_to_pem(certs: &[CertificateDer<'_>]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let mut pem = String::new();
    for der in certs {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = BASE64_STANDARD.encode(der);
        for line in text.as_bytes().chunks(64) {
            pem.extend(line.iter().map(|byte| char::from(*byte)));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}
