//! From the objects of the cluster to what proxies do and what statuses say.
//!
//! `backend` and `compile` do the work for one route and depend on nothing but it and what its references lead
//! to; `work` joins the routes of one Gateway, `service` those of one Service in the mesh. `resolver` keeps both as long as what they were made from stays.

mod attach;
mod backend;
mod check;
mod class;
mod compile;
mod expression;
mod gateway;
mod grants;
mod listeners;
mod parents;
mod precedence;
mod resolver;
mod rivals;
mod route;
mod seen;
mod service;
mod virtual_hosts;
mod work;

pub use resolver::Resolver;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{GatewayConfig, ServiceRoutes};
use crate::model::{ObjectKey, World};
use crate::status::Statuses;

/// What distinguishes one controller from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerConfig {
    /// GatewayClasses with this `controllerName` are ours.
    pub controller_name: String,
    /// Ports that the proxy pod needs for itself; a listener on one is refused.
    pub reserved_ports: BTreeSet<u16>,
    /// Whether Services are parents of routes: a control plane for gateways only serves nobody who would send by such routes, and has nothing
    /// to say of them.
    pub has_mesh: bool,
}

impl Default for ControllerConfig {
    fn default() -> Self {
        Self {
            controller_name: "meshwright.io/gateway-controller".to_owned(),
            // The agent's health and metrics ports, see docs/ARCHITECTURE.md.
            reserved_ports: BTreeSet::from([15020, 15021]),
            has_mesh: true,
        }
    }
}

/// The outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Configuration of every Gateway of ours, accepted or not: the proxies of one that is not go on with what of
    /// it can be had.
    pub gateways: BTreeMap<ObjectKey, Arc<GatewayConfig>>,
    /// What routes make of the requests and connections to Services in the mesh. The same allocation as before if nothing in it changed.
    pub services: Arc<ServiceRoutes>,
    /// What the statuses should say.
    pub statuses: Statuses,
    /// Secrets that a listener names and may name: these, and no others, are to be read.
    pub secrets: BTreeSet<ObjectKey>,
    /// Gateways that name Secrets of which nothing is known yet, with those Secrets. What is said here of such a
    /// Gateway treats them as absent: to publish it at once would close ports that are open.
    pub undecided: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
}

/// Resolves everything. Pure, and the same for the same input in whatever order it came together.
pub fn resolve(world: &World, config: &ControllerConfig) -> Resolution {
    Resolver::new(config.clone()).resolve(world)
}

#[cfg(test)]
mod tests;
