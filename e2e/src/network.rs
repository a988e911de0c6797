//! The cluster's network: a bridge in the host, a namespace and a pair of interfaces for every node, routes.

use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{in_netns, ip, run};
use crate::layout::{Layout, NodeLayout};

pub fn make_bridge(layout: &Layout) -> Result<()> {
    let bridge = layout.bridge();
    ip(&format!("link add {bridge} type bridge"))?;
    ip(&format!("addr add {}/24 dev {bridge}", layout.host_ip()))?;
    ip(&format!("link set {bridge} up"))?;
    Ok(())
}

/// The node's network namespace, joined to the bridge. It has no default route: nothing leaves the cluster.
pub fn make_node(layout: &Layout, node: &NodeLayout) -> Result<()> {
    let (ns, bridge) = (&node.netns, layout.bridge());
    ip(&format!("netns add {ns}"))?;
    ip(&format!("link add {ns} type veth peer name eth0 netns {ns}"))?;
    ip(&format!("link set {ns} master {bridge} up"))?;
    ip(&format!("-n {ns} link set lo up"))?;
    ip(&format!("-n {ns} addr add {}/24 dev eth0", node.ip))?;
    ip(&format!("-n {ns} link set eth0 up"))?;
    // Without it the node itself cannot reach a ClusterIP: there is no route to look up before the translation.
    ip(&format!("-n {ns} route add {} dev eth0", layout.service_cidr()))?;
    for other in layout.nodes().iter().filter(|o| o.n != node.n) {
        ip(&format!("-n {ns} route add {} via {}", other.pod_cidr, other.ip))?;
    }
    let set = "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter";
    run(in_netns(ns, "sh").args(["-ec", set]))
        .with_context(|| format!("letting {} forward packets", node.name))?;
    // The host, and with it tests and the API server's webhook calls, reaches pods through their node.
    ip(&format!("route replace {} via {}", node.pod_cidr, node.ip))?;
    Ok(())
}

pub fn set_link(node: &NodeLayout, up: bool) -> Result<()> {
    ip(&format!("link set {} {}", node.netns, if up { "up" } else { "down" })).map(drop)
}

/// Unanswered connections are forgotten after ten seconds, not after two minutes: all load comes from one address, which soon uses a port
/// again, and whatever a lost node left unanswered on that port would lead the new connection to it. Many clients would not meet that.
///
/// # Errors
/// When the kernel does not track connections, which kube-proxy makes it do.
pub fn forget_unanswered(node: &NodeLayout) -> Result<()> {
    let set = "echo 10 > /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_syn_sent";
    run(in_netns(&node.netns, "sh").args(["-ec", set]))
        .with_context(|| format!("setting how long {} tracks unanswered connections", node.name))
        .map(drop)
}

/// Removes all of it; routes of the host go with the bridge.
pub fn remove(layout: &Layout) -> Result<()> {
    for node in layout.nodes() {
        if Path::new("/run/netns").join(&node.netns).exists() {
            ip(&format!("netns delete {}", node.netns))?;
        }
        // The kernel removes the pair with the namespace, but later than this command returns.
        if Path::new("/sys/class/net").join(&node.netns).exists() {
            let _ = ip(&format!("link delete {}", node.netns));
        }
    }
    if Path::new("/sys/class/net").join(layout.bridge()).exists() {
        ip(&format!("link delete {}", layout.bridge()))?;
    }
    Ok(())
}
