//! Signing requests: what a workload makes, and the only thing a signer takes from one.

use rcgen::{CertificateParams, SubjectPublicKeyInfo};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer, public_key::PublicKey};

use crate::{Error, PrivateKey};

/// More than any honest request with an RSA-4096 key needs.
const MAX_CSR: usize = 8 * 1024;

const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";

/// A new key and a request for it. The request names nothing: the signer decides the names.
pub fn new_csr() -> Result<(PrivateKey, Vec<u8>), Error> {
    let key = PrivateKey::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params
        .serialize_request(&key.pair()?)
        .map_err(|source| Error::Sign { what: "certificate signing request", source })?;
    Ok((key, request.der().to_vec()))
}

/// The public key, after the requester proved to own the private one. Subject, names, extensions are not looked at.
pub(crate) fn public_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, Error> {
    let refuse = |why: &str| Error::Csr(why.to_owned());
    if csr_der.len() > MAX_CSR {
        return Err(refuse("too long"));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(csr_der).map_err(|e| Error::Csr(e.to_string()))?;
    if !rest.is_empty() {
        return Err(refuse("bytes after its end"));
    }
    let info = &request.certification_request_info.subject_pki;
    match info.parsed().map_err(|e| Error::Csr(e.to_string()))? {
        PublicKey::EC(_) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            let curve = curve.map(|oid| oid.to_id_string()).unwrap_or_default();
            if curve != P256 && curve != P384 {
                return Err(refuse("the key is on neither P-256 nor P-384"));
            }
        }
        PublicKey::RSA(rsa) if rsa.key_size() < 2048 => return Err(refuse("the RSA key is below 2048 bits")),
        PublicKey::RSA(_) => {}
        _ => return Err(refuse("the key is neither ECDSA nor RSA")),
    }
    request.verify_signature().map_err(|_| refuse("its signature is not by the key it names"))?;
    SubjectPublicKeyInfo::from_der(info.raw).map_err(|e| Error::Csr(e.to_string()))
}
