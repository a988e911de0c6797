//! Configuration files of a node's daemons. Paths are those that the node sees.

use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::PAUSE_IMAGE;
use crate::layout::{Layout, NODES, NodeLayout};
use crate::programs;

pub fn write(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let file = |name: &str, text: String| {
        let path = node.data.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    file("containerd.toml", containerd(layout)?)?;
    file("kubelet.json", serde_json::to_string_pretty(&kubelet(layout, node)?)?)?;
    file("kube-proxy.json", serde_json::to_string_pretty(&kube_proxy(layout, node))?)?;
    file("cni-conf/10-meshwright-e2e.conflist", serde_json::to_string_pretty(&cni(node))?)
}

pub fn kubelet_args(node: &NodeLayout) -> Vec<String> {
    vec![
        "--config=/run/node/kubelet.json".into(),
        "--kubeconfig=/run/node/pki/kubelet.kubeconfig".into(),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.ip),
        "--root-dir=/var/lib/kubelet".into(),
        format!(
            "--node-labels=topology.kubernetes.io/zone={},topology.kubernetes.io/region=local",
            node.zone
        ),
    ]
}

fn containerd(layout: &Layout) -> Result<String> {
    let shim = programs::path(&layout.root, "containerd-shim-runc-v2")?;
    let runc = programs::path(&layout.root, "runc")?;
    // restrict_oom_score_adj: without CAP_SYS_RESOURCE no score below the own one can be set, and runc would die.
    Ok(format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
address = "/run/containerd/containerd.sock"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
device_ownership_from_security_context = true

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{shim}"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{runc}"
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/opt/cni/bin"]
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"
"#,
        shim = shim.display(),
        runc = runc.display(),
    ))
}

fn kubelet(layout: &Layout, node: &NodeLayout) -> Result<Value> {
    let reserved = reserved()?;
    Ok(json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.ip.to_string(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": "/run/node/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": "/run/node/pki/kubelet.crt",
        "tlsPrivateKeyFile": "/run/node/pki/kubelet.key",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [layout.service_ip(10).to_string()],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        // With a shared root each kubelet removes the others' pods.
        "cgroupRoot": format!("/{}", node.cgroup),
        "enforceNodeAllocatable": ["none"],
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "maxPods": 250,
        "localStorageCapacityIsolation": false,
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // Each kubelet advertises the whole machine.
        "systemReserved": reserved,
        "evictionHard": {},
        // Nothing could bring a removed image back.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        "makeIPTablesUtilChains": false,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 20,
        // How long a mounted Secret or ConfigMap stays behind its object.
        "syncFrequency": "10s",
        "registerNode": true,
    }))
}

/// The share of the machine that belongs to the other nodes. All nodes' memory adds up to the machine's. Of the processors each has half: what
/// pods ask for is mostly not used, and two revisions of three gateways have to find room on two cores.
fn reserved() -> Result<Value> {
    let cpus = std::thread::available_parallelism().context("counting processors")?.get() as u64;
    let meminfo = fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let total_kib: u64 = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .context("/proc/meminfo has no MemTotal")?;
    let others = total_kib - total_kib / u64::from(NODES);
    Ok(json!({"cpu": format!("{}m", cpus * 1000 / 2), "memory": format!("{others}Ki")}))
}

fn kube_proxy(layout: &Layout, node: &NodeLayout) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": "/run/node/pki/kube-proxy.kubeconfig"},
        "hostnameOverride": node.name,
        "bindAddress": node.ip.to_string(),
        // The allocator of load balancer addresses asks here whether the node lives.
        "healthzBindAddress": format!("{}:10256", node.ip),
        "metricsBindAddress": "127.0.0.1:10249",
        "mode": "nftables",
        "clusterCIDR": layout.pod_cidr(),
        "detectLocalMode": "ClusterCIDR",
        "nftables": {"minSyncPeriod": "100ms", "syncPeriod": "30s"},
        // These limits are the whole machine's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    })
}

fn cni(node: &NodeLayout) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "meshwright-e2e",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "isDefaultGateway": true,
                "hairpinMode": true,
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni-addresses",
                    "ranges": [[{"subnet": node.pod_cidr}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "backend": "nftables"},
        ],
    })
}
