//! Who is asked for what. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bytes::Bytes;
use http::{HeaderValue, Request, header, uri::PathAndQuery};
use http_body_util::Empty;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meshwright_api::{Probe, gateway::Gateway, labels, names};
use meshwright_core::config::PROBE_HOST;

use crate::{inspection::replica::address, pods::is_ready};

/// So that users can tell the operator's requests in their logs.
const AGENT: HeaderValue = HeaderValue::from_static("meshwright-probe");

/// A gateway pod, with what to ask it for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Its revision.
    pub revision: String,
    /// Namespace of the pod, and of its Gateway.
    pub namespace: String,
    /// Name of the Gateway.
    pub gateway: String,
    /// Name of the pod.
    pub pod: String,
    /// Address of the pod.
    pub address: IpAddr,
    /// In turn.
    pub asks: BTreeSet<Ask>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask {
    port: u16,
    host: String,
    path: String,
}

/// A probe that is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("probe {host}:{port}{path} cannot be sent; mend its host, port or path")]
pub struct InvalidProbe {
    host: String,
    port: i32,
    path: String,
}

impl Ask {
    /// A request to a plain HTTP listener.
    pub fn new(port: i32, host: &str, path: &str) -> Result<Self, InvalidProbe> {
        let invalid = || InvalidProbe { host: host.to_owned(), port, path: path.to_owned() };
        let number = u16::try_from(port).map_err(|_| invalid())?;
        // An URI leaves out what is behind a #.
        let is_sent = path.starts_with('/') && PathAndQuery::try_from(path).is_ok_and(|p| p.as_str() == path);
        if number == 0 || !is_sent || HeaderValue::from_str(host).is_err() {
            return Err(invalid());
        }
        Ok(Self { port: number, host: host.to_owned(), path: path.to_owned() })
    }

    /// The proxy answers it by itself.
    pub(super) fn is_builtin(&self) -> bool {
        self.host == PROBE_HOST
    }

    fn builtin(port: i32) -> Option<Self> {
        Self::new(port, PROBE_HOST, "/").ok()
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn request(&self) -> Result<Request<Empty<Bytes>>, http::Error> {
        Request::get(&self.path)
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, AGENT)
            .body(Empty::new())
    }
}

impl Target {
    pub(super) fn key(&self) -> (String, String, String) {
        (self.revision.clone(), self.namespace.clone(), self.pod.clone())
    }
}

/// Every ready gateway pod of a Gateway with plain HTTP listeners, of whichever revision, with the same requests for all pods of a
/// Gateway. `probes` are the user's, of which one that cannot be sent was refused before.
pub fn targets(pods: &[Pod], gateways: &[Gateway], probes: &[Probe]) -> BTreeSet<Target> {
    let mut asks = Asks::new();
    for gateway in gateways {
        let plain = gateway.spec.listeners.iter().filter(|listener| listener.protocol == "HTTP");
        let (namespace, name) = (gateway.namespace().unwrap_or_default(), gateway.name_any());
        let plain = plain.filter_map(|listener| Ask::builtin(listener.port)).collect();
        asks.insert((namespace, names::fit(&name)), (name, plain));
    }
    for probe in probes {
        // Of a Gateway that is not there no pod is either.
        let of_gateway = asks.get_mut(&(probe.namespace.clone(), names::fit(&probe.gateway)));
        if let (Some((_, asks)), Ok(ask)) = (of_gateway, Ask::new(probe.port, &probe.host, &probe.path)) {
            asks.insert(ask);
        }
    }
    pods.iter().filter_map(|pod| target(pod, &asks)).collect()
}

/// By namespace and label of a Gateway: its name, which may be longer, and what it is asked for.
type Asks = BTreeMap<(String, String), (String, BTreeSet<Ask>)>;

fn target(pod: &Pod, asks: &Asks) -> Option<Target> {
    let labels = pod.labels();
    let is_gateway = labels.get(labels::COMPONENT).is_some_and(|c| c == labels::COMPONENT_GATEWAY);
    // One that is ending is left out on both sides.
    if !is_gateway || !is_ready(pod) || pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let namespace = pod.namespace().unwrap_or_default();
    let label = labels.get(labels::GATEWAY_NAME)?.clone();
    let (gateway, asks) = asks.get(&(namespace.clone(), label)).filter(|(_, asks)| !asks.is_empty())?.clone();
    let revision = labels.get(labels::REVISION)?.clone();
    Some(Target { revision, namespace, gateway, pod: pod.name_any(), address: address(pod)?, asks })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(name: &str, listeners: &[(&str, i32)]) -> Gateway {
        let listener =
            |(protocol, port): &(&str, i32)| json!({"name": protocol, "protocol": protocol, "port": port});
        let listeners: Vec<_> = listeners.iter().map(listener).collect();
        let spec = json!({"gatewayClassName": "meshwright", "listeners": listeners});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn pod(name: &str, gateway: &str, ready: bool) -> Pod {
        let labels = json!({"meshwright.io/component": "gateway", "meshwright.io/revision": "mesh-1",
            "gateway.networking.k8s.io/gateway-name": gateway});
        let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" }});
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "labels": labels},
            "status": {"podIP": "10.0.0.7", "conditions": [condition]},
        }))
        .unwrap()
    }

    fn probe(gateway: &str, path: &str) -> Probe {
        serde_json::from_value(json!({"namespace": "shop", "gateway": gateway, "host": "shop.example.com",
            "path": path, "port": 8080}))
        .unwrap()
    }

    #[test]
    fn every_ready_pod_of_a_gateway_is_asked_the_same() {
        let gateways = [
            gateway("edge", &[("HTTP", 80), ("HTTPS", 443), ("HTTP", 8080)]),
            gateway("tls", &[("HTTPS", 443)]),
        ];
        let pods =
            [pod("a", "edge", true), pod("b", "edge", true), pod("c", "edge", false), pod("d", "tls", true)];
        let found = targets(
            &pods,
            &gateways,
            &[probe("edge", "/health"), probe("gone", "/"), probe("edge", "no path")],
        );
        let expected = BTreeSet::from([
            Ask::new(80, PROBE_HOST, "/").unwrap(),
            Ask::new(8080, PROBE_HOST, "/").unwrap(),
            Ask::new(8080, "shop.example.com", "/health").unwrap(),
        ]);
        let named: Vec<_> = found.iter().map(|t| (t.pod.as_str(), &t.asks)).collect();
        assert_eq!(named, [("a", &expected), ("b", &expected)]);
    }

    #[test]
    fn a_gateway_whose_name_is_no_label_is_asked_too() {
        let long = "shop.example";
        let found = targets(
            &[pod("a", &names::fit(long), true)],
            &[gateway(long, &[("HTTP", 80)])],
            &[probe(long, "/")],
        );
        let found: Vec<_> = found.iter().map(|t| (t.gateway.as_str(), t.asks.len())).collect();
        assert_eq!(found, [(long, 2)]);
    }

    #[test]
    fn what_cannot_be_sent_as_it_is_written_is_refused() {
        assert!(Ask::new(0, "a", "/").is_err());
        assert!(Ask::new(70_000, "a", "/").is_err());
        assert!(Ask::new(80, "a\nb", "/").is_err());
        assert!(Ask::new(80, "a", "b").is_err());
        assert!(Ask::new(80, "a", "/b#c").is_err());
        let request = Ask::new(80, "a:8080", "/b?c=d").unwrap().request().unwrap();
        assert_eq!((request.uri().path(), request.headers()["host"].as_bytes()), ("/b", &b"a:8080"[..]));
    }
}
