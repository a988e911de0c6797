use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls_pki_types::ServerName;

use super::{tls::*, *};

const DAY: Duration = Duration::from_secs(86400);

fn now() -> Timestamp {
    Timestamp::now()
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::workload("cluster.local", "shop", account).unwrap()
}

fn authorities(at: Timestamp) -> (Authority, Authority) {
    let root = new_root("cluster.local", at, DAY * 3650).unwrap();
    let issuing = sign_issuing_ca(&root, "default-1a2b3c4d", at, DAY * 30).unwrap();
    (root, issuing)
}

fn identity(issuing: &Authority, account: &str) -> Identity {
    let (key, csr) = new_csr().unwrap();
    let leaf = sign_leaf(issuing, &csr, &id(account), &[], now(), DAY).unwrap();
    Identity { chain: vec![leaf, issuing.cert().clone()], key }
}

#[test]
fn spiffe_ids_are_strict() {
    let good: SpiffeId = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
    assert_eq!((good.trust_domain(), good.service_account()), ("cluster.local", Some(("shop", "cart"))));
    for bad in [
        "",
        "spiffe://",
        "spiffe://td",
        "spiffe:///ns/a/sa/b",
        "SPIFFE://td/a",
        "spiffe://TD/a",
        "spiffe://td/",
        "spiffe://td//a",
        "spiffe://td/a/",
        "spiffe://td/../a",
        "spiffe://td/a\0",
        "spiffe://td/%41",
        "spiffe://td:8/a",
        "spiffe://u@td/a",
        "spiffe://td/a?b",
        "spiffe://td/a#b",
        "http://td/a",
        "spiffe://td/ä",
    ] {
        assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
    }
    assert!(SpiffeId::workload("td", "a/sa/admin", "x").is_err());
    assert!(SpiffeId::workload("td/x", "a", "x").is_err());
    let other: SpiffeId = "spiffe://td/ns/a/sa/b/c".parse().unwrap();
    assert_eq!(other.service_account(), None);
}

#[test]
fn an_agent_of_a_node_is_no_service_account_and_the_reverse() {
    let agent: SpiffeId = "spiffe://td/ns/mesh/sa/rev-node/node/worker-1.example".parse().unwrap();
    assert_eq!(agent.node_agent(), Some(("mesh", "rev-node", "worker-1.example")));
    assert_eq!(agent.service_account(), None);
    for other in [
        "spiffe://td/ns/mesh/sa/rev-node",
        "spiffe://td/ns/mesh/sa/rev-node/node",
        "spiffe://td/ns/mesh/sa/rev-node/pod/worker-1",
        "spiffe://td/ns/mesh/sa/rev-node/node/worker-1/x",
        "spiffe://td/node/worker-1/ns/mesh/sa/rev-node",
    ] {
        assert_eq!(other.parse::<SpiffeId>().unwrap().node_agent(), None, "{other}");
    }
}

#[test]
fn lifetimes_are_backdated_as_documented() {
    let at: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
    let (root, issuing) = authorities(at);
    let (_, csr) = new_csr().unwrap();
    let leaf = sign_leaf(&issuing, &csr, &id("cart"), &[], at, DAY).unwrap();
    let from = |der: &[u8]| at.as_second() - validity(der).unwrap().from.as_second();
    assert_eq!((from(root.cert()), from(issuing.cert()), from(&leaf)), (3600, 120, 120));
    assert_eq!(validity(&leaf).unwrap().until.as_second(), at.as_second() + 86400);
}

#[test]
fn an_expired_issuer_signs_nothing() {
    let at = now();
    let (_, issuing) = authorities(at);
    let (_, csr) = new_csr().unwrap();
    let later = at + jiff::SignedDuration::from_hours(24 * 31);
    let error = sign_leaf(&issuing, &csr, &id("cart"), &[], later, DAY).unwrap_err();
    assert!(matches!(error, Error::IssuerExpired { .. }), "{error}");
}

#[test]
fn requests_with_weak_keys_or_false_signatures_are_refused() {
    let (_, issuing) = authorities(now());
    let sign = |csr: &[u8]| sign_leaf(&issuing, csr, &id("cart"), &[], now(), DAY);
    for (algorithm, ok) in [
        (&rcgen::PKCS_ECDSA_P256_SHA256, true),
        (&rcgen::PKCS_ECDSA_P384_SHA384, true),
        (&rcgen::PKCS_RSA_SHA256, true),
        (&rcgen::PKCS_ED25519, false),
        (&rcgen::PKCS_ECDSA_P521_SHA512, false),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(sign(csr.der()).is_ok(), ok, "{algorithm:?}");
    }
    let (_, mut csr) = new_csr().unwrap();
    assert!(sign(&[&csr[..], b"x"].concat()).is_err());
    *csr.last_mut().unwrap() ^= 1;
    assert!(sign(&csr).is_err());
    assert!(sign(b"").is_err());
}

#[test]
fn a_certificate_with_two_uris_or_none_or_a_ca_is_nobody() {
    let key = KeyPair::generate().unwrap();
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let (one, two) = (uri("spiffe://td/ns/a/sa/b"), uri("spiffe://td/ns/a/sa/c"));
    for (names, ok) in [(vec![], false), (vec![one.clone()], true), (vec![one, two], false)] {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        assert_eq!(peer_identity(params.self_signed(&key).unwrap().der()).is_ok(), ok);
    }
    assert!(peer_identity(authorities(now()).1.cert()).is_err());
}

#[test]
fn keys_and_certificates_survive_pem_and_keys_do_not_show() {
    let (root, issuing) = authorities(now());
    let pem = certs_to_pem(&[issuing.cert().clone(), root.cert().clone()]);
    assert_eq!(certs_from_pem(&pem).unwrap(), [issuing.cert().clone(), root.cert().clone()]);
    let key = issuing.key().to_pem().unwrap();
    assert!(Authority::from_pem(&pem, &key).is_ok());
    assert!(Authority::from_pem(&pem, &root.key().to_pem().unwrap()).is_err());
    assert_eq!(format!("{:?}", issuing.key()), "PrivateKey(..)");
    assert_eq!(fingerprint(root.cert()).len(), 64);
}

async fn handshake(server: rustls::ServerConfig, client: rustls::ClientConfig) -> Result<bool, String> {
    let (left, right) = tokio::io::duplex(1 << 16);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("any.name").unwrap();
    let (accepted, connected) = tokio::join!(acceptor.accept(left), connector.connect(name, right));
    connected.map_err(|e| format!("client: {e}"))?;
    let accepted = accepted.map_err(|e| format!("server: {e}"))?;
    Ok(accepted.get_ref().1.peer_certificates().is_some())
}

#[tokio::test]
async fn handshakes_check_both_sides_and_follow_rotation() {
    let (root, issuing) = authorities(now());
    let (other_root, other_issuing) = authorities(now());
    let roots = DynamicRoots::new(&[root.cert().clone()]).unwrap();
    let (control, gateway) = (DynamicIdentity::default(), DynamicIdentity::default());
    control.set(&identity(&issuing, "control")).unwrap();
    let server = |auth| server_config(control.clone(), roots.clone(), auth).unwrap();
    let client = |expect: &str| client_config(gateway.clone(), roots.clone(), id(expect)).unwrap();

    assert_eq!(handshake(server(ClientAuth::Optional), client("control")).await, Ok(false));
    assert!(handshake(server(ClientAuth::Required), client("control")).await.is_err());
    gateway.set(&identity(&issuing, "gateway")).unwrap();
    assert_eq!(handshake(server(ClientAuth::Required), client("control")).await, Ok(true));
    let wrong = handshake(server(ClientAuth::Optional), client("somebody")).await.unwrap_err();
    assert!(wrong.contains("not spiffe://cluster.local/ns/shop/sa/somebody"), "{wrong}");

    // A leaf from another root is refused until that root is trusted.
    control.set(&identity(&other_issuing, "control")).unwrap();
    assert!(handshake(server(ClientAuth::Optional), client("control")).await.is_err());
    roots.set(&[root.cert().clone(), other_root.cert().clone()]).unwrap();
    assert_eq!(handshake(server(ClientAuth::Required), client("control")).await, Ok(true));
    assert!(roots.set(&[issuing.cert().clone()]).is_err(), "an intermediate is no anchor");
    assert!(roots.set(&[]).is_err(), "an empty bundle trusts nobody");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn validity_nests(root_ttl in 3700u64..1_000_000, ca_ttl in 1u64..2_000_000, ttl in 1u64..3_000_000, later in 0i64..3600) {
        let at: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let root = new_root("td", at, Duration::from_secs(root_ttl)).unwrap();
        let issuing = sign_issuing_ca(&root, "r", at, Duration::from_secs(ca_ttl)).unwrap();
        let (_, csr) = new_csr().unwrap();
        let then = at + jiff::SignedDuration::from_secs(later);
        let [root, ca] = [root.cert(), issuing.cert()].map(|der| validity(der).unwrap());
        prop_assert!(ca.until <= root.until && root.from <= ca.from);
        match sign_leaf(&issuing, &csr, &id("x"), &[], then, Duration::from_secs(ttl)) {
            Ok(leaf) => {
                let leaf = validity(&leaf).unwrap();
                prop_assert!(leaf.until <= ca.until && leaf.from < leaf.until);
            }
            Err(_) => prop_assert!(then >= ca.until),
        }
    }

    #[test]
    fn the_request_decides_nothing_but_the_key(uris in prop::collection::vec("[a-z]{1,8}", 0..4), ca: bool) {
        let (_, issuing) = authorities(now());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        for account in &uris {
            let uri = format!("spiffe://cluster.local/ns/kube-system/sa/{account}");
            params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        }
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let csr = params.serialize_request(&key).unwrap();
        let dns = ["good.shop.svc".to_owned()];
        let leaf = sign_leaf(&issuing, csr.der(), &id("cart"), &dns, now(), DAY).unwrap();
        prop_assert_eq!(peer_identity(&leaf).unwrap(), id("cart"));
        prop_assert!(!String::from_utf8_lossy(&leaf).contains("evil.example"));
    }

    #[test]
    fn renewal_is_at_half_life_with_jitter(life in 600i64..10_000_000, seed: u64) {
        use rand::SeedableRng;
        let from: Timestamp = "2026-11-20T12:00:00Z".parse().unwrap();
        let until = from + jiff::SignedDuration::from_secs(life);
        let at = renew_at(from, until, &mut rand::rngs::StdRng::seed_from_u64(seed));
        let share = (at.as_second() - from.as_second()) as f64 / life as f64;
        prop_assert!((0.448..=0.551).contains(&share), "{}", share);
    }
}
