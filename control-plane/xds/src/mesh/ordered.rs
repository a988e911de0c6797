//! Maps of protos have no order, and two encodings of the same map can be two texts. But equal content has to have equal bytes: by them replicas
//! and proxies tell what is new. So messages with maps of more than one key are put together here, in the order of the keys.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};
use envoy_types::pb::google::protobuf::{Any, Struct, value};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name};

/// Tags of `envoy.config.endpoint.v3`: the localities of an assignment, the endpoints of a locality, the metadata of an endpoint.
const ENDPOINTS: u32 = 2;
const LB_ENDPOINTS: u32 = 2;
const METADATA: u32 = 3;
/// Tags of every map, of its entries, and of text in a [`value`].
const ENTRIES: u32 = 1;
const KEY: u32 = 1;
const VALUE: u32 = 2;
const TEXT: u32 = 3;

/// An assignment whose endpoints have metadata of strings.
pub(super) fn assignment(assignment: ClusterLoadAssignment) -> Any {
    let ClusterLoadAssignment { endpoints, .. } = assignment;
    let mut bytes = ClusterLoadAssignment { endpoints: Vec::new(), ..assignment }.encode_to_vec();
    endpoints.into_iter().for_each(|one| bytes.extend(field(ENDPOINTS, &locality(one))));
    Any { type_url: ClusterLoadAssignment::type_url(), value: bytes }
}

fn locality(locality: LocalityLbEndpoints) -> Vec<u8> {
    let LocalityLbEndpoints { lb_endpoints, .. } = locality;
    let mut bytes = LocalityLbEndpoints { lb_endpoints: Vec::new(), ..locality }.encode_to_vec();
    lb_endpoints.into_iter().for_each(|one| bytes.extend(field(LB_ENDPOINTS, &endpoint(one))));
    bytes
}

fn endpoint(endpoint: LbEndpoint) -> Vec<u8> {
    let LbEndpoint { metadata, .. } = endpoint;
    let mut bytes = LbEndpoint { metadata: None, ..endpoint }.encode_to_vec();
    if let Some(metadata) = metadata {
        let all: BTreeMap<_, _> = metadata.filter_metadata.iter().collect();
        let all = all.into_iter().flat_map(|(name, fields)| entry(name, &texts(fields)));
        bytes.extend(field(METADATA, &all.collect::<Vec<_>>()));
    }
    bytes
}

/// A Struct of strings; whatever else is in it is left out.
pub(super) fn texts(of: &Struct) -> Vec<u8> {
    let all: BTreeMap<_, _> = of.fields.iter().collect();
    let texts = all.into_iter().filter_map(|(key, value)| match &value.kind {
        Some(value::Kind::StringValue(text)) => Some(entry(key, &field(TEXT, text.as_bytes()))),
        _ => None,
    });
    texts.flatten().collect()
}

/// A field that is text, bytes or a message.
pub(super) fn field(tag: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(body.len() + 8);
    encode_key(tag, WireType::LengthDelimited, &mut bytes);
    encode_varint(u64::try_from(body.len()).unwrap_or(u64::MAX), &mut bytes);
    bytes.extend_from_slice(body);
    bytes
}

fn entry(key: &str, value: &[u8]) -> Vec<u8> {
    field(ENTRIES, &[field(KEY, key.as_bytes()), field(VALUE, value)].concat())
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{Locality, Metadata};
    use envoy_types::pb::google::protobuf::Value;

    use super::*;

    #[test]
    fn the_order_is_always_the_same_and_nothing_is_lost() {
        let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
        let make = || {
            let names = ["e", "b", "d", "a", "c"];
            let fields = Struct { fields: names.map(|name| (name.to_owned(), text(name))).into() };
            let metadata = Metadata {
                filter_metadata: names.map(|name| (name.to_owned(), fields.clone())).into(),
                ..Metadata::default()
            };
            let endpoint = LbEndpoint { health_status: 1, metadata: Some(metadata), ..LbEndpoint::default() };
            ClusterLoadAssignment {
                cluster_name: "x".to_owned(),
                endpoints: vec![LocalityLbEndpoints {
                    locality: Some(Locality { zone: "z".to_owned(), ..Locality::default() }),
                    lb_endpoints: vec![endpoint.clone(), endpoint],
                    priority: 2,
                    ..LocalityLbEndpoints::default()
                }],
                ..ClusterLoadAssignment::default()
            }
        };
        let first = assignment(make());
        assert_eq!(ClusterLoadAssignment::decode(first.value.as_slice()).unwrap(), make());
        for _ in 0..20 {
            assert_eq!(assignment(make()), first);
        }
    }
}
