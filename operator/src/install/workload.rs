//! The operator's own pods.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Container, ContainerPort, PodSpec, PodTemplateSpec, ResourceRequirements, Service, ServicePort,
            ServiceSpec,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use super::{OPERATOR, labels, meta};
use crate::{args::InstallArgs, catalogue::Catalogue, mesh_control_plane::build::shared};

const ADMIN_PORT: i32 = 8080;

fn selector() -> LabelSelector {
    shared::selector(&[("app.kubernetes.io/name", OPERATOR)])
}

pub(super) fn deployment(args: &InstallArgs) -> Deployment {
    Deployment {
        metadata: meta(args, OPERATOR),
        spec: DeploymentSpec {
            // One acts, one is ready to.
            replicas: Some(2),
            selector: selector(),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels()), ..ObjectMeta::default() }),
                spec: Some(PodSpec {
                    service_account_name: Some(OPERATOR.to_owned()),
                    containers: vec![container(args)],
                    security_context: Some(shared::pod_security()),
                    topology_spread_constraints: Some(shared::spread(&selector(), false, 1)),
                    image_pull_secrets: shared::pull_secrets(&args.pull_secrets),
                    termination_grace_period_seconds: Some(30),
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        },
        status: None,
    }
}

fn container(args: &InstallArgs) -> Container {
    let mut env = shared::pod_env();
    env.extend([shared::env("SERVICE_ACCOUNT", OPERATOR), shared::env("OPERATOR_DEPLOYMENT", OPERATOR)]);
    for release in &args.releases {
        let (control_plane, proxy) = Catalogue::variables(release.version);
        env.push(shared::env(&control_plane, &release.images.control_plane));
        env.push(shared::env(&proxy, &release.images.proxy));
    }
    if !args.pull_secrets.is_empty() {
        env.push(shared::env("IMAGE_PULL_SECRETS", args.pull_secrets.join(",")));
    }
    let amounts = [("cpu", "20m"), ("memory", "32Mi")];
    let amounts: BTreeMap<_, _> = amounts.map(|(n, a)| (n.to_owned(), Quantity(a.to_owned()))).into();
    Container {
        name: "operator".to_owned(),
        image: Some(args.operator_image.clone()),
        env: Some(env),
        ports: Some(vec![ContainerPort {
            name: Some("admin".to_owned()),
            container_port: ADMIN_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(shared::http_probe("/readyz", ADMIN_PORT, 2, 2)),
        liveness_probe: Some(shared::http_probe("/livez", ADMIN_PORT, 10, 6)),
        resources: Some(ResourceRequirements { requests: Some(amounts), ..ResourceRequirements::default() }),
        security_context: Some(shared::container_security()),
        ..Container::default()
    }
}

pub(super) fn service(args: &InstallArgs) -> Service {
    Service {
        metadata: meta(args, OPERATOR),
        spec: Some(ServiceSpec {
            selector: selector().match_labels,
            ports: Some(vec![ServicePort {
                name: Some("metrics".to_owned()),
                port: ADMIN_PORT,
                target_port: Some(IntOrString::Int(ADMIN_PORT)),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

pub(super) fn disruption_budget(args: &InstallArgs) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta(args, OPERATOR),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector()),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
