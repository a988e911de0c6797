//! Responses that wait until Envoy has judged them.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use envoy_types::pb::google::rpc::Status;
use meshwright_xds::{DeltaDiscoveryRequest, Resource, TypeUrl};

use super::{State, WILDCARDS, request};

const FAILED_PRECONDITION: i32 = 9;

/// A response of the control plane that Envoy has not judged yet.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) kind: TypeUrl,
    /// None after the stream it came on ended: nobody to tell any more.
    pub(super) nonce: Option<String>,
    pub(super) generation: u64,
    pub(super) resources: Vec<Arc<Resource>>,
}

impl State {
    // Endpoints change all the time, also while Envoy is away or crashes again and again: what is replaced before it
    // was judged will not be, so it is not kept, and with nothing left its response is acknowledged. Types that can
    // be refused for what users write wait: their answers become conditions.
    pub(super) fn supersede(&mut self, updates: &[Arc<Resource>], removals: &[String]) {
        let names = updates.iter().map(|update| &**update.name());
        let names: BTreeSet<&str> = names.chain(removals.iter().map(String::as_str)).collect();
        for pending in self.pending.iter_mut().filter(|pending| pending.kind == TypeUrl::Endpoint) {
            pending.resources.retain(|resource| !names.contains(&**resource.name()));
        }
    }

    // Answers what Envoy has judged, and what it does not care about.
    pub(super) fn resolve(&mut self) -> Vec<DeltaDiscoveryRequest> {
        let mut requests = Vec::new();
        let mut waiting = VecDeque::new();
        for pending in std::mem::take(&mut self.pending) {
            if !self.is_judged(&pending) {
                waiting.push_back(pending);
                continue;
            }
            let mut errors = Vec::new();
            for resource in &pending.resources {
                let key = (pending.kind, resource.name().clone());
                match self.rejected.get(&key) {
                    Some(refused) if refused.version == *resource.version() => {
                        errors.push(format!("{}: {}", resource.name(), refused.message));
                    }
                    _ => {
                        let current = self.candidate.get(pending.kind, resource.name());
                        if current.is_some_and(|current| current.version() == resource.version()) {
                            self.accepted.insert(key, resource.clone());
                        }
                    }
                }
            }
            let Some(nonce) = pending.nonce else { continue };
            let error_detail = (!errors.is_empty()).then(|| Status {
                code: FAILED_PRECONDITION,
                message: errors.join("; "),
                ..Status::default()
            });
            requests.push(DeltaDiscoveryRequest {
                response_nonce: nonce,
                error_detail,
                ..request(pending.kind)
            });
        }
        self.pending = waiting;
        requests
    }

    fn is_judged(&self, pending: &Pending) -> bool {
        if self.settled.get(&pending.kind).is_some_and(|settled| *settled >= pending.generation) {
            return true;
        }
        // Endpoints that came along with a cluster before Envoy asked for them, and the like.
        let wanted = self.wanted.get(&pending.kind);
        let wants = |resource: &Arc<Resource>| wanted.is_some_and(|wanted| wanted.contains(resource.name()));
        !WILDCARDS.contains(&pending.kind) && !pending.resources.iter().any(wants)
    }
}
