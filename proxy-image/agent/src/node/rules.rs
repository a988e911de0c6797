//! The nftables rules in a pod's namespace, as text: pure.
//!
//! Only the first packet of a new connection is redirected: one in the middle of an older connection would be taken for the first of a
//! connection that we have never seen, and that would reset it. What is established stays where it is, whatever the rules become later, as
//! long as some redirection is there; so a pod that leaves keeps a rule until its last redirected connection has ended.

use std::fmt::Write;

/// What Envoy's own connections carry.
pub const MARK: u32 = 0x539;
/// Where a pod of the mesh takes mutual TLS, whichever proxy serves.
pub const PORT: u16 = 15008;
/// The table, of family inet.
pub const TABLE: &str = "meshwright";

const NEW: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// Where connections go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// What the pod's processes send.
    pub outbound: u16,
    /// Mutual TLS.
    pub inbound: u16,
}

/// What happens to a pod's new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rules {
    /// They go through the proxy.
    Captured(Ports),
    /// What its processes send goes where they want. Mutual TLS is still taken: somebody may not have heard yet that the pod leaves.
    Leaving(Ports),
}

/// What nft does to have these rules and no others of ours, in one transaction: no packet sees anything in between.
pub fn replacing(rules: Rules) -> String {
    format!("{}{}", remove(), table(rules))
}

/// What nft does to have these rules where there are none of ours. It fails where there are.
pub fn creating(rules: Rules) -> String {
    format!("create table inet {TABLE}\n{}", table(rules))
}

fn table(rules: Rules) -> String {
    let mut text = format!("table inet {TABLE} {{\n");
    let (Rules::Captured(ports) | Rules::Leaving(ports)) = rules;
    let Ports { outbound, inbound } = ports;
    let mut chain = |name: &str, kind: &str, rules: &[String]| {
        let _ = writeln!(text, "\tchain {name} {{\n\t\t{kind}; policy accept;");
        rules.iter().for_each(|rule| _ = writeln!(text, "\t\t{rule}"));
        text.push_str("\t}\n");
    };
    let mut output = vec![
        // A pod that calls its own Service: such packets never pass prerouting. Only these: mutual TLS to other pods leaves from here, too.
        format!("oifname \"lo\" meta mark {MARK:#x} tcp dport {PORT} {NEW} redirect to :{inbound}"),
        format!("meta mark {MARK:#x} return"),
        // Loopback, and the pod's own addresses.
        "oifname \"lo\" return".to_owned(),
    ];
    if let Rules::Captured(_) = rules {
        output.push(format!("{NEW} redirect to :{outbound}"));
    }
    chain("output", "type nat hook output priority -100", &output);
    let taken = format!("tcp dport {PORT} {NEW} redirect to :{inbound}");
    chain("prerouting", "type nat hook prerouting priority -100", &[taken]);
    // Who dials this port by itself asks the proxy to dial it again, and so on.
    let guard = format!("tcp dport {outbound} {NEW} ct status & dnat != dnat drop");
    chain("input", "type filter hook input priority 0", &[guard]);
    text.push_str("}\n");
    text
}

/// What nft does to have no rules of ours.
pub fn remove() -> String {
    // Adding the table first makes deleting it no error.
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Ports = Ports { outbound: 15101, inbound: 15108 };

    #[test]
    fn rules_of_a_captured_pod() {
        insta::assert_snapshot!(replacing(Rules::Captured(A)));
    }

    #[test]
    fn rules_of_a_pod_that_leaves() {
        insta::assert_snapshot!(replacing(Rules::Leaving(A)));
    }

    #[test]
    fn no_rule_touches_what_is_established() {
        for rules in [Rules::Captured(A), Rules::Leaving(A)] {
            let text = replacing(rules);
            let touching: Vec<_> =
                text.lines().filter(|line| line.contains("redirect") || line.contains("drop")).collect();
            assert!(touching.len() >= 3, "{text}");
            assert!(touching.iter().all(|line| line.contains(NEW)), "{text}");
        }
    }
}
