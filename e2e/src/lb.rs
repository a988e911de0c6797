//! Gives Services of type LoadBalancer an address of the cluster's own network, and keeps routes of the host
//! to them, to ClusterIPs and so to gateways, through nodes that live. Runs as a process of its own.

mod health;
mod pool;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::command::ip;
use crate::layout::Layout;

/// How often the world is compared with what should be, when nothing happens.
const TICK: Duration = Duration::from_millis(300);

/// Runs until it is killed.
pub async fn run(layout: Layout, client: Client) -> Result<()> {
    let (store, writer) = reflector::store();
    let services: Api<Service> = Api::all(client.clone());
    let mut events = watcher(services, watcher::Config::default()).default_backoff().reflect(writer).boxed();
    let health = health::Nodes::watch(&layout);
    let mut allocator = Allocator { layout, client, health, routes: BTreeMap::new() };
    let mut synced = false;
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => synced |= matches!(event, watcher::Event::InitDone),
                Some(Err(error)) => tracing::warn!(%error, "watching services"),
                None => anyhow::bail!("the watch of services ended"),
            },
            () = tokio::time::sleep(TICK) => {}
        }
        // Before all services are known, an address in use would look free.
        if synced {
            let services: Vec<_> = store.state();
            if let Err(error) = allocator.reconcile(&services).await {
                tracing::warn!(error = format!("{error:#}"), "will try again");
            }
        }
    }
}

struct Allocator {
    layout: Layout,
    client: Client,
    health: health::Nodes,
    /// Destination and the node it goes through.
    routes: BTreeMap<String, Ipv4Addr>,
}

impl Allocator {
    async fn reconcile(&mut self, services: &[std::sync::Arc<Service>]) -> Result<()> {
        let live = self.health.live();
        self.route(self.layout.service_cidr(), &live)?;
        let plan = pool::allocate(services, &self.layout.lb_pool());
        for (service, address) in &plan.addresses {
            if pool::address_of(service) != Some(*address) {
                self.patch(service, json!([{"ip": address.to_string(), "ipMode": "VIP"}])).await?;
            }
            // With the Local policy only nodes that have a ready pod answer.
            let candidates = match service.spec.as_ref().and_then(|s| s.health_check_node_port) {
                Some(port) => self.health.answering(&live, port).await,
                None => live.clone(),
            };
            self.route(format!("{address}/32"), &candidates)?;
        }
        for service in plan.freed {
            self.patch(service, json!([])).await?;
        }
        let wanted: Vec<String> = plan.addresses.iter().map(|(_, address)| format!("{address}/32")).collect();
        let stale = |destination: &String| destination.ends_with("/32") && !wanted.contains(destination);
        let gone: Vec<String> = self.routes.keys().filter(|d| stale(d)).cloned().collect();
        for destination in gone {
            ip(&format!("route del {destination} dev {}", self.layout.bridge()))?;
            tracing::info!(destination, "route removed");
            self.routes.remove(&destination);
        }
        if let Some(service) = plan.exhausted {
            tracing::warn!(service, "no address is left in the pool");
        }
        Ok(())
    }

    /// Keeps a route where it is while its node lives: connections in flight are tracked there.
    fn route(&mut self, destination: String, candidates: &[Ipv4Addr]) -> Result<()> {
        let current = self.routes.get(&destination);
        if current.is_some_and(|via| candidates.contains(via)) {
            return Ok(());
        }
        let Some(via) = candidates.get(self.routes.len() % candidates.len().max(1)).copied() else {
            return Ok(());
        };
        ip(&format!("route replace {destination} via {via}"))?;
        tracing::info!(destination, %via, "route");
        self.routes.insert(destination, via);
        Ok(())
    }

    async fn patch(&self, service: &Service, ingress: serde_json::Value) -> Result<()> {
        let namespace = service.namespace().unwrap_or_default();
        let name = service.name_any();
        let api: Api<Service> = Api::namespaced(self.client.clone(), &namespace);
        let body = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&body)).await {
            Ok(_) => tracing::info!(namespace, name, %ingress, "address"),
            // Deleted meanwhile: the watch will say so.
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => {
                return Err(error).with_context(|| format!("giving {namespace}/{name} its address"));
            }
        }
        Ok(())
    }
}
