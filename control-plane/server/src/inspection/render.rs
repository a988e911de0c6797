//! What each Gateway's proxies are given, or would be given, as a comparison needs it.

use meshwright_proto::inspection::{Part, RenderedGateway, part};
use meshwright_xds::envoy::{self, PartKind};

use crate::ads::Published;

/// One for each Gateway; equal for equal input, whatever came before it and in whatever process.
pub fn render(published: &[Published]) -> Vec<RenderedGateway> {
    let gateway = |(key, snapshot, config): &Published| RenderedGateway {
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        parts: envoy::parts(snapshot, config).into_iter().map(part).collect(),
    };
    published.iter().map(gateway).collect()
}

fn part(part: envoy::Part) -> Part {
    let kind = match part.kind {
        PartKind::Listener => part::Kind::Listener,
        PartKind::Route => part::Kind::Route,
        PartKind::Cluster => part::Kind::Cluster,
    };
    Part { kind: kind.into(), name: part.name, hash: part.hash }
}
