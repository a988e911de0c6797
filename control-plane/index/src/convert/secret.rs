//! Secret to server certificate.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as api;
use meshwright_core::model::{PrivateKey, SecretState, TlsCertificate};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

pub(crate) fn secret(object: api::Secret) -> SecretState {
    match certificate(object) {
        Ok(certificate) => SecretState::Ok(certificate),
        Err(why) => SecretState::Malformed(why),
    }
}

fn certificate(object: api::Secret) -> Result<TlsCertificate, String> {
    let kind = object.type_.unwrap_or_default();
    if kind != "kubernetes.io/tls" {
        return Err(format!("type is {kind:?}, not kubernetes.io/tls"));
    }
    let mut data = object.data.unwrap_or_default();
    let mut take = |field: &str| {
        data.remove(field).filter(|bytes| !bytes.0.is_empty()).ok_or_else(|| format!("{field} is missing"))
    };
    let (chain, key) = (take("tls.crt")?.0, take("tls.key")?.0);
    check(&chain, &key)?;
    Ok(TlsCertificate { certificate_chain: Arc::from(chain), private_key: PrivateKey(Arc::from(key)) })
}

/// Envoy would refuse the whole listener for what is wrong here, so it is found out before.
fn check(chain: &[u8], key: &[u8]) -> Result<(), String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let certificates = certificates.map_err(|e| format!("tls.crt is not PEM: {e}"))?;
    if certificates.is_empty() {
        return Err("tls.crt contains no PEM certificate".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key contains no PEM private key".to_owned())?;
    let key = any_supported_type(&key).map_err(|_| "tls.key is of an unsupported kind".to_owned())?;
    match CertifiedKey::new(certificates, key).keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err("tls.crt and tls.key do not belong together".to_owned())
        }
        Err(e) => Err(format!("tls.crt is not a certificate: {e}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use meshwright_pki::{certs_to_pem, new_root};

    fn pair() -> (String, String) {
        let root = new_root("test", jiff::Timestamp::now(), std::time::Duration::from_secs(3600)).unwrap();
        (certs_to_pem(&[root.cert().clone()]), root.key().to_pem().unwrap().to_string())
    }

    fn state(kind: &str, certificate: &str, key: &str) -> SecretState {
        let data = [("tls.crt", certificate), ("tls.key", key)];
        secret(api::Secret {
            type_: Some(kind.to_owned()),
            data: Some(data.map(|(k, v)| (k.to_owned(), ByteString(v.as_bytes().to_vec()))).into()),
            ..api::Secret::default()
        })
    }

    #[test]
    fn only_a_matching_pair_is_a_certificate() {
        let (certificate, key) = pair();
        let (_, other) = pair();
        assert!(matches!(state("kubernetes.io/tls", &certificate, &key), SecretState::Ok(_)));
        for (kind, certificate, key, word) in [
            ("Opaque", certificate.as_str(), key.as_str(), "type"),
            ("kubernetes.io/tls", "Hello", &key, "tls.crt"),
            ("kubernetes.io/tls", &certificate, "Hello", "tls.key"),
            ("kubernetes.io/tls", &certificate, &other, "belong together"),
            ("kubernetes.io/tls", &certificate, "", "missing"),
        ] {
            let SecretState::Malformed(why) = state(kind, certificate, key) else { panic!("{word}") };
            assert!(why.contains(word), "{why}");
        }
    }
}
