//! Parts that control planes and gateways have in common.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{DeploymentStrategy, RollingUpdateDeployment},
        autoscaling::v2::{
            CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler,
            HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget,
            ResourceMetricSource,
        },
        core::v1::{
            Capabilities, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
            ObjectFieldSelector, PodSecurityContext, PodTemplateSpec, Probe, ProjectedVolumeSource,
            ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection,
            TopologySpreadConstraint, Volume, VolumeMount, VolumeProjection,
        },
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use meshwright_api::{Resources, TOKEN_AUDIENCE, labels};

use crate::availability::Plan;

/// The user of all our containers; also the owner of what is mounted.
const USER: i64 = 65532;

/// Labels of everything we make for a mesh, and more.
pub fn labels(mesh: &str, namespace: &str, more: &[(&str, &str)]) -> BTreeMap<String, String> {
    let all = [
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::MESH_NAME, mesh),
        (labels::MESH_NAMESPACE, namespace),
    ];
    all.iter().chain(more).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// A selector of these labels.
pub fn selector(labels: &[(&str, &str)]) -> LabelSelector {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// Scales a Deployment by CPU.
pub fn autoscaler(meta: ObjectMeta, deployment: &str, plan: &Plan) -> HorizontalPodAutoscaler {
    HorizontalPodAutoscaler {
        metadata: meta,
        spec: HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".to_owned()),
                kind: "Deployment".to_owned(),
                name: deployment.to_owned(),
            },
            min_replicas: Some(plan.min),
            max_replicas: plan.max,
            metrics: Some(vec![MetricSpec {
                type_: "Resource".to_owned(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".to_owned(),
                    target: MetricTarget {
                        type_: "Utilization".to_owned(),
                        average_utilization: Some(plan.target_cpu_percent),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            behavior: Some(HorizontalPodAutoscalerBehavior {
                // Every pod that goes ends connections: not before load has been low for a while.
                scale_down: Some(HPAScalingRules {
                    stabilization_window_seconds: Some(300),
                    ..HPAScalingRules::default()
                }),
                ..HorizontalPodAutoscalerBehavior::default()
            }),
        },
        ..HorizontalPodAutoscaler::default()
    }
}

/// Limits what evictions take at once.
pub fn disruption_budget(meta: ObjectMeta, selector: LabelSelector, plan: &Plan) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta,
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(plan.max_disrupted)),
            selector: Some(selector),
            // A pod that never gets ready must not hold up a drain.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}

/// New pods first, old ones only when they are replaced.
pub fn strategy(plan: &Plan) -> DeploymentStrategy {
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_unavailable: Some(IntOrString::Int(0)),
            max_surge: Some(plan.max_surge.clone()),
        }),
    }
}

/// Spread over nodes, and over zones where asked for. `node_skew` is a must, an even spread a wish: as a must, one full
/// node would keep all others at one pod.
pub fn spread(selector: &LabelSelector, zones: bool, node_skew: i32) -> Vec<TopologySpreadConstraint> {
    let over = |key: &str, when: &str, max_skew: i32| TopologySpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        when_unsatisfiable: when.to_owned(),
        label_selector: Some(selector.clone()),
        // Each rollout spreads its own pods; else old pods would push new ones onto one node.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        // A cordoned or lost node is no place that has to be filled first, or a drain could not go on.
        node_taints_policy: Some("Honor".to_owned()),
        ..TopologySpreadConstraint::default()
    };
    let node = "kubernetes.io/hostname";
    let mut constraints = vec![over(node, "DoNotSchedule", node_skew), over(node, "ScheduleAnyway", 1)];
    if zones {
        // Not a must: nodes without the label would be no place at all.
        constraints.push(over("topology.kubernetes.io/zone", "ScheduleAnyway", 1));
    }
    constraints
}

/// The restricted Pod Security level.
pub fn pod_security() -> PodSecurityContext {
    PodSecurityContext {
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        fs_group: Some(USER),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            ..SeccompProfile::default()
        }),
        ..PodSecurityContext::default()
    }
}

/// The restricted Pod Security level and a root file system that nobody writes.
pub fn container_security() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
        ..SecurityContext::default()
    }
}

/// A variable with a value.
pub fn env(name: &str, value: impl Into<String>) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.into()), ..EnvVar::default() }
}

/// A variable with a field of the pod.
pub fn field_env(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: path.to_owned(),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// What a pod can only learn from Kubernetes.
pub fn pod_env() -> Vec<EnvVar> {
    vec![
        field_env("POD_NAME", "metadata.name"),
        field_env("POD_NAMESPACE", "metadata.namespace"),
        field_env("POD_IP", "status.podIP"),
    ]
}

/// Where a volume is in a container.
pub fn mount(name: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// A token of the service account with our audience, for requests for certificates.
pub fn token_volume() -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(TOKEN_AUDIENCE.to_owned()),
        expiration_seconds: Some(3600),
        path: "token".to_owned(),
        ..ServiceAccountTokenProjection::default()
    };
    Volume {
        name: "token".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection {
                service_account_token: Some(token),
                ..VolumeProjection::default()
            }]),
            default_mode: Some(0o440),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Between a proxy's agent and its Envoy. In memory, because sockets and keys must not reach a disk.
pub fn run_volume() -> Volume {
    Volume {
        name: "run".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(Quantity("16Mi".to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Asks a path by HTTP.
pub fn http_probe(path: &str, port: i32, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(port),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// Requests and limits of a container.
pub fn resources(resources: &Resources) -> ResourceRequirements {
    ResourceRequirements {
        requests: Some(resources.requests.clone()),
        limits: Some(resources.limits.clone()).filter(|l| !l.is_empty()),
        ..ResourceRequirements::default()
    }
}

/// References to pull secrets, if there are any.
pub fn pull_secrets(names: &[String]) -> Option<Vec<LocalObjectReference>> {
    let refs: Vec<_> = names.iter().map(|n| LocalObjectReference { name: n.clone() }).collect();
    (!refs.is_empty()).then_some(refs)
}

/// What builders since 0.2.0 add: pods say which version they are, and a container that ends leaves its last words in its status.
pub fn since_0_2(template: &mut PodTemplateSpec, version: &str) {
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert("app.kubernetes.io/version".to_owned(), version.to_owned());
    for container in &mut template.spec.get_or_insert_default().containers {
        container.env.get_or_insert_default().push(env("MESHWRIGHT_VERSION", version));
        container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    }
}
