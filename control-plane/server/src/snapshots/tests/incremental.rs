//! A translator that has seen much says the same as one that has just begun, clusters that linger apart.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use meshwright_core::mesh::{Mesh, Peer};
use meshwright_proto::inspection::RenderedGateway;

use super::*;
use crate::inspection::render;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Clone)]
struct Step {
    /// Which clusters are named, and whether they speak HTTP/2.
    named: Vec<Option<bool>>,
    /// The last octet of each cluster's endpoint.
    addresses: Vec<u8>,
    /// As whom each address is in the mesh.
    in_mesh: Vec<Option<bool>>,
    /// Whether the index knows of clusters that linger.
    keeps: bool,
    gone: bool,
    port: u16,
    expires: bool,
    refused: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let named = vec(option::of(any::<bool>()), 3);
    let flags = (any::<bool>(), proptest::bool::weighted(0.1), 80_u16..82, any::<bool>(), any::<bool>());
    let endpoints = (vec(0_u8..2, 3), vec(option::of(any::<bool>()), 2));
    (named, endpoints, flags).prop_map(
        |(named, (addresses, in_mesh), (keeps, gone, port, expires, refused))| Step {
            named,
            addresses,
            in_mesh,
            keeps,
            gone,
            port,
            expires,
            refused,
        },
    )
}

/// What the index would publish; what did not change has the same address.
fn next(last: &Output, step: &Step, lingering: BTreeSet<ClusterRef>) -> Output {
    let clusters = NAMES.iter().zip(&step.named).filter_map(|(name, is_h2c)| {
        let protocol = if (*is_h2c)? { BackendProtocol::H2c } else { BackendProtocol::Http1 };
        Some(ClusterRef { protocol, ..cluster(name) })
    });
    let clusters: Vec<_> = clusters.collect();
    let new = gateway(step.port, &clusters);
    let known = last.gateways.get(&edge()).filter(|known| known.config == new.config);
    let edges = [(edge(), known.cloned().unwrap_or_else(|| Arc::new(new)))];
    let kept = if step.keeps { lingering } else { BTreeSet::new() };
    let found = clusters.iter().chain(&kept).map(|cluster| {
        let index = NAMES.iter().position(|name| *name == cluster.service.name).unwrap();
        let new = endpoints(&format!("10.0.0.{}", step.addresses[index]));
        match last.endpoints.get_key_value(cluster) {
            Some((cluster, known)) if *known == new => (cluster.clone(), known.clone()),
            _ => (Arc::new(cluster.clone()), new),
        }
    });
    let endpoints = found.collect();
    let peers = step.in_mesh.iter().enumerate().filter_map(|(last, is_other)| {
        let identity =
            if (*is_other)? { "spiffe://td/ns/shop/sa/other" } else { "spiffe://td/ns/shop/sa/cart" };
        Some((
            format!("10.0.0.{last}"),
            Peer { uid: "".into(), identity: identity.into(), ..Peer::default() },
        ))
    });
    let peers: BTreeMap<_, _> = peers.collect();
    let mesh = match *last.mesh.peers == peers {
        true => last.mesh.clone(),
        false => Arc::new(Mesh { peers: Arc::new(peers), ..Mesh::default() }),
    };
    Output { gateways: edges.into_iter().filter(|_| !step.gone).collect(), endpoints, kept, mesh }
}

fn translator() -> (Translator, Nacks) {
    let registry = Registry::default();
    let nacks = Nacks::new(registry.clone());
    let metrics = Metrics::register(&mut prometheus_client::registry::Registry::default());
    (Translator::new(registry, nacks.clone(), metrics), nacks)
}

/// Name and version of everything of this type.
fn all(translator: &Translator, kind: TypeUrl) -> BTreeMap<String, String> {
    let made = translator.made.get(&edge());
    let resources = made.and_then(|made| made.snapshot().resources(kind));
    let resources = resources.into_iter().flat_map(|all| all.iter());
    resources.map(|resource| (resource.name().to_string(), resource.version().to_string())).collect()
}

fn rendered(translator: &Translator) -> Vec<RenderedGateway> {
    let made = translator.made.iter().filter_map(|(key, made)| {
        Some((key.clone(), made.snapshot().clone(), translator.output.gateways.get(key)?.config.clone()))
    });
    render(&made.collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn what_was_before_changes_nothing_but_what_lingers(steps in vec(step(), 1..10)) {
        let (mut translator, nacks) = translator();
        let (mut output, mut later) = (Output::default(), Instant::now());
        for step in steps {
            output = next(&output, &step, translator.lingering());
            let resources = vec![("shop/edge/80".into(), "1".into())];
            let (kind, message) = (TypeUrl::Route, String::new());
            nacks.on_event(1, &edge(), &match step.refused {
                true => Event::Nack { kind, resources, message },
                false => Event::Ack { kind, resources: vec![("shop/edge/80".into(), "2".into())], removed: Vec::new() },
            });
            translator.publish(Arc::new(output.clone()));
            if step.expires {
                later += LINGER * 2;
                translator.expire(later);
                prop_assert!(step.refused || translator.lingering().is_empty());
            }
            let (mut fresh, _) = self::translator();
            fresh.publish(Arc::new(output.clone()));
            for kind in [TypeUrl::Listener, TypeUrl::Route, TypeUrl::Secret] {
                prop_assert_eq!(all(&translator, kind), all(&fresh, kind));
            }
            prop_assert_eq!(rendered(&translator), rendered(&fresh), "nor what is compared between processes");
            let lingering = translator.lingering();
            for kind in [TypeUrl::Cluster, TypeUrl::Endpoint] {
                let (mut found, mut expected) = (all(&translator, kind), all(&fresh, kind));
                for cluster in &lingering {
                    let found_here = output.endpoints.get(cluster).cloned();
                    let backends = found_here.map(|found| Backends::new(found, &output.mesh.peers));
                    let name = meshwright_xds::envoy::cluster::name(cluster);
                    // What the index does not keep stays what it was.
                    let same = |known: &str| known.split('?').next() == Some(name.as_str());
                    prop_assert!(!expected.keys().any(|known| same(known)));
                    let names: Vec<_> = found.keys().filter(|known| same(known)).cloned().collect();
                    prop_assert_eq!(names.len(), 1, "{} lingers", name);
                    for lingers in names {
                        let version = found.remove(&lingers);
                        if let (TypeUrl::Endpoint, Some(backends)) = (kind, &backends) {
                            let resource = meshwright_xds::envoy::endpoint::resource(cluster, backends);
                            expected.insert(resource.name().to_string(), resource.version().to_string());
                            found.extend(version.map(|version| (lingers, version)));
                        }
                    }
                }
                prop_assert_eq!(found, expected);
            }
        }
    }
}
