//! Which Service has which address: a pure function of what the Services say.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

#[derive(Default)]
pub struct Plan<'a> {
    pub addresses: Vec<(&'a Service, Ipv4Addr)>,
    /// Services that have an address and should not.
    pub freed: Vec<&'a Service>,
    /// A Service for which nothing was left.
    pub exhausted: Option<String>,
}

pub fn address_of(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.first()?.ip.as_ref()?.parse().ok()
}

/// Addresses once given stay; a wished one (`loadBalancerIP`) is given when it is free; others are the lowest free.
pub fn allocate<'a>(services: &'a [Arc<Service>], pool: &[Ipv4Addr]) -> Plan<'a> {
    let mut plan = Plan::default();
    let mut sorted: Vec<&Service> = services.iter().map(AsRef::as_ref).collect();
    sorted.sort_by_key(|s| (s.metadata.creation_timestamp.clone(), s.namespace(), s.name_any()));
    let mut taken = BTreeSet::new();
    let mut waiting = Vec::new();
    for service in sorted {
        match (is_ours(service), address_of(service)) {
            (true, Some(address)) if pool.contains(&address) && taken.insert(address) => {
                plan.addresses.push((service, address));
            }
            (true, _) => waiting.push(service),
            (false, Some(address)) if pool.contains(&address) => plan.freed.push(service),
            (false, _) => {}
        }
    }
    for service in waiting {
        let wish = service.spec.as_ref().and_then(|s| s.load_balancer_ip.as_ref()?.parse().ok());
        let free = |address: &Ipv4Addr| pool.contains(address) && !taken.contains(address);
        match wish.filter(free).or_else(|| pool.iter().copied().find(free)) {
            Some(address) => {
                taken.insert(address);
                plan.addresses.push((service, address));
            }
            None => {
                plan.exhausted =
                    Some(format!("{}/{}", service.namespace().unwrap_or_default(), service.name_any()))
            }
        }
    }
    plan
}

fn is_ours(service: &Service) -> bool {
    service.metadata.deletion_timestamp.is_none()
        && service
            .spec
            .as_ref()
            .is_some_and(|s| s.type_.as_deref() == Some("LoadBalancer") && s.load_balancer_class.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(name: &str, type_: &str, wish: Option<&str>, has: Option<&str>) -> Arc<Service> {
        let ingress: Vec<_> = has.iter().map(|ip| json!({"ip": ip})).collect();
        let object = json!({
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"type": type_, "loadBalancerIP": wish},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn pool() -> Vec<Ipv4Addr> {
        vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)]
    }

    fn given(plan: &Plan<'_>) -> Vec<(String, String)> {
        plan.addresses.iter().map(|(s, a)| (s.name_any(), a.to_string())).collect()
    }

    #[test]
    fn what_is_given_stays_and_the_rest_gets_what_is_free() {
        let services = [
            service("new", "LoadBalancer", None, None),
            service("old", "LoadBalancer", None, Some("10.0.0.1")),
            service("late", "LoadBalancer", None, None),
            service("cluster", "ClusterIP", None, None),
        ];
        let plan = allocate(&services, &pool());
        let expected = [("old", "10.0.0.1"), ("late", "10.0.0.2")];
        assert_eq!(given(&plan), expected.map(|(n, a)| (n.to_owned(), a.to_owned())));
        assert_eq!(plan.exhausted.as_deref(), Some("shop/new"));
    }

    #[test]
    fn two_services_never_share_an_address() {
        let services = [
            service("one", "LoadBalancer", None, Some("10.0.0.2")),
            service("other", "LoadBalancer", None, Some("10.0.0.2")),
        ];
        let addresses: BTreeSet<_> =
            given(&allocate(&services, &pool())).into_iter().map(|(_, a)| a).collect();
        assert_eq!(addresses.len(), 2);
    }

    #[test]
    fn wishes_are_met_and_other_types_freed() {
        let services = [
            service("wish", "LoadBalancer", Some("10.0.0.2"), None),
            service("was", "ClusterIP", None, Some("10.0.0.2")),
        ];
        let plan = allocate(&services, &pool());
        assert_eq!(given(&plan), [("wish".to_owned(), "10.0.0.2".to_owned())]);
        assert_eq!(plan.freed.len(), 1);
    }
}
