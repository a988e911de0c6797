//! The nftables rules in a pod's namespace, as text: pure.
//!
//! Only the first packet of a new connection is redirected: one in the middle of an older connection would be taken for the first of a
//! connection that we have never seen, and that would reset it. What is established stays where it is, whatever the rules become later, as
//! long as some redirection is there; so a pod that leaves keeps a rule until its last redirected connection has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What Envoy's own connections carry.
pub const MARK: u32 = 0x539;
/// Where a pod of the mesh takes mutual TLS, whichever proxy serves.
pub const PORT: u16 = 15008;
/// The table, of family inet.
pub const TABLE: &str = "meshwright";

const NEW: &str = "tcp flags & (fin | syn | rst | ack) == syn";

/// The ports of both slots: another revision's proxy may have connections, too.
pub const SLOTS: [Ports; 2] =
    [Ports { outbound: 15101, inbound: 15108 }, Ports { outbound: 15201, inbound: 15208 }];

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

/// Plaintext that a pod refuses. The kernel does, so it holds whoever runs or not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guard {
    /// Whether ports refuse it that are not named.
    pub refused: bool,
    /// Those with which it is the other way round.
    pub except: BTreeSet<u16>,
    /// Ports at which it is taken from the kubelet in any case.
    pub probes: BTreeSet<u16>,
}

impl Guard {
    /// Whether this port refuses plaintext.
    pub fn refuses(&self, port: u16) -> bool {
        self.refused != self.except.contains(&port)
    }

    /// Whether some port refuses plaintext.
    pub fn refuses_any(&self) -> bool {
        self.refused || !self.except.is_empty()
    }
}

/// What the node's own connections to probe ports come from, in pods' eyes. Nobody else has these addresses: the node gives them only to what
/// was begun on it, and only towards those ports.
pub const KUBELET: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(169, 254, 15, 8), Ipv6Addr::new(0xfd15, 0x8, 0, 0, 0, 0, 0, 1));
/// The table on the node that gives them.
pub const PROBES: &str = "meshwright-probes";
/// Notes from one hook to the next that a connection was begun on the node. One bit, because others have theirs there.
const OWN: &str = "0x08000000";

/// What nft does to have these rules and no others of ours, in one transaction: no packet sees anything in between.
pub fn replacing(rules: Rules, guard: &Guard) -> String {
    format!("{}{}", remove(), table(rules, guard))
}

/// What nft does to have these rules where there are none of ours. It fails where there are.
pub fn creating(rules: Rules, guard: &Guard) -> String {
    format!("create table inet {TABLE}\n{}", table(rules, guard))
}

fn table(rules: Rules, guard: &Guard) -> String {
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
    chain("input", INPUT, &input(&[ports], guard));
    text.push_str("}\n");
    text
}

const INPUT: &str = "type filter hook input priority 0";

fn input(all: &[Ports], guard: &Guard) -> Vec<String> {
    // Who dials this port by itself asks the proxy to dial it again, and so on.
    let own =
        |Ports { outbound, .. }: &Ports| format!("tcp dport {outbound} {NEW} ct status & dnat != dnat drop");
    let inbound: Vec<_> = all.iter().map(|ports| ports.inbound).collect();
    all.iter().map(own).chain(plaintext(&inbound, guard)).collect()
}

/// What nft does to refuse this plaintext and no other, wherever connections are redirected.
pub fn refusing(guard: &Guard) -> String {
    let chain = format!("table inet {TABLE} {{\n\tchain input {{\n\t\t{INPUT}; policy accept;\n");
    let rules = input(&SLOTS, guard).join("\n\t\t");
    // It is there, but for somebody who took it away.
    format!("{chain}\t}}\n}}\nflush chain inet {TABLE} input\n{chain}\t\t{rules}\n\t}}\n}}\n")
}

/// What comes from outside the pod, and is not mutual TLS, at ports that refuse it.
fn plaintext(inbound: &[u16], guard: &Guard) -> Vec<String> {
    if !guard.refuses_any() {
        return Vec::new();
    }
    // Its own processes, and the proxy on its last step.
    let mut rules = vec!["iifname \"lo\" return".to_owned()];
    rules.extend(inbound.iter().map(|port| format!("tcp dport {port} return")));
    if !guard.probes.is_empty() {
        let probes = list(&guard.probes);
        let (four, six) = KUBELET;
        rules.push(format!("ip saddr {four} tcp dport {probes} return"));
        rules.push(format!("ip6 saddr {six} tcp dport {probes} return"));
    }
    let except = || list(&guard.except);
    match (guard.refused, guard.except.is_empty()) {
        (true, true) => rules.push(format!("{NEW} reject with tcp reset")),
        (true, false) => rules.push(format!("tcp dport != {} {NEW} reject with tcp reset", except())),
        (false, _) => rules.push(format!("tcp dport {} {NEW} reject with tcp reset", except())),
    }
    rules
}

fn list<T: ToString>(all: &BTreeSet<T>) -> String {
    let all: Vec<_> = all.iter().map(ToString::to_string).collect();
    format!("{{ {} }}", all.join(", "))
}

/// What nft does on the node itself, so that its probes come from addresses that pods know: ports by pods' addresses. Only what is begun on
/// the node passes the first hook; what others send through it, and comes from its address for that reason, does not. What others send from
/// these addresses goes nowhere.
pub fn probes(pods: &BTreeMap<IpAddr, BTreeSet<u16>>) -> String {
    let mut text = forget_probes();
    if pods.is_empty() {
        return text;
    }
    let (mut four, mut six) = (BTreeSet::new(), BTreeSet::new());
    for (address, ports) in pods {
        let into = if address.is_ipv4() { &mut four } else { &mut six };
        into.extend(ports.iter().map(|port| format!("{address} . {port}")));
    }
    let families = [
        ("four", "ip", "ipv4", four, KUBELET.0.to_string()),
        ("six", "ip6", "ipv6", six, KUBELET.1.to_string()),
    ];
    let (mut sets, mut output, mut snat) = (String::new(), String::new(), String::new());
    for (name, family, kind, elements, source) in families {
        if !elements.is_empty() {
            let _ = writeln!(
                sets,
                "\tset {name} {{ type {kind}_addr . inet_service; elements = {} }}",
                list(&elements)
            );
            let _ =
                writeln!(output, "\t\t{NEW} {family} daddr . tcp dport @{name} ct mark set ct mark | {OWN}");
            // Others may set the same bit.
            let _ = writeln!(
                snat,
                "\t\t{family} daddr . tcp dport @{name} ct mark & {OWN} == {OWN} snat {family} to {source}"
            );
        }
    }
    let _ = write!(
        text,
        "table inet {PROBES} {{\n{sets}\tchain prerouting {{\n\t\ttype filter hook prerouting priority -300; policy accept;\n\
         \t\tip saddr {} drop\n\t\tip6 saddr {} drop\n\t}}\n\tchain output {{\n\t\ttype filter hook output priority 0; policy accept;\n{output}\t}}\n\
         \tchain postrouting {{\n\t\ttype nat hook postrouting priority 90; policy accept;\n{snat}\t}}\n}}\n",
        KUBELET.0, KUBELET.1
    );
    text
}

/// What nft does to have nothing of that.
pub fn forget_probes() -> String {
    format!("table inet {PROBES}\ndelete table inet {PROBES}\n")
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
    fn what_is_refused_is_refused_on_whichever_ways_a_pod_has() {
        let guard = Guard { refused: true, except: [80].into(), probes: [8080].into() };
        let text = refusing(&guard);
        for slot in SLOTS {
            let full = replacing(Rules::Captured(slot), &guard);
            let (_, input) = full.split_once("chain input").unwrap();
            let rules = input.lines().skip(2).map(str::trim).filter(|line| !line.starts_with('}'));
            assert!(
                rules.clone().count() > 4 && rules.clone().all(|rule| text.contains(rule)),
                "{text}{full}"
            );
        }
        assert!(!text.contains("redirect to"));
    }

    #[test]
    fn nobody_else_has_the_kubelets_address() {
        let pods = [("10.0.0.7".parse().unwrap(), [8080].into())].into();
        let text = probes(&pods);
        assert!(text.contains("ip saddr 169.254.15.8 drop") && text.contains("ip6 saddr fd15:8::1 drop"));
        let snat: Vec<_> = text.lines().filter(|line| line.contains("snat")).collect();
        assert!(snat.len() == 1 && snat[0].contains("ip daddr . tcp dport @four"), "{text}");
    }

    #[test]
    fn rules_of_a_captured_pod() {
        insta::assert_snapshot!(replacing(Rules::Captured(A), &Guard::default()));
    }

    #[test]
    fn rules_of_a_pod_that_leaves() {
        insta::assert_snapshot!(replacing(Rules::Leaving(A), &Guard::default()));
    }

    #[test]
    fn no_rule_touches_what_is_established() {
        for rules in [Rules::Captured(A), Rules::Leaving(A)] {
            let guard = Guard { refused: true, except: [80].into(), probes: [8080].into() };
            let text = replacing(rules, &guard);
            let is_touching =
                |line: &&str| ["redirect", "drop", "reject"].iter().any(|word| line.contains(word));
            let touching: Vec<_> = text.lines().filter(is_touching).collect();
            assert!(touching.len() >= 3, "{text}");
            assert!(touching.iter().all(|line| line.contains(NEW)), "{text}");
        }
    }
}
