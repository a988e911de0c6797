//! Endpoints as the pods of one node get them: of some Services only those that are near. All other endpoints are the same for all nodes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use meshwright_core::mesh::Mesh;

use crate::{Resource, Resources};

/// Zones of nodes, by the endpoints that are on them: to look at the nodes themselves the control plane has no right, and a node without any
/// endpoint is in no zone.
pub(super) fn zones(mesh: &Mesh) -> BTreeMap<String, String> {
    let ports = mesh.services.values().flat_map(|service| service.ports.values());
    let all = ports.map(|port| &port.endpoints).chain(mesh.backends.values());
    let zones = all.flat_map(|endpoints| &endpoints.zones).filter(|(zone, _)| !zone.is_empty());
    let nodes = zones
        .flat_map(|(zone, all)| all.iter().filter_map(move |one| Some((one.node.clone()?, zone.clone()))));
    nodes.collect()
}

/// What nodes had last: who asks for the same gets the same.
#[derive(Debug, Default)]
pub(super) struct Nearby(Mutex<BTreeMap<String, Made>>);

#[derive(Debug)]
struct Made {
    zone: Option<String>,
    all: Arc<Resources>,
    made: Arc<Resources>,
}

impl Nearby {
    /// All endpoints with those that are others for this node in this zone.
    pub fn of(
        &self,
        node: &str,
        zone: Option<&str>,
        all: &Arc<Resources>,
        others: impl FnOnce() -> Vec<Resource>,
    ) -> Arc<Resources> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get(node)
            && known.zone.as_deref() == zone
            && Arc::ptr_eq(&known.all, all)
        {
            return known.made.clone();
        }
        let mut made = Resources::clone(all);
        others().into_iter().for_each(|resource| made.insert(resource));
        let made = Arc::new(made);
        let zone = zone.map(str::to_owned);
        known.insert(node.to_owned(), Made { zone, all: all.clone(), made: made.clone() });
        made
    }

    /// Forgets nodes that are not among these.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| is_there(name));
    }
}
