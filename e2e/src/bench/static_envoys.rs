//! Two Envoys as somebody would configure them by hand who wants mutual TLS between a client and a server: what the mesh is measured against.
//! The same binary as the mesh's, the same number of workers, and nothing in it that costs time and is not needed.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rcgen::{KeyUsagePurpose, SanType};
use serde_json::{Value, json};

/// Ports of the sender: HTTP to [`RECEIVER_HTTP`], HTTP to [`RECEIVER_TCP`], and anything to that.
pub const HTTP: u16 = 8080;
pub const LEAN: u16 = 8081;
pub const TCP: u16 = 8082;
/// Ports of the receiver: one that reads HTTP, and one that hands on what comes out of TLS.
const RECEIVER_HTTP: u16 = 8443;
const RECEIVER_TCP: u16 = 8444;
const TYPES: &str = "type.googleapis.com/envoy";
const IDS: [&str; 2] = ["spiffe://static.example/sender", "spiffe://static.example/receiver"];

/// Certificates of both.
pub struct Pair {
    roots: String,
    /// Certificate and key of the sender, then of the receiver.
    own: [(String, String); 2],
}

impl Pair {
    /// Signed by an authority of their own.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let signed = |id: &str| -> Result<(String, String)> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            Ok((params.signed_by(&key, &issuer)?.pem(), key.serialize_pem()))
        };
        let [sender, receiver] = IDS;
        Ok(Self { roots: issuer.pem(), own: [signed(sender)?, signed(receiver)?] })
    }

    /// Configuration of the Envoy beside the client.
    pub fn sender(&self, receiver: IpAddr) -> Value {
        let context = json!({
            "@type": format!("{TYPES}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
            "common_tls_context": self.tls(0),
        });
        let to = |name: &str, port: u16| cluster(name, SocketAddr::new(receiver, port), Some(&context));
        json!({
            "static_resources": {
                "listeners": [
                    listener(HTTP, http("http"), None),
                    listener(LEAN, http("tcp"), None),
                    listener(TCP, tcp("tcp"), None),
                ],
                "clusters": [to("http", RECEIVER_HTTP), to("tcp", RECEIVER_TCP)],
            },
        })
    }

    /// Configuration of the Envoy beside the server.
    pub fn receiver(&self, application: SocketAddr) -> Value {
        let context = json!({
            "@type": format!("{TYPES}.extensions.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": self.tls(1),
            "require_client_certificate": true,
        });
        json!({
            "static_resources": {
                "listeners": [
                    listener(RECEIVER_HTTP, http("application"), Some(&context)),
                    listener(RECEIVER_TCP, tcp("application"), Some(&context)),
                ],
                "clusters": [cluster("application", application, None)],
            },
        })
    }

    /// As who this one is, and whom it expects.
    fn tls(&self, who: usize) -> Value {
        let (certificate, key) = self.own.get(who).cloned().unwrap_or_default();
        let peer = IDS.get(1 - who).copied().unwrap_or_default();
        json!({
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{
                "certificate_chain": {"inline_string": certificate}, "private_key": {"inline_string": key},
            }],
            "validation_context": {
                "trusted_ca": {"inline_string": self.roots},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
            },
        })
    }
}

fn listener(port: u16, filter: Value, context: Option<&Value>) -> Value {
    json!({
        "name": port.to_string(),
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "filter_chains": [{"filters": [filter], "transport_socket": context.map(tls_socket)}],
    })
}

fn tls_socket(context: &Value) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

fn http(cluster: &str) -> Value {
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}});
    let router = format!("{TYPES}.extensions.filters.http.router.v3.Router");
    let config = json!({
        "@type": format!("{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "http",
        "generate_request_id": false,
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": router}}],
    });
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

fn tcp(cluster: &str) -> Value {
    let config = json!({
        "@type": format!("{TYPES}.extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "tcp", "cluster": cluster,
    });
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": config})
}

fn cluster(name: &str, to: SocketAddr, context: Option<&Value>) -> Value {
    let address = json!({"socket_address": {"address": to.ip().to_string(), "port_value": to.port()}});
    let options = json!({
        "@type": format!("{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions"),
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
        "transport_socket": context.map(tls_socket),
    })
}

/// A pod with this Envoy on this node, and the file that it reads.
///
/// # Errors
/// When the configuration is none.
pub fn pod(name: &str, node: &str, image: &str, config: &Value) -> Result<String> {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"envoy.json": serde_json::to_string(config).context("write a configuration")?},
    });
    let container = json!({
        "name": "envoy", "image": image,
        "command": ["/usr/local/bin/envoy"],
        "args": ["-c", "/etc/envoy/envoy.json", "--concurrency", "2", "--disable-hot-restart", "--log-level", "warning"],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/envoy"}],
        "readinessProbe": {"tcpSocket": {"port": if name == "sender" { TCP } else { RECEIVER_TCP }}, "periodSeconds": 2},
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"group": name}},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "automountServiceAccountToken": false, "enableServiceLinks": false, "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "config", "configMap": {"name": name}}],
        },
    });
    Ok(format!("{map}\n---\n{pod}\n"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::testing::objects_in;

    #[test]
    fn both_are_configurations_that_envoy_takes() {
        let pair = Pair::new().unwrap();
        let application = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 9080);
        let all = [("sender", pair.sender(application.ip())), ("receiver", pair.receiver(application))];
        for (name, config) in all {
            let objects = objects_in(&pod(name, "n1", "r.example/p@sha256:0", &config).unwrap()).unwrap();
            assert_eq!(objects.len(), 2);
            let Some(envoy) = std::env::var_os("ENVOY_BIN") else { continue };
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("envoy.json");
            std::fs::write(&file, config.to_string()).unwrap();
            let output = Command::new(envoy).args(["--mode", "validate", "-c"]).arg(&file).output().unwrap();
            assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
