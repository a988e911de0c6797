//! A Gateway of its own with two backends that survive what the mesh has to: Bookinfo's services are single pods, and a
//! request that their loss fails would say nothing about the mesh.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use kube::api::{DynamicObject, ListParams};
use meshwright_api::labels;
use serde_json::json;

use super::disruption::is_rolled_out;
use super::{DEADLINE, Env, apply_yaml, eventually, file, get, rolled_out};

/// That each proxy asks for, unless it is for upgrades.
const CPU: &str = "130m";
/// Name of the Gateway, its route and its GatewayParameters.
const EDGE: &str = "edge";

/// A namespace with the Gateway `edge`, its route, and the Services `a` and `b`; where it was asked for, `streams` too.
#[derive(Debug, Clone)]
pub struct Backend {
    pub namespace: &'static str,
    pub address: SocketAddr,
}

impl Backend {
    /// What every request asks for.
    pub const PATH: &'static str = "/details/0";
    /// The Gateway.
    pub const GATEWAY: &'static str = EDGE;
    /// Deployment and Service for streams, and Bookinfo's service; its pods are never in the mesh, whatever their namespace says.
    pub const STREAMS: &'static str = "streams";
    /// Service of the Gateway.
    pub const SERVICE: &'static str = "edge-meshwright";
    /// Deployments, HPAs and pods of the Gateway, of whatever revision.
    pub const PROXIES: &'static str =
        "meshwright.io/component=gateway,gateway.networking.k8s.io/gateway-name=edge";

    /// Installs it with the image of `target/dist` and waits until it answers.
    ///
    /// # Errors
    /// Names what did not become ready.
    pub async fn installed(env: &Env, namespace: &'static str) -> Result<Self> {
        Self::installed_behind(env, namespace, &Self::gateway(3), CPU).await
    }

    /// As [`Self::installed`], behind three proxies that no load scales, so that two revisions of them fit even beside a drained node.
    ///
    /// # Errors
    /// Names what did not become ready.
    pub async fn installed_for_upgrades(env: &Env, namespace: &'static str) -> Result<Self> {
        let cpu = "100m";
        Self::installed_behind(env, namespace, &gateway("minReplicas: 3, maxReplicas: 3", cpu), cpu).await
    }

    async fn installed_behind(env: &Env, namespace: &'static str, gateway: &str, cpu: &str) -> Result<Self> {
        let image = image()?;
        env.not_going(namespace).await?;
        apply_yaml(&env.client, &service(namespace, "a", "details", "", &image), namespace).await?;
        apply_yaml(&env.client, &service(namespace, "b", "details", "", &image), namespace).await?;
        apply_yaml(&env.client, gateway, namespace).await?;
        apply_yaml(&env.client, &Self::route(namespace, "a"), namespace).await?;
        for name in ["a", "b"] {
            rolled_out(env, namespace, name).await?;
        }
        let address = env.address(namespace, EDGE, 80).await?;
        let backend = Self { namespace, address };
        backend.answers().await?;
        backend.proxies_ask_for(env, cpu).await?;
        backend.proxies_rolled_out(env).await?;
        Ok(backend)
    }

    /// Waits until the operator has heard of it: proxies of an earlier test may have had another size, and are rolled out by then.
    async fn proxies_ask_for(&self, env: &Env, cpu: &str) -> Result<()> {
        let asked = "/spec/template/spec/containers/0/resources/requests/cpu";
        eventually(&format!("proxies in {} of {cpu}", self.namespace), DEADLINE, || async {
            let proxies = self.proxies(env).await.map_err(|e| format!("{e:#}"))?;
            let now: Vec<_> = proxies.iter().map(|d| d.data.pointer(asked)).collect();
            if now.iter().all(|now| *now == Some(&json!(cpu))) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await
    }

    /// Adds what [`super::Streams`] are opened to.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn install_streams(&self, env: &Env) -> Result<()> {
        let (namespace, name) = (self.namespace, Self::STREAMS);
        let outside = format!(", {}: {}", labels::MESH, labels::MESH_DISABLED);
        apply_yaml(&env.client, &service(namespace, name, name, &outside, &image()?), namespace).await?;
        apply_yaml(&env.client, &streams_route(&self.streams_host()), namespace).await?;
        rolled_out(env, namespace, name).await
    }

    /// The host that the route is for.
    pub fn host(&self) -> String {
        format!("{}.example", self.namespace)
    }

    /// The host of [`Self::install_streams`].
    pub fn streams_host(&self) -> String {
        format!("{}.{}.example", Self::STREAMS, self.namespace)
    }

    /// The Deployments of the Gateway's proxies: one for each revision that has any.
    ///
    /// # Errors
    /// When there is none.
    pub async fn proxies(&self, env: &Env) -> Result<Vec<DynamicObject>> {
        let deployments = env.api("apps/v1", "Deployment", "deployments", self.namespace);
        let all = deployments.list(&ListParams::default().labels(Self::PROXIES)).await?;
        let proxies: Vec<_> =
            all.items.into_iter().filter(|d| d.data["spec"]["replicas"] != json!(0)).collect();
        ensure!(!proxies.is_empty(), "no Deployment {} in {}", Self::PROXIES, self.namespace);
        Ok(proxies)
    }

    /// Waits until every proxy is of the newest template, and available.
    ///
    /// # Errors
    /// After the deadline, with the status seen last.
    pub async fn proxies_rolled_out(&self, env: &Env) -> Result<()> {
        eventually(&format!("the rollout of the proxies in {}", self.namespace), DEADLINE * 2, || async {
            let proxies = self.proxies(env).await.map_err(|e| format!("{e:#}"))?;
            proxies.iter().try_for_each(is_rolled_out)
        })
        .await
    }

    /// Waits for a 200.
    ///
    /// # Errors
    /// After the deadline, with the last answer.
    pub async fn answers(&self) -> Result<()> {
        let host = self.host();
        eventually(&format!("200 from {host}"), DEADLINE, || async {
            let answer = get(self.address, &host, Self::PATH).await.map_err(|e| format!("{e:#}"))?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await
    }

    /// The Gateway with an autoscaler of at least `fewest` proxies. They ask for so much that our load alone does not scale them:
    /// three use about 210m together.
    pub fn gateway(fewest: u8) -> String {
        gateway(&format!("minReplicas: {fewest}, maxReplicas: 5"), CPU)
    }

    /// Every request for this namespace's host to this Service, `a` or `b`.
    pub fn route(namespace: &str, to: &str) -> String {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {EDGE} }}
spec:
  parentRefs: [ {{ name: {EDGE} }} ]
  hostnames: [ {namespace}.example ]
  rules: [ {{ backendRefs: [ {{ name: {to}, port: 9080 }} ] }} ]
"
        )
    }
}

fn gateway(autoscaling: &str, cpu: &str) -> String {
    format!(
        "apiVersion: meshwright.io/v1alpha1
kind: GatewayParameters
metadata: {{ name: {EDGE} }}
spec:
  autoscaling: {{ {autoscaling} }}
  resources: {{ requests: {{ cpu: {cpu}, memory: 64Mi }} }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: {EDGE} }}
spec:
  gatewayClassName: meshwright
  infrastructure: {{ parametersRef: {{ group: meshwright.io, kind: GatewayParameters, name: {EDGE} }} }}
  listeners: [ {{ name: http, port: 80, protocol: HTTP }} ]
"
    )
}

fn streams_route(host: &str) -> String {
    let name = Backend::STREAMS;
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: {name} }}
spec:
  parentRefs: [ {{ name: {EDGE} }} ]
  hostnames: [ {host} ]
  rules:
  - matches: [ {{ path: {{ value: /streams }} }} ]
    backendRefs: [ {{ name: {name}, port: 9080 }} ]
  - matches: [ {{ path: {{ value: /bookinfo.Streams }} }} ]
    backendRefs: [ {{ name: {name}, port: 9081 }} ]
"
    )
}

/// Three pods of one of Bookinfo's services with these labels too, spread, of which an eviction takes one at a time.
fn service(namespace: &str, name: &str, what: &str, labels: &str, image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{ name: {namespace}, labels: {{ pod-security.kubernetes.io/enforce: restricted }} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  selector: {{ app: {name} }}
  ports:
  - {{ name: http, port: 9080 }}
  - {{ name: grpc, port: 9081, targetPort: 9080, appProtocol: kubernetes.io/h2c }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{ name: {name} }}
spec: {{ maxUnavailable: 1, selector: {{ matchLabels: {{ app: {name} }} }} }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: 3
  selector: {{ matchLabels: {{ app: {name} }} }}
  template:
    metadata: {{ labels: {{ app: {name}{labels} }} }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      securityContext: {{ runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{ type: RuntimeDefault }} }}
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: ScheduleAnyway
        labelSelector: {{ matchLabels: {{ app: {name} }} }}
      containers:
      - name: {what}
        image: {image}
        args: [{what}]
        ports: [ {{ containerPort: 9080 }} ]
        readinessProbe: {{ httpGet: {{ path: /health, port: 9080 }}, periodSeconds: 2 }}
        resources: {{ requests: {{ cpu: 5m, memory: 16Mi }}, limits: {{ memory: 64Mi }} }}
        securityContext:
          {{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{ drop: [ALL] }} }}
"
    )
}

/// Of Bookinfo, as `target/dist` has it.
pub(super) fn image() -> Result<String> {
    image_in(&file("target/dist/bookinfo.yaml")?).context("an image in target/dist/bookinfo.yaml")
}

fn image_in(manifests: &str) -> Option<String> {
    manifests
        .lines()
        .find_map(|line| line.trim().strip_prefix("image: "))
        .map(|image| image.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::objects_in;

    #[test]
    fn the_manifests_are_objects() {
        let image = image_in("  containers:\n    - name: x\n      image: r.example/b@sha256:0\n").unwrap();
        assert_eq!(image, "r.example/b@sha256:0");
        let objects =
            objects_in(&service("n", "a", "details", ", meshwright.io/mesh: disabled", &image)).unwrap();
        assert_eq!(objects.len(), 4);
        let template = &objects[3].data["spec"]["template"]["metadata"]["labels"];
        assert_eq!(*template, json!({"app": "a", "meshwright.io/mesh": "disabled"}));
        assert_eq!(objects_in(&streams_route("streams.n.example")).unwrap().len(), 1);
        assert_eq!(objects_in(&Backend::gateway(3)).unwrap().len(), 2);
        assert_eq!(objects_in(&Backend::route("n", "b")).unwrap().len(), 1);
    }
}
