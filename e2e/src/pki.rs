//! Certificates of the cluster, made anew at every `up`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::kubeconfig;
use crate::layout::Layout;

/// A certificate and its key, PEM.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Pair {
    /// Writes `<name>.crt` and `<name>.key`.
    fn write(&self, dir: &Path, name: &str) -> Result<()> {
        write_private(&dir.join(format!("{name}.crt")), self.certificate.as_bytes())?;
        write_private(&dir.join(format!("{name}.key")), self.key.as_bytes())
    }
}

struct Authority {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let key = KeyPair::generate().context("making a key")?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params.self_signed(&key).with_context(|| format!("signing the CA {name}"))?;
        let pair = Pair { certificate: certificate.pem(), key: key.serialize_pem() };
        Ok(Self { pair, issuer: Issuer::new(params, key) })
    }

    fn sign(&self, user: &str, group: &str, names: Vec<String>, usage: Usage) -> Result<Pair> {
        let key = KeyPair::generate().context("making a key")?;
        let mut params = CertificateParams::new(names).with_context(|| format!("names of {user}"))?;
        params.distinguished_name.push(DnType::CommonName, user);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("signing {user}"))?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn client(&self, user: &str, group: &str) -> Result<Pair> {
        self.sign(user, group, Vec::new(), Usage::ClientAuth)
    }
}

/// Makes every certificate, key and kubeconfig.
pub fn make(layout: &Layout) -> Result<()> {
    let dir = layout.pki();
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let ca = Authority::new("meshwright-e2e")?;
    ca.pair.write(&dir, "ca")?;

    let mut names: Vec<String> = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned)
    .to_vec();
    names.extend([layout.host_ip().to_string(), layout.service_ip(1).to_string(), "127.0.0.1".into()]);
    ca.sign("kube-apiserver", "", names, Usage::ServerAuth)?.write(&dir, "apiserver")?;
    ca.client("kube-apiserver-kubelet-client", "system:masters")?.write(&dir, "apiserver-kubelet-client")?;

    let front_proxy = Authority::new("meshwright-e2e-front-proxy")?;
    front_proxy.pair.write(&dir, "front-proxy-ca")?;
    front_proxy.client("front-proxy-client", "")?.write(&dir, "front-proxy-client")?;

    let accounts = KeyPair::generate().context("making the service accounts' key")?;
    write_private(&dir.join("sa.key"), accounts.serialize_pem().as_bytes())?;
    write_private(&dir.join("sa.pub"), accounts.public_key_pem().as_bytes())?;

    let config = |path: PathBuf, user: &str, group: &str| {
        kubeconfig::write(&path, layout, &ca.pair, &ca.client(user, group)?)
    };
    config(dir.join("controller-manager.kubeconfig"), "system:kube-controller-manager", "")?;
    config(dir.join("scheduler.kubeconfig"), "system:kube-scheduler", "")?;
    // A name of its own, so that the audit log tells its writes from those of users.
    config(dir.join("lb.kubeconfig"), "meshwright-e2e-lb", "system:masters")?;
    config(dir.join("admin.kubeconfig"), "meshwright-e2e-admin", "system:masters")?;

    for node in layout.nodes() {
        let dir = node.data.join("pki");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        write_private(&dir.join("ca.crt"), ca.pair.certificate.as_bytes())?;
        let user = format!("system:node:{}", node.name);
        ca.sign(&user, "system:nodes", vec![node.name.clone(), node.ip.to_string()], Usage::ServerAuth)?
            .write(&dir, "kubelet")?;
        config(dir.join("kubelet.kubeconfig"), &user, "system:nodes")?;
        config(dir.join("kube-proxy.kubeconfig"), "system:kube-proxy", "")?;
    }
    Ok(())
}

/// Writes a file that only its owner can read, at once.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(bytes)?;
        fs::rename(&partial, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}
