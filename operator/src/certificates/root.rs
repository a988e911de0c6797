//! The root: created once, never overwritten. Whoever comes second reads what the first one wrote.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use meshwright_pki::{Authority, certs_to_pem, fingerprint, new_root, validity};

use super::Error;
use crate::{apply, context::Context, mesh_control_plane::build::shared};

/// Annotation on a MeshControlPlane with the fingerprint of a lost root: a new one may be made in its place.
pub const REPLACE_LOST: &str = "meshwright.io/replace-lost-root";

/// Type of our Secrets. Not kubernetes.io/tls: a listener could name such a Secret, and the key of a CA would be served
/// as its certificate.
const CA: &str = "meshwright.io/ca";

/// The root of a mesh.
#[derive(Debug, Clone)]
pub struct Root {
    /// Namespace and name of its Secret.
    pub secret: String,
    /// Certificate and key.
    pub authority: Authority,
    /// The certificate for those who verify.
    pub pem: String,
    /// SHA-256 of the certificate.
    pub fingerprint: String,
    /// End of its life.
    pub not_after: Timestamp,
}

/// Name of the Secret. A dot cannot be in a namespace's name, so no two meshes share one.
pub fn secret_name(mesh_namespace: &str, mesh: &str) -> String {
    format!("{mesh_namespace}.{mesh}.root")
}

/// Reads the root; none when there is no Secret.
pub async fn read(ctx: &Context, mesh_namespace: &str, mesh: &str) -> Result<Option<Root>, Error> {
    let name = secret_name(mesh_namespace, mesh);
    let described = format!("{}/{name}", ctx.settings.namespace);
    let secret = secrets(ctx).get_opt(&name).await;
    let secret = secret.map_err(apply::Error::request("read", format!("Secret {described}")))?;
    secret.map(|secret| parse(&described, &secret)).transpose()
}

/// Creates the root, or reads the one that somebody else created in between.
pub async fn create(
    ctx: &Context,
    namespace: &str,
    mesh: &str,
    domain: &str,
    ttl: Duration,
) -> Result<Root, Error> {
    let name = secret_name(namespace, mesh);
    let described = format!("{}/{name}", ctx.settings.namespace);
    let root = new_root(domain, ctx.now(), ttl)
        .map_err(|source| Error::Sign { what: "the root certificate".to_owned(), source })?;
    let meta = ObjectMeta {
        name: Some(name.clone()),
        namespace: Some(ctx.settings.namespace.clone()),
        labels: Some(shared::labels(mesh, namespace, &[])),
        ..ObjectMeta::default()
    };
    let secret = ca_secret(meta, Some(&root), &certs_to_pem(&[root.cert().clone()]))?;
    ctx.metrics.wrote("Secret", "create");
    match ctx.write(secrets(ctx).create(&PostParams::default(), &secret)).await {
        Ok(_) => parse(&described, &secret),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let read = read(ctx, namespace, mesh).await?;
            read.ok_or(Error::BrokenRoot { secret: described, source: None })
        }
        Err(error) => Err(apply::Error::request("create", format!("Secret {described}"))(error).into()),
    }
}

/// A Secret with a certificate, its key and the trust anchors; without a CA, one like it that holds nothing.
pub(super) fn ca_secret(meta: ObjectMeta, ca: Option<&Authority>, anchors: &str) -> Result<Secret, Error> {
    let key = ca.map(|ca| ca.key().to_pem()).transpose();
    let key = key.map_err(|source| Error::Sign { what: "a CA".to_owned(), source })?.unwrap_or_default();
    let cert = ca.map(|ca| certs_to_pem(&[ca.cert().clone()])).unwrap_or_default();
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    Ok(Secret {
        metadata: meta,
        type_: Some(CA.to_owned()),
        data: Some(BTreeMap::from([
            ("tls.crt".to_owned(), bytes(&cert)),
            ("tls.key".to_owned(), bytes(&key)),
            ("ca.crt".to_owned(), bytes(anchors)),
        ])),
        ..Secret::default()
    })
}

fn parse(described: &str, secret: &Secret) -> Result<Root, Error> {
    let broken = |source| Error::BrokenRoot { secret: described.to_owned(), source };
    let field = |name: &str| {
        let bytes =
            secret.data.as_ref().and_then(|d| d.get(name)).map(|b| b.0.as_slice()).unwrap_or_default();
        std::str::from_utf8(bytes).map_err(|_| broken(None))
    };
    let authority =
        Authority::from_pem(field("tls.crt")?, field("tls.key")?).map_err(|source| broken(Some(source)))?;
    let not_after = validity(authority.cert()).map_err(|source| broken(Some(source)))?.until;
    Ok(Root {
        secret: described.to_owned(),
        pem: certs_to_pem(&[authority.cert().clone()]),
        fingerprint: fingerprint(authority.cert()),
        authority,
        not_after,
    })
}

fn secrets(ctx: &Context) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &ctx.settings.namespace)
}
