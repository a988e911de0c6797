//! Compiled routes, kept while neither the route nor what its references lead to has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use meshwright_core::model::HttpRoute;
use meshwright_core::resolve::{
    BackendTable, CompiledRoute, Resolution, backend_table, compile, resolve_with,
};
use meshwright_core::{ControllerConfig, ObjectKey, World};

struct Entry {
    route: Arc<HttpRoute>,
    table: BackendTable,
    compiled: Arc<CompiledRoute>,
}

#[derive(Default)]
pub(crate) struct CompileCache {
    entries: BTreeMap<ObjectKey, Entry>,
}

impl CompileCache {
    /// As `meshwright_core::resolve`.
    pub(crate) fn resolve(&mut self, world: &World, controller: &ControllerConfig) -> Resolution {
        let mut known = std::mem::take(&mut self.entries);
        let entries = &mut self.entries;
        // Only what this resolution used is kept, so the cache never outgrows the routes that there are.
        resolve_with(world, controller, &mut |route| {
            let table = backend_table(route, world);
            let entry = match known.remove(&route.meta.key) {
                Some(entry) if Arc::ptr_eq(&entry.route, route) && entry.table == table => entry,
                _ => {
                    let compiled = Arc::new(compile(route, &table));
                    Entry { route: route.clone(), table, compiled }
                }
            };
            let compiled = entry.compiled.clone();
            entries.insert(route.meta.key.clone(), entry);
            compiled
        })
    }
}
