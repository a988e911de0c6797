//! The node proxies of a revision: one pod on every Linux node, the agent and Envoy in containers of their own, so that either may end
//! alone. Since 0.3.0.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec},
        core::v1::{
            Capabilities, ConfigMap, Container, ContainerPort, EnvVar, PodSecurityContext, PodSpec,
            PodTemplateSpec, ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccount,
            Toleration,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};
use meshwright_api::{NodeSlot, labels, names};

use super::{Of, node_volumes, service::XDS_PORT, shared};
use crate::gateway::build::ANCHORS;

/// The drain's deadline and the time to end afterwards, in seconds.
const TERMINATION_SECONDS: i64 = 350;
/// What the agent requests. It holds the certificates and the configuration of one node's pods.
const AGENT: [(&str, &str); 2] = [("cpu", "20m"), ("memory", "48Mi")];
/// What Envoy requests: 30 MB, and room for 200 pods at 100 kB and 1,000 Services at 25 kB. No limit: the traffic of the whole node would
/// pay for it.
const ENVOY: [(&str, &str); 2] = [("cpu", "50m"), ("memory", "96Mi")];
/// Label of every Node: what it runs. The proxies are for Linux.
pub const OS: (&str, &str) = ("kubernetes.io/os", "linux");

/// What a revision's node proxies are made of.
#[derive(Debug, Clone)]
pub struct NodeObjects {
    /// Their identity. It is bound to no role: agents never ask the API server.
    pub service_account: ServiceAccount,
    /// Trust anchors for the first connection to the control plane; none while the root is lost, then what is there stays.
    pub trust: Option<ConfigMap>,
    /// They.
    pub daemon_set: DaemonSet,
}

pub(super) fn build(of: &Of<'_>, slot: NodeSlot, anchors: Option<&str>) -> NodeObjects {
    let proxies = Proxies { of, name: names::node_resources(&of.name), slot };
    let data = |pem: &str| BTreeMap::from([(ANCHORS.to_owned(), pem.to_owned())]);
    NodeObjects {
        service_account: ServiceAccount {
            metadata: proxies.meta(),
            // The token that agents need is projected with an audience of ours; no other is mounted.
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        trust: anchors.map(|pem| ConfigMap {
            metadata: proxies.meta(),
            data: Some(data(pem)),
            ..ConfigMap::default()
        }),
        daemon_set: proxies.daemon_set(),
    }
}

struct Proxies<'a> {
    of: &'a Of<'a>,
    name: String,
    slot: NodeSlot,
}

impl Proxies<'_> {
    fn labels(&self) -> BTreeMap<String, String> {
        shared::labels(
            &self.of.revision.spec.mesh,
            &self.of.namespace,
            &[
                (labels::REVISION, &self.of.name),
                (labels::COMPONENT, labels::COMPONENT_NODE),
                (labels::NODE_SLOT, self.slot.as_str()),
            ],
        )
    }

    fn meta(&self) -> ObjectMeta {
        ObjectMeta { name: Some(self.name.clone()), labels: Some(self.labels()), ..self.of.meta() }
    }

    fn selector(&self) -> LabelSelector {
        shared::selector(&[(labels::REVISION, &self.of.name), (labels::COMPONENT, labels::COMPONENT_NODE)])
    }

    fn daemon_set(&self) -> DaemonSet {
        let images = &self.of.revision.spec.images;
        let mut template = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(self.labels()), ..ObjectMeta::default() }),
            spec: Some(PodSpec {
                service_account_name: Some(self.name.clone()),
                automount_service_account_token: Some(false),
                host_network: Some(true),
                // Or the control plane's name would be looked up in the node's own DNS.
                dns_policy: Some("ClusterFirstWithHostNet".to_owned()),
                containers: vec![self.agent(), self.envoy()],
                volumes: Some(node_volumes::volumes(&self.name)),
                security_context: Some(pod_security()),
                node_selector: Some(BTreeMap::from([(OS.0.to_owned(), OS.1.to_owned())])),
                // Wherever pods of the mesh may run, and before the node lets them.
                tolerations: Some(vec![Toleration {
                    operator: Some("Exists".to_owned()),
                    ..Toleration::default()
                }]),
                priority_class_name: Some("system-node-critical".to_owned()),
                image_pull_secrets: shared::pull_secrets(&images.pull_secrets),
                termination_grace_period_seconds: Some(TERMINATION_SECONDS),
                ..PodSpec::default()
            }),
        };
        shared::since_0_2(&mut template, &self.of.revision.spec.version);
        DaemonSet {
            metadata: self.meta(),
            spec: DaemonSetSpec { selector: self.selector(), template, ..DaemonSetSpec::default() },
            status: None,
        }
    }

    fn agent(&self) -> Container {
        let ports = self.slot.ports();
        let port = |name: &str, port: u16| ContainerPort {
            name: Some(name.to_owned()),
            container_port: i32::from(port),
            // Said, so that no pod is put beside one that still has the port.
            host_port: Some(i32::from(port)),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        };
        let health = i32::from(ports.health);
        Container {
            ports: Some(vec![port("health", ports.health), port("metrics", ports.metrics)]),
            readiness_probe: Some(shared::http_probe("/readyz", health, 2, 3)),
            // Generous, as for gateways.
            liveness_probe: Some(shared::http_probe("/livez", health, 10, 12)),
            volume_mounts: Some(node_volumes::of_agent()),
            ..self.container("agent", "node", self.agent_env(), &AGENT)
        }
    }

    fn envoy(&self) -> Container {
        let mut env = vec![shared::env("MESHWRIGHT_REVISION", &self.of.name)];
        env.extend(self.common_env());
        Container {
            volume_mounts: Some(node_volumes::of_envoy()),
            ..self.container("envoy", "envoy", env, &ENVOY)
        }
    }

    fn container(
        &self,
        name: &str,
        subcommand: &str,
        env: Vec<EnvVar>,
        requests: &[(&str, &str)],
    ) -> Container {
        let requests = requests.iter().map(|(n, a)| ((*n).to_owned(), Quantity((*a).to_owned())));
        Container {
            name: name.to_owned(),
            image: Some(self.of.revision.spec.images.proxy.clone()),
            args: Some(vec![subcommand.to_owned()]),
            env: Some(env),
            resources: Some(ResourceRequirements {
                requests: Some(requests.collect()),
                ..ResourceRequirements::default()
            }),
            security_context: Some(container_security()),
            ..Container::default()
        }
    }

    fn common_env(&self) -> Vec<EnvVar> {
        vec![
            shared::field_env("POD_NAME", "metadata.name"),
            shared::field_env("POD_NAMESPACE", "metadata.namespace"),
            shared::field_env("NODE_NAME", "spec.nodeName"),
            shared::env("SLOT", self.slot.as_str()),
            shared::env("RUN_DIR", node_volumes::RUN_DIR),
            shared::env("DRAIN_DEADLINE", "300s"),
        ]
    }

    fn agent_env(&self) -> Vec<EnvVar> {
        let (revision, namespace) = (&self.of.name, &self.of.namespace);
        let trust_domain = &self.of.revision.spec.trust_domain;
        let ports = self.slot.ports();
        let mut env = self.common_env();
        env.extend([
            shared::env("SERVICE_ACCOUNT", &self.name),
            shared::env("MESHWRIGHT_REVISION", revision),
            shared::env("TRUST_DOMAIN", trust_domain),
            shared::env("CONTROL_PLANE", format!("{revision}.{namespace}.svc:{XDS_PORT}")),
            shared::env("CONTROL_PLANE_ID", names::spiffe_id(trust_domain, namespace, revision)),
            shared::env("OUTBOUND_PORT", ports.outbound.to_string()),
            shared::env("INBOUND_PORT", ports.inbound.to_string()),
            shared::env("METRICS_ADDR", format!("0.0.0.0:{}", ports.metrics)),
            shared::env("HEALTH_ADDR", format!("0.0.0.0:{}", ports.health)),
        ]);
        env
    }
}

// Capabilities of a container are in force for user 0 only.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(false),
        run_as_user: Some(0),
        run_as_group: Some(0),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

// SYS_ADMIN enters the pods' network namespaces; NET_ADMIN sets marks on sockets there, and the agent's redirection. With the prefix CAP_ the
// API server refuses SYS_ADMIN beside `allowPrivilegeEscalation: false`, which is what sets no_new_privs.
fn container_security() -> SecurityContext {
    SecurityContext {
        run_as_non_root: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: Some(vec!["NET_ADMIN".to_owned(), "SYS_ADMIN".to_owned()]),
        }),
        ..shared::container_security()
    }
}
