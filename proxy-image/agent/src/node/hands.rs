//! Does in pods' namespaces what was decided.

use std::sync::Arc;

use super::{
    claim::Claims,
    keep::{Task, pod::Job},
    netns::Netns,
    nft::Nft,
    probe::{handshake, probe},
    rules::{Ports, Rules},
    sockets::Sockets,
    wallet::Wallet,
};

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
}

impl Hands {
    /// Does it. Returns how much is left to wait for.
    ///
    /// # Errors
    /// When it could not be done; then it is to be tried again.
    pub fn perform(&self, task: &Task) -> anyhow::Result<usize> {
        let netns = Netns::open(&task.namespace)?;
        let Ports { outbound, inbound } = self.ports;
        let (captured, leaving) = (Rules::Captured(self.ports), Rules::Leaving(self.ports));
        match task.job.0 {
            Job::AwaitListeners => Ok(usize::from(!Sockets::of(&netns)?.listen_on(&[outbound, inbound]))),
            Job::AwaitClosed => Ok(usize::from(!Sockets::of(&netns)?.listen_on_none(&[outbound, inbound]))),
            Job::Count => {
                let ports: Vec<_> = task.ports.iter().copied().collect();
                Ok(Sockets::of(&netns)?.connected(&ports))
            }
            Job::Try => handshake(&netns, inbound, self.wallet.of(&task.identity)?).map(|()| 0),
            Job::Redirect => self.act(|| {
                match task.redirected {
                    true => self.nft.apply(&netns, captured)?,
                    false => self.nft.establish(&netns, captured)?,
                }
                let tried = probe(&netns);
                if tried.is_err() {
                    // Rather without the mesh than without a network.
                    self.nft.apply(&netns, leaving)?;
                }
                tried
            }),
            Job::Check => self.act(|| {
                if !self.nft.has(&netns, captured) {
                    tracing::warn!(uid = task.uid, "somebody changed a pod's redirection, it is set again");
                    self.nft.apply(&netns, captured)?;
                }
                Ok(())
            }),
            Job::Part => self.act(|| self.nft.apply(&netns, leaving)),
            Job::Clear => self.act(|| self.nft.clear(&netns)),
        }
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
