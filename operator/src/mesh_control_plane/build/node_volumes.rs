//! What node proxies see of their node, and nothing else of it: the pods' network namespaces, their own folder, and for the agent what belongs
//! to the container network interface.

use k8s_openapi::api::core::v1::{ConfigMapVolumeSource, HostPathVolumeSource, Volume, VolumeMount};

use super::shared;

/// Sockets between the agent and Envoy.
pub(super) const RUN_DIR: &str = "/run/proxy";
/// Where the container runtime keeps the pods' network namespaces.
const NETNS: &str = "/run/netns";

// The network plugin's entry in the node's list names these paths, so they are mounted where they are.
const OF_AGENT: [(&str, &str, bool); 4] = [
    ("node", "/run/meshwright", false),
    ("cni-conf", "/etc/cni/net.d", false),
    ("cni-bin", "/opt/cni/bin", false),
    ("cni-cache", "/var/lib/cni", true),
];

pub(super) fn volumes(trust: &str) -> Vec<Volume> {
    let host = |name: &str, path: &str| Volume {
        name: name.to_owned(),
        host_path: Some(HostPathVolumeSource {
            path: path.to_owned(),
            type_: Some("DirectoryOrCreate".to_owned()),
        }),
        ..Volume::default()
    };
    let mut volumes = vec![
        shared::token_volume(),
        Volume {
            name: "trust".to_owned(),
            config_map: Some(ConfigMapVolumeSource { name: trust.to_owned(), ..Default::default() }),
            ..Volume::default()
        },
        shared::run_volume(),
        host("netns", NETNS),
    ];
    volumes.extend(OF_AGENT.iter().map(|(name, path, _)| host(name, path)));
    volumes
}

pub(super) fn of_envoy() -> Vec<VolumeMount> {
    vec![
        shared::mount("run", RUN_DIR, false),
        VolumeMount {
            // Namespaces of pods that start later are mounts too.
            mount_propagation: Some("HostToContainer".to_owned()),
            ..shared::mount("netns", NETNS, true)
        },
    ]
}

pub(super) fn of_agent() -> Vec<VolumeMount> {
    let mut mounts = of_envoy();
    mounts.extend([
        shared::mount("token", "/var/run/secrets/meshwright", true),
        shared::mount("trust", "/etc/meshwright/trust", true),
    ]);
    mounts.extend(OF_AGENT.iter().map(|(name, path, read_only)| shared::mount(name, path, *read_only)));
    mounts
}
