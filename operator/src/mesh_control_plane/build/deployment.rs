//! The control plane's pods.

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec},
        core::v1::{
            Container, ContainerPort, EnvVar, PodSpec, PodTemplateSpec, SecretVolumeSource, Volume,
            VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use meshwright_api::names;

use super::{Of, service::XDS_PORT, shared};
use crate::availability::Plan;

const ADMIN_PORT: i32 = 8080;
const ISSUING_CA: &str = "issuing-ca";

pub(super) fn build(of: &Of<'_>, issuing_secret: &str, plan: &Plan) -> Deployment {
    let settings = &of.revision.spec.control_plane;
    let scheduling = &settings.scheduling;
    let constraints = shared::spread(&of.selector(), settings.spread_zones, plan.node_skew());
    Deployment {
        metadata: of.meta(),
        spec: DeploymentSpec {
            selector: of.selector(),
            strategy: Some(shared::strategy(plan)),
            revision_history_limit: Some(2),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(of.labels()), ..ObjectMeta::default() }),
                spec: Some(PodSpec {
                    service_account_name: Some(of.name.clone()),
                    containers: vec![container(of)],
                    volumes: Some(vec![issuing_ca(issuing_secret)]),
                    security_context: Some(shared::pod_security()),
                    topology_spread_constraints: Some(constraints),
                    node_selector: Some(scheduling.node_selector.clone()).filter(|s| !s.is_empty()),
                    tolerations: Some(scheduling.tolerations.clone()).filter(|t| !t.is_empty()),
                    priority_class_name: scheduling.priority_class_name.clone(),
                    image_pull_secrets: shared::pull_secrets(&of.revision.spec.images.pull_secrets),
                    termination_grace_period_seconds: Some(30),
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

fn container(of: &Of<'_>) -> Container {
    let port = |name: &str, port: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    Container {
        name: "control-plane".to_owned(),
        image: Some(of.revision.spec.images.control_plane.clone()),
        env: Some(env(of)),
        ports: Some(vec![port("xds", XDS_PORT), port("admin", ADMIN_PORT)]),
        readiness_probe: Some(shared::http_probe("/readyz", ADMIN_PORT, 2, 2)),
        liveness_probe: Some(shared::http_probe("/livez", ADMIN_PORT, 10, 6)),
        resources: Some(shared::resources(&of.revision.spec.control_plane.resources)),
        security_context: Some(shared::container_security()),
        volume_mounts: Some(vec![VolumeMount {
            name: ISSUING_CA.to_owned(),
            mount_path: "/etc/meshwright/issuing-ca".to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn env(of: &Of<'_>) -> Vec<EnvVar> {
    let spec = &of.revision.spec;
    let mut env = shared::pod_env();
    env.extend([
        shared::env("MESH_NAME", &spec.mesh),
        shared::env("MESHWRIGHT_REVISION", &of.name),
        shared::env("TRUST_DOMAIN", &spec.trust_domain),
        shared::env("WORKLOAD_TTL", &spec.workload_ttl),
        shared::env("SERVICE_ACCOUNT", &of.name),
        shared::env("OPERATOR_ID", names::operator_id(&spec.trust_domain)),
    ]);
    env
}

fn issuing_ca(secret: &str) -> Volume {
    Volume {
        name: ISSUING_CA.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            // For the group of the pod's user, nobody else.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
