//! Maps of protos have no order, and two encodings of the same map can be two texts. But equal content has to have equal bytes: by them replicas
//! and proxies tell what is new. So a map of more than one key is put together here, in the order of the keys.

use std::collections::BTreeMap;

use envoy_types::pb::google::protobuf::{Struct, value};
use prost::encoding::{WireType, encode_key, encode_varint};

/// Tags of every map's entries, of these, and of text in a [`value`].
const ENTRIES: u32 = 1;
const KEY: u32 = 1;
const VALUE: u32 = 2;
const TEXT: u32 = 3;

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
    use envoy_types::pb::google::protobuf::Value;
    use prost::Message;

    use super::*;

    #[test]
    fn the_order_is_always_the_same_and_nothing_is_lost() {
        let text = |text: &str| Value { kind: Some(value::Kind::StringValue(text.to_owned())) };
        let names = ["e", "b", "d", "a", "c"];
        let make = || Struct { fields: names.map(|name| (name.to_owned(), text(name))).into() };
        let first = texts(&make());
        assert_eq!(Struct::decode(first.as_slice()).unwrap(), make());
        for _ in 0..20 {
            assert_eq!(texts(&make()), first);
        }
    }
}
