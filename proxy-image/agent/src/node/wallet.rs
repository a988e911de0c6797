//! With what the agent itself calls a pod's listener in that pod's name.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::Context;
use meshwright_pki::tls::{DynamicIdentity, DynamicRoots, client_config};
use rustls::ClientConfig;

use crate::identity::Signed;

/// Protocol of the wire format that carries anything.
const ALPN: &[u8] = b"mw1-tcp";

/// By SPIFFE id. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Wallet(Arc<RwLock<BTreeMap<String, Arc<ClientConfig>>>>);

impl Wallet {
    /// There is a new certificate.
    ///
    /// # Errors
    /// When nobody could call with it.
    pub fn keep(&self, identity: &str, signed: &Signed) -> anyhow::Result<()> {
        let own = DynamicIdentity::default();
        own.set(&signed.identity)?;
        let mut config = client_config(own, DynamicRoots::new(&signed.roots)?, identity.parse()?)?;
        // Without a name the proxy has no port to go to, as here, and looks for none.
        config.enable_sni = true;
        config.alpn_protocols = vec![ALPN.to_vec()];
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(identity.to_owned(), Arc::new(config));
        Ok(())
    }

    /// Nobody needs it any more.
    pub fn forget(&self, identity: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(identity);
    }

    /// To call in this name, and be answered in it.
    ///
    /// # Errors
    /// When there is no certificate.
    pub fn of(&self, identity: &str) -> anyhow::Result<Arc<ClientConfig>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(identity).cloned().context("there is no certificate for its identity yet")
    }
}
