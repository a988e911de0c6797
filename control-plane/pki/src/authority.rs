//! Roots, issuing CAs and the leaves they sign.

use std::time::Duration;

use jiff::Timestamp;
use rand::RngCore;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;

use crate::{Error, PrivateKey, SpiffeId, csr, inspect};

/// Clocks of nodes are behind by up to this much when a new leaf must work at once.
const LEAF_SKEW: Duration = Duration::from_secs(2 * 60);
/// A root is met by every machine, also by those nobody looked at.
const ROOT_SKEW: Duration = Duration::from_secs(60 * 60);

/// A certificate that signs others, with its key.
#[derive(Clone, Debug)]
pub struct Authority {
    cert: CertificateDer<'static>,
    key: PrivateKey,
}

impl Authority {
    /// Fails unless the certificate is a CA's and the key is its key.
    pub fn new(cert: CertificateDer<'static>, key: PrivateKey) -> Result<Self, Error> {
        let parsed = inspect::parse(&cert)?;
        if !inspect::is_ca(&parsed)? {
            return Err(Error::Certificate("not a CA".to_owned()));
        }
        if parsed.public_key().raw != key.pair()?.subject_public_key_info() {
            return Err(Error::Key("not the key of the certificate".to_owned()));
        }
        Ok(Self { cert, key })
    }

    /// Reads both from PEM; of several certificates the first is meant.
    pub fn from_pem(cert: &str, key: &str) -> Result<Self, Error> {
        let mut certs = inspect::certs_from_pem(cert)?;
        Self::new(certs.swap_remove(0), PrivateKey::from_pem(key)?)
    }

    /// The certificate.
    pub fn cert(&self) -> &CertificateDer<'static> {
        &self.cert
    }

    /// The key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, Error> {
        Issuer::from_ca_cert_der(&self.cert, self.key.pair()?).map_err(|e| Error::Certificate(e.to_string()))
    }

    // NotAfter for what this authority signs now: never beyond its own.
    fn clamp(&self, what: &'static str, now: Timestamp, ttl: Duration) -> Result<Timestamp, Error> {
        let own = inspect::validity(&self.cert)?;
        if now < own.from || now >= own.until {
            return Err(Error::IssuerExpired { what, from: own.from, until: own.until });
        }
        Ok(add(now, ttl).min(own.until))
    }
}

/// A self-signed root for a trust domain, with a new key.
pub fn new_root(trust_domain: &str, now: Timestamp, ttl: Duration) -> Result<Authority, Error> {
    let key = PrivateKey::generate()?;
    let mut params = ca_params(&format!("{trust_domain} root"), BasicConstraints::Unconstrained);
    set_validity(&mut params, now, ROOT_SKEW, add(now, ttl));
    let cert = params
        .self_signed(&key.pair()?)
        .map_err(|source| Error::Sign { what: "root", source })?
        .der()
        .clone();
    Ok(Authority { cert, key })
}

/// An issuing CA with a new key, for one revision. It can sign leaves, not further CAs.
pub fn sign_issuing_ca(
    root: &Authority,
    revision: &str,
    now: Timestamp,
    ttl: Duration,
) -> Result<Authority, Error> {
    const WHAT: &str = "issuing CA";
    let key = PrivateKey::generate()?;
    let mut params = ca_params(&format!("{revision} issuing CA"), BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, LEAF_SKEW, root.clamp(WHAT, now, ttl)?);
    let cert = params
        .signed_by(&key.pair()?, &root.issuer()?)
        .map_err(|source| Error::Sign { what: WHAT, source })?
        .der()
        .clone();
    Ok(Authority { cert, key })
}

/// A leaf for the authenticated caller. Of the request only the public key is used, after its owner proved to have
/// the private one; every name is decided here.
pub fn sign_leaf(
    issuing: &Authority,
    csr_der: &[u8],
    id: &SpiffeId,
    dns_names: &[String],
    now: Timestamp,
    ttl: Duration,
) -> Result<CertificateDer<'static>, Error> {
    const WHAT: &str = "leaf";
    let failed = |source| Error::Sign { what: WHAT, source };
    let public_key = csr::public_key(csr_der)?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial());
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names.push(SanType::URI(id.as_str().try_into().map_err(failed)?));
    for name in dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(failed)?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    set_validity(&mut params, now, LEAF_SKEW, issuing.clamp(WHAT, now, ttl)?);
    Ok(params.signed_by(&public_key, &issuing.issuer()?).map_err(failed)?.der().clone())
}

fn ca_params(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let serial = serial();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Two roots of one trust domain meet in one bundle during a rotation: tell them apart by name too.
    let tag: String = serial.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("{name} {tag}"));
    params.serial_number = Some(serial);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, skew: Duration, until: Timestamp) {
    let epoch = || rcgen::date_time_ymd(1970, 1, 1);
    let seconds = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default());
    params.not_before = epoch() + seconds(now).saturating_sub(skew);
    params.not_after = epoch() + seconds(until);
}

fn add(time: Timestamp, ttl: Duration) -> Timestamp {
    let ttl = jiff::SignedDuration::try_from(ttl).unwrap_or(jiff::SignedDuration::MAX);
    time.saturating_add(ttl).unwrap_or(Timestamp::MAX)
}

// Unique across replicas without talking to each other.
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes[0] = bytes[0] & 0x7f | 0x40; // positive and of constant length
    SerialNumber::from_slice(&bytes)
}
