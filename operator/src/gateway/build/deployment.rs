//! The proxies of a Gateway. Nothing here depends on its listeners: they are configuration that a running proxy gets.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{
            ConfigMapVolumeSource, Container, ContainerPort, EnvVar, PodSecurityContext, PodSpec,
            PodTemplateSpec, Sysctl, Volume,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::ResourceExt;
use meshwright_api::names;

use super::{Part, ValidatedGateway, of_part, part_selector, propagated};
use crate::mesh_control_plane::build::shared;

const HEALTH_PORT: i32 = 15021;
const METRICS_PORT: i32 = 15020;
/// The drain's deadline and the time to end afterwards.
const TERMINATION_SECONDS: i64 = 330;

pub(super) fn build(gateway: &ValidatedGateway, part: &Part) -> Deployment {
    let scheduling = &part.scheduling;
    let selector = part_selector(gateway, part);
    let constraints =
        shared::spread(&selector, part.snapshot.gateways.spread_zones, gateway.plan.node_skew());
    Deployment {
        metadata: of_part(propagated(gateway), part),
        spec: DeploymentSpec {
            selector,
            strategy: Some(shared::strategy(&gateway.plan)),
            revision_history_limit: Some(2),
            template: PodTemplateSpec {
                metadata: Some(pod_meta(gateway, part)),
                spec: Some(PodSpec {
                    service_account_name: Some(gateway.name.clone()),
                    automount_service_account_token: Some(false),
                    containers: vec![container(gateway, part)],
                    volumes: Some(volumes(gateway)),
                    security_context: Some(pod_security()),
                    topology_spread_constraints: Some(constraints),
                    node_selector: Some(scheduling.node_selector.clone()).filter(|s| !s.is_empty()),
                    tolerations: Some(scheduling.tolerations.clone()).filter(|t| !t.is_empty()),
                    priority_class_name: scheduling.priority_class_name.clone(),
                    image_pull_secrets: shared::pull_secrets(&part.snapshot.images.pull_secrets),
                    termination_grace_period_seconds: Some(TERMINATION_SECONDS),
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

fn pod_meta(gateway: &ValidatedGateway, part: &Part) -> ObjectMeta {
    let of_part = of_part(propagated(gateway), part);
    ObjectMeta { labels: of_part.labels, annotations: of_part.annotations, ..ObjectMeta::default() }
}

// Listeners below 1024 without a capability: this sysctl is one of the safe ones.
fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        sysctls: Some(vec![Sysctl {
            name: "net.ipv4.ip_unprivileged_port_start".to_owned(),
            value: "0".to_owned(),
        }]),
        ..shared::pod_security()
    }
}

fn container(gateway: &ValidatedGateway, part: &Part) -> Container {
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: "proxy".to_owned(),
        image: Some(part.snapshot.images.proxy.clone()),
        env: Some(env(gateway, part)),
        ports: Some(vec![port("health", HEALTH_PORT), port("metrics", METRICS_PORT)]),
        readiness_probe: Some(shared::http_probe("/readyz", HEALTH_PORT, 1, 3)),
        // Generous: a restart costs every connection, a slow answer costs nothing.
        liveness_probe: Some(shared::http_probe("/livez", HEALTH_PORT, 10, 12)),
        resources: Some(shared::resources(&part.resources)),
        security_context: Some(shared::container_security()),
        volume_mounts: Some(vec![
            shared::mount("token", "/var/run/secrets/meshwright", true),
            shared::mount("trust", "/etc/meshwright/trust", true),
            shared::mount("run", "/run/meshwright", false),
        ]),
        ..Container::default()
    }
}

fn env(gateway: &ValidatedGateway, part: &Part) -> Vec<EnvVar> {
    let (revision, namespace) = (&part.revision, &gateway.mesh_namespace);
    let trust_domain = &part.snapshot.trust_domain;
    let mut env = shared::pod_env();
    env.extend([
        shared::env("SERVICE_ACCOUNT", &gateway.name),
        shared::env("GATEWAY_NAME", gateway.source.name_any()),
        shared::env("GATEWAY_NAMESPACE", &gateway.namespace),
        shared::env("MESHWRIGHT_REVISION", revision),
        shared::env("TRUST_DOMAIN", trust_domain),
        shared::env("CONTROL_PLANE", format!("{revision}.{namespace}.svc:15012")),
        shared::env("CONTROL_PLANE_ID", names::spiffe_id(trust_domain, namespace, revision)),
        shared::env("DRAIN_DELAY", "10s"),
        shared::env("DRAIN_DEADLINE", "300s"),
    ]);
    env
}

fn volumes(gateway: &ValidatedGateway) -> Vec<Volume> {
    vec![
        shared::token_volume(),
        Volume {
            name: "trust".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: gateway.name.clone(), ..Default::default() }),
            ..Volume::default()
        },
        shared::run_volume(),
    ]
}
