//! Does in pods' namespaces what was decided.

use std::{collections::BTreeSet, net::IpAddr, path::Path, sync::Arc};

use super::{
    claim::Claims,
    keep::{Task, pod::Job},
    netns::Netns,
    nft::Nft,
    probe::{handshake, probe},
    rules::{Guard, Ports, Rules, SLOTS},
    sockets::{Listeners, Sockets},
    takers::Takers,
    wallet::Wallet,
};

/// Where mutual TLS arrives, whichever proxy took it.
const INBOUND: [u16; 2] = [SLOTS[0].inbound, SLOTS[1].inbound];

/// What it takes. Cheap to clone; everything here blocks.
#[derive(Debug, Clone)]
pub struct Hands {
    /// Sets rules.
    pub nft: Nft,
    /// Says whether we may.
    pub claims: Arc<Claims>,
    /// Where what we capture goes.
    pub ports: Ports,
    /// With what pods call.
    pub wallet: Wallet,
    /// What pods had taken when they began to refuse plaintext.
    pub takers: Takers,
}

impl Hands {
    /// Does it. Returns how much is left to wait for.
    ///
    /// # Errors
    /// When it could not be done; then it is to be tried again.
    pub fn perform(&self, task: &Task) -> anyhow::Result<usize> {
        let netns = Netns::open(&task.namespace)?;
        let refuses = matches!(task.job.0, Job::Redirect | Job::Guard | Job::Refuse);
        if !refuses || !task.guard.refuses_any() {
            return self.perform_in(&netns, task);
        }
        let before = Listeners::of(&netns)?;
        let outcome = self.perform_in(&netns, task);
        // Also if it could not be done: what is refused may be refused already.
        self.takers.note(&task.namespace, |known| Sockets::accepted(&netns, &before, known))?;
        outcome
    }

    fn perform_in(&self, netns: &Netns, task: &Task) -> anyhow::Result<usize> {
        let Ports { outbound, inbound } = self.ports;
        let (captured, leaving) = (Rules::Captured(self.ports), Rules::Leaving(self.ports));
        match task.job.0 {
            Job::AwaitListeners => Ok(usize::from(!Sockets::of(netns)?.listen_on(&[outbound, inbound]))),
            Job::AwaitClosed => Ok(usize::from(!Sockets::of(netns)?.listen_on_none(&[outbound, inbound]))),
            Job::Count => {
                let ports: Vec<_> = task.ports.iter().copied().collect();
                Ok(Sockets::of(netns)?.connected(&ports))
            }
            Job::Try => handshake(netns, inbound, self.wallet.of(&task.identity)?).map(|()| 0),
            Job::Redirect => self.act(|| {
                match task.redirected {
                    true => self.nft.apply(netns, captured, &task.guard)?,
                    false => self.nft.establish(netns, captured, &task.guard)?,
                }
                let tried = probe(netns);
                if tried.is_err() {
                    // Rather without the mesh than without a network. What is refused stays refused.
                    self.nft.apply(netns, leaving, &task.guard)?;
                }
                tried
            }),
            Job::Check => self.act(|| {
                if !self.nft.has(netns, captured, &task.guard) {
                    tracing::warn!(uid = task.uid, "somebody changed a pod's redirection, it is set again");
                    self.nft.apply(netns, captured, &task.guard)?;
                }
                Ok(())
            }),
            Job::Refuse => self.act(|| self.nft.refuse(netns, &task.guard)),
            Job::Guard => self.act(|| self.nft.apply(netns, captured, &task.guard)),
            Job::Cut => self.act(|| {
                let own = SLOTS.map(|slot| [slot.outbound, slot.inbound]).concat();
                let own = [own, vec![outbound, inbound]].concat();
                let accepted = self.takers.of(&task.namespace);
                let cut = Sockets::end_plaintext(netns, &task.guard, &own, &accepted)?;
                // Nobody was let in since then.
                self.takers.forget(&task.namespace);
                if cut > 0 {
                    tracing::info!(
                        uid = task.uid,
                        connections = cut,
                        "ended what was connected in plaintext before that was refused"
                    );
                }
                Ok(())
            }),
            Job::Part => self.act(|| self.nft.apply(netns, leaving, &Guard::default())),
            Job::Clear => self.act(|| self.nft.clear(netns)),
        }
    }

    /// From where a pod is connected over mutual TLS, by either revision's proxy.
    ///
    /// # Errors
    /// When its namespace is gone, or the kernel does not answer.
    pub fn callers(&self, namespace: &Path) -> anyhow::Result<BTreeSet<IpAddr>> {
        Sockets::callers(&Netns::open(namespace)?, &INBOUND)
    }

    /// Ends what is connected to a pod from there over mutual TLS.
    ///
    /// # Errors
    /// As there.
    pub fn end_callers(&self, namespace: &Path, callers: &BTreeSet<IpAddr>) -> anyhow::Result<usize> {
        Sockets::end_callers(&Netns::open(namespace)?, &INBOUND, callers)
    }

    /// Gives the node these rules for its probes.
    ///
    /// # Errors
    /// When somebody else serves the node, or nft refuses them.
    pub fn probes(&self, script: &str) -> anyhow::Result<()> {
        self.claims.acting(|| self.nft.on_node(script))
    }

    /// How many connections the proxy has in these namespaces.
    pub fn connected(&self, namespaces: &[std::path::PathBuf]) -> usize {
        let ports = [self.ports.outbound, self.ports.inbound];
        let sockets = namespaces.iter().filter_map(|path| Sockets::of(&Netns::open(path).ok()?).ok());
        sockets.map(|sockets| sockets.connected(&ports)).sum()
    }

    fn act(&self, act: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<usize> {
        self.claims.acting(act).map(|()| 0)
    }
}
