//! Private keys that leave no copy behind and do not show themselves.

use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::{Zeroize, Zeroizing};

use crate::Error;

/// A private key, PKCS#8. Wiped on drop; `Debug` shows nothing of it.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<Vec<u8>>);

/// A certificate with its key.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Leaf first, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKey,
}

impl PrivateKey {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, Error> {
        let pair = KeyPair::generate().map_err(|source| Error::Sign { what: "new key", source })?;
        Ok(Self::take(pair))
    }

    /// Reads PKCS#8 in PEM.
    pub fn from_pem(pem: &str) -> Result<Self, Error> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| Error::Key(e.to_string()))?;
        let key = Self(Zeroizing::new(der.secret_pkcs8_der().to_vec()));
        key.pair().map(drop)?;
        Ok(key)
    }

    /// Writes PKCS#8 in PEM.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, Error> {
        let mut pair = self.pair()?;
        let pem = Zeroizing::new(pair.serialize_pem());
        pair.zeroize();
        Ok(pem)
    }

    /// For TLS.
    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.to_vec()).into()
    }

    pub(crate) fn pair(&self) -> Result<KeyPair, Error> {
        KeyPair::try_from(self.0.as_slice()).map_err(|e| Error::Key(e.to_string()))
    }

    fn take(mut pair: KeyPair) -> Self {
        let key = Self(Zeroizing::new(pair.serialized_der().to_vec()));
        pair.zeroize();
        key
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
