//! Compiled routes from the last resolution. One edit among thousands of routes then compiles one route.

use std::collections::HashMap;
use std::sync::Arc;

use super::backend::{BackendTable, backend_table};
use super::compile::{CompiledRoute, compile};
use super::{ControllerConfig, Resolution, resolve_with};
use crate::model::{HttpRoute, ObjectKey, World};

/// Remembers, for each route, what it was compiled from and to.
#[derive(Debug, Default)]
pub struct RouteCache {
    entries: HashMap<ObjectKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    route: Arc<HttpRoute>,
    backends: BackendTable,
    compiled: Arc<CompiledRoute>,
}

impl RouteCache {
    /// As [`super::resolve`], compiling only what changed since the last call.
    pub fn resolve(&mut self, world: &World, config: &ControllerConfig) -> Resolution {
        let resolution = resolve_with(world, config, &mut |route| self.compile(route, world));
        self.entries.retain(|key, _| world.http_routes.contains_key(key));
        resolution
    }

    fn compile(&mut self, route: &Arc<HttpRoute>, world: &World) -> Arc<CompiledRoute> {
        let backends = backend_table(route, world);
        if let Some(entry) = self.entries.get(&route.meta.key)
            && (Arc::ptr_eq(&entry.route, route) || entry.route == *route)
            && entry.backends == backends
        {
            return Arc::clone(&entry.compiled);
        }
        let compiled = Arc::new(compile(route, &backends));
        let entry = Entry { route: Arc::clone(route), backends, compiled: Arc::clone(&compiled) };
        self.entries.insert(route.meta.key.clone(), entry);
        compiled
    }
}
