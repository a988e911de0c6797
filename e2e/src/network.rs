//! The cluster's network: a bridge in the host, a namespace and a pair of interfaces for every node, routes.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{in_netns, ip, run};
use crate::layout::{Layout, NodeLayout};

/// A node forwards packets. Those that stay on the bridge of its pods pass nftables too: they may be answers, in which the address of a
/// Service has to be put back.
const SWITCHES: &str = "echo 1 > /proc/sys/net/ipv4/ip_forward
echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter
bridge=/proc/sys/net/bridge/bridge-nf-call-iptables
[ ! -e $bridge ] || echo 1 > $bridge";

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
    run(in_netns(ns, "sh").args(["-ec", SWITCHES]))
        .with_context(|| format!("letting {} forward packets", node.name))?;
    // The host, and with it tests and the API server's webhook calls, reaches pods through their node.
    ip(&format!("route replace {} via {}", node.pod_cidr, node.ip))?;
    Ok(())
}

pub fn set_link(node: &NodeLayout, up: bool) -> Result<()> {
    ip(&format!("link set {} {}", node.netns, if up { "up" } else { "down" })).map(drop)
}

/// Makes the other nodes forget connections to pods of a node that was lost. Their connection tracking keeps those for minutes, an
/// established one for days; all load comes from one address, which soon uses a port again, and is led to where that connection went. Many
/// clients would not meet that.
///
/// # Errors
/// When a node's connections cannot be listed.
pub fn forget_pods_of(layout: &Layout, lost: &NodeLayout) -> Result<()> {
    let prefix = lost.pod_cidr.rsplit_once('.').map_or(lost.pod_cidr.as_str(), |(prefix, _)| prefix);
    for node in layout.nodes().iter().filter(|node| node.n != lost.n) {
        // Or what a client sends again on a connection that was forgotten would be taken for a new one, led to a living pod, and kept for
        // five minutes, in which the next connection from that port may come.
        let strict = "echo 0 > /proc/sys/net/netfilter/nf_conntrack_tcp_loose";
        run(in_netns(&node.netns, "sh").args(["-ec", strict]))
            .with_context(|| format!("letting {} track connections from their beginning only", node.name))?;
        let tracked = run(in_netns(&node.netns, "conntrack").args(["-L", "-p", "tcp"]))
            .with_context(|| format!("listing connections that {} tracks", node.name))?;
        for pod in translated_to(&tracked, prefix) {
            // It fails where the last of them has just ended by itself.
            let _ = run(in_netns(&node.netns, "conntrack").args(["-D", "-p", "tcp", "--reply-src", pod]));
        }
    }
    Ok(())
}

/// Who answers, of the addresses that begin so: the second source of an entry.
fn translated_to<'a>(tracked: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let answers = tracked.lines().filter_map(|line| {
        let mut sources = line.split_whitespace().filter_map(|word| word.strip_prefix("src="));
        sources.nth(1)
    });
    answers.filter(|ip| ip.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'))).collect()
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

#[cfg(test)]
mod tests {
    use super::translated_to;

    #[test]
    fn who_answers_is_found_in_entries_with_and_without_an_answer() {
        let tracked = "tcp 6 118 SYN_SENT src=172.30.18.1 dst=172.30.18.200 sport=4 dport=80 [UNREPLIED] src=10.118.1.5 dst=172.30.18.12 sport=80 dport=4 mark=0 use=1
tcp 6 86 ESTABLISHED src=172.30.18.1 dst=172.30.18.200 sport=5 dport=80 src=10.118.1.6 dst=172.30.18.12 sport=80 dport=5 [ASSURED] mark=0 use=1
tcp 6 86 ESTABLISHED src=10.118.1.7 dst=172.30.18.200 sport=5 dport=80 src=10.118.11.6 dst=172.30.18.12 sport=80 dport=5 [ASSURED] mark=0 use=1";
        assert_eq!(translated_to(tracked, "10.118.1"), ["10.118.1.5", "10.118.1.6"].into());
    }
}
