//! A Gateway of its own with two backends that survive what the mesh has to: Bookinfo's services are single pods, and a
//! request that their loss fails would say nothing about the mesh.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{DEADLINE, Env, apply_yaml, eventually, file, get, rolled_out};

/// Name of the Gateway, its route and its GatewayParameters.
const EDGE: &str = "edge";

/// A namespace with the Gateway `edge`, its route, and the Services `a` and `b`.
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
    /// Deployment, Service, HPA and PDB of the Gateway.
    pub const PROXIES: &'static str = "edge-meshwright";

    /// Installs it with the image of `target/dist` and waits until it answers.
    ///
    /// # Errors
    /// Names what did not become ready.
    pub async fn installed(env: &Env, namespace: &'static str) -> Result<Self> {
        let image =
            image(&file("target/dist/bookinfo.yaml")?).context("an image in target/dist/bookinfo.yaml")?;
        env.not_going(namespace).await?;
        apply_yaml(&env.client, &service(namespace, "a", &image), namespace).await?;
        apply_yaml(&env.client, &service(namespace, "b", &image), namespace).await?;
        apply_yaml(&env.client, &Self::gateway(3), namespace).await?;
        apply_yaml(&env.client, &Self::route(namespace, "a"), namespace).await?;
        for name in ["a", "b"] {
            rolled_out(env, namespace, name).await?;
        }
        let address = env.address(namespace, EDGE, 80).await?;
        let backend = Self { namespace, address };
        backend.answers().await?;
        rolled_out(env, namespace, Self::PROXIES).await?;
        Ok(backend)
    }

    /// The host that the route is for.
    pub fn host(&self) -> String {
        format!("{}.example", self.namespace)
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
        format!(
            "apiVersion: meshwright.io/v1alpha1
kind: GatewayParameters
metadata: {{ name: {EDGE} }}
spec:
  autoscaling: {{ minReplicas: {fewest}, maxReplicas: 5 }}
  resources: {{ requests: {{ cpu: 200m, memory: 64Mi }} }}
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

/// Three pods, spread, of which an eviction takes one at a time.
fn service(namespace: &str, name: &str, image: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{ name: {namespace}, labels: {{ pod-security.kubernetes.io/enforce: restricted }} }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec: {{ selector: {{ app: {name} }}, ports: [ {{ name: http, port: 9080 }} ] }}
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
    metadata: {{ labels: {{ app: {name} }} }}
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
      - name: details
        image: {image}
        args: [details]
        ports: [ {{ containerPort: 9080 }} ]
        readinessProbe: {{ httpGet: {{ path: /health, port: 9080 }}, periodSeconds: 2 }}
        resources: {{ requests: {{ cpu: 5m, memory: 16Mi }}, limits: {{ memory: 64Mi }} }}
        securityContext:
          {{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{ drop: [ALL] }} }}
"
    )
}

fn image(manifests: &str) -> Option<String> {
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
        let image = image("  containers:\n    - name: x\n      image: r.example/b@sha256:0\n").unwrap();
        assert_eq!(image, "r.example/b@sha256:0");
        assert_eq!(objects_in(&service("n", "a", &image)).unwrap().len(), 4);
        assert_eq!(objects_in(&Backend::gateway(3)).unwrap().len(), 2);
        assert_eq!(objects_in(&Backend::route("n", "b")).unwrap().len(), 1);
    }
}
