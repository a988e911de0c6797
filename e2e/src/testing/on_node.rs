//! What is on a node, as far as a mesh could leave something there: nftables, network namespaces, files of network plugins, and who listens
//! in pods' networks.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use meshwright_api::NodeSlot;

use super::Env;
use crate::command::run;

/// Lines of a kind, a place, and what is there, with tabs between.
const LOOK: &str = r#"
t=$(printf '\t')
nft list tables | while read -r line; do echo "table$t$t$line"; done
for f in /etc/cni/net.d/* /opt/cni/bin/*; do
  case $f in *.namespaces) echo "file$t$f$t" ;; *) [ -f "$f" ] && echo "file$t$f$t$(cksum < "$f")" ;; esac
done
for f in /run/meshwright/*; do [ -e "$f" ] && echo "file$t$f$t"; done
for n in /run/netns/*; do
  [ -e "$n" ] || continue
  echo "network$t$n$t"
  nsenter --net="$n" -- nft list tables | while read -r line; do echo "table$t$n$t$line"; done
  nsenter --net="$n" -- cat /proc/net/tcp /proc/net/tcp6 | while read -r _ local _ state _; do
    [ "$state" = 0A ] && echo "listens$t$n$t${local##*:}"
  done
done
exit 0
"#;

/// What is on a node. Of the list of the mesh's namespaces only whether it is there: that it changes is what it is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OnNode {
    /// Network namespaces of pods.
    pub networks: BTreeSet<String>,
    /// nftables tables, by network namespace; that of the node itself has no name.
    pub tables: BTreeSet<(String, String)>,
    /// Files of network plugins and of the mesh, with a checksum.
    pub files: BTreeMap<String, String>,
    /// Ports of node proxies that are listened at in pods' networks.
    pub listens: BTreeSet<(String, u16)>,
}

impl OnNode {
    /// Of every node, by name.
    ///
    /// # Errors
    /// When the nodes are not this machine's, or cannot be looked at.
    pub async fn all(env: &Env) -> Result<BTreeMap<String, Self>> {
        let mut all = BTreeMap::new();
        for name in env.cluster.node_names().await? {
            let mut look = env.cluster.in_node(&name, "sh")?;
            look.args(["-c", LOOK]);
            let said = tokio::task::spawn_blocking(move || run(&mut look)).await?;
            let said = said.with_context(|| format!("look at {name}"))?;
            all.insert(name.clone(), Self::read(&said).with_context(|| format!("understand {name}"))?);
        }
        Ok(all)
    }

    fn read(said: &str) -> Result<Self> {
        let ports = [NodeSlot::A, NodeSlot::B].map(|slot| slot.ports());
        let ports: BTreeSet<u16> = ports.iter().flat_map(|ports| [ports.outbound, ports.inbound]).collect();
        let mut all = Self::default();
        for line in said.lines() {
            let mut parts = line.splitn(3, '\t');
            let (Some(kind), Some(place), Some(what)) = (parts.next(), parts.next(), parts.next()) else {
                bail!("{line:?}");
            };
            let (place, what) = (place.to_owned(), what.to_owned());
            match kind {
                "network" => _ = all.networks.insert(place),
                "table" => _ = all.tables.insert((place, what)),
                "file" => _ = all.files.insert(place, what),
                "listens" => {
                    let port = u16::from_str_radix(&what, 16).with_context(|| line.to_owned())?;
                    if ports.contains(&port) {
                        all.listens.insert((place, port));
                    }
                }
                _ => bail!("{line:?}"),
            }
        }
        Ok(all)
    }

    /// What is there now and was not, or the other way round, in words.
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = between("network namespace", &self.networks, &now.networks);
        found.extend(between("nftables table", &self.tables, &now.tables));
        found.extend(between("port", &self.listens, &now.listens));
        let pairs = |files: &BTreeMap<String, String>| -> BTreeSet<_> {
            files.iter().map(|(name, sum)| (name.clone(), sum.clone())).collect()
        };
        found.extend(between("file", &pairs(&self.files), &pairs(&now.files)));
        found
    }

    /// Those of all nodes.
    pub fn differences_of_all(before: &BTreeMap<String, Self>, now: &BTreeMap<String, Self>) -> Vec<String> {
        let none = Self::default();
        let names: BTreeSet<_> = before.keys().chain(now.keys()).collect();
        let of = |name: &String| {
            let (before, now) = (before.get(name).unwrap_or(&none), now.get(name).unwrap_or(&none));
            before.differences(now).into_iter().map(move |what| format!("{name}: {what}")).collect::<Vec<_>>()
        };
        names.into_iter().flat_map(of).collect()
    }
}

fn between<T: Ord + std::fmt::Debug>(what: &str, before: &BTreeSet<T>, now: &BTreeSet<T>) -> Vec<String> {
    let gone = before.difference(now).map(|it| format!("{what} {it:?} is gone"));
    let new = now.difference(before).map(|it| format!("{what} {it:?} is new"));
    gone.chain(new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_behind_is_told_in_words() {
        let before = "table\t\ttable inet kube-proxy\nfile\t/etc/cni/net.d/10-x.conflist\t1 2\n";
        let left = "network\t/run/netns/cni-1\t\ntable\t/run/netns/cni-1\ttable inet meshwright\n\
                    listens\t/run/netns/cni-1\t3AFD\nlistens\t/run/netns/cni-1\t2378\n";
        let (before, now) =
            (OnNode::read(before).unwrap(), OnNode::read(&format!("{before}{left}")).unwrap());
        assert!(before.differences(&before).is_empty());
        let found = before.differences(&now);
        assert_eq!(found.len(), 3, "15101 is a port of ours and 9080 is not: {found:?}");
        assert!(found.iter().all(|what| what.ends_with("is new")));
        let changed =
            OnNode::read("table\t\ttable inet kube-proxy\nfile\t/etc/cni/net.d/10-x.conflist\t1 3\n");
        assert_eq!(before.differences(&changed.unwrap()).len(), 2);
        assert!(OnNode::read("surprise\n").is_err());
    }
}
