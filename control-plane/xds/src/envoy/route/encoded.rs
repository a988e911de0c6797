//! Virtual hosts in their encoded form. One that did not change is neither translated nor encoded nor hashed again: of thousands, most did
//! not.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::google::protobuf::Any;
use meshwright_core::config::{PortConfig, PortProtocol, VirtualHostConfig};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use sha2::{Digest, Sha256};

use crate::{Resource, TypeUrl};

/// Tag of `virtual_hosts` in RouteConfiguration.
const VIRTUAL_HOSTS: u32 = 2;

/// A virtual host.
#[derive(Debug)]
pub(crate) struct EncodedHost {
    /// Its name.
    pub name: String,
    bytes: Vec<u8>,
    digest: [u8; 32],
}

impl EncodedHost {
    /// Of a virtual host.
    pub(crate) fn new(proto: &VirtualHost) -> Self {
        let bytes = proto.encode_to_vec();
        Self { name: proto.name.clone(), digest: Sha256::digest(&bytes).into(), bytes }
    }
}

/// Depends on the host and on its port: a redirect may name it.
type Key = (usize, u16, PortProtocol);

/// The virtual hosts of a translation, by their addresses. It holds them, so that no address is used again.
#[derive(Debug, Default)]
pub struct EncodedHosts(HashMap<Key, (Arc<VirtualHostConfig>, Arc<EncodedHost>)>);

/// Encodes what `known` does not have; both are in `used` then.
#[derive(Debug)]
pub(in crate::envoy) struct Encoder<'a> {
    pub known: &'a EncodedHosts,
    pub used: EncodedHosts,
}

impl Encoder<'_> {
    pub(super) fn encode(&mut self, host: &Arc<VirtualHostConfig>, port: &PortConfig) -> Arc<EncodedHost> {
        let key = (Arc::as_ptr(host).addr(), port.port, port.protocol);
        let encoded = match self.known.0.get(&key) {
            Some((_, encoded)) => Arc::clone(encoded),
            None => Arc::new(EncodedHost::new(&super::virtual_host(host, port))),
        };
        self.used.0.insert(key, (Arc::clone(host), Arc::clone(&encoded)));
        encoded
    }
}

/// The RouteConfiguration with these hosts. `proto` has everything but them; as the order of fields means nothing, they are put at its end.
pub(crate) fn assemble(name: String, proto: &RouteConfiguration, hosts: &[Arc<EncodedHost>]) -> Resource {
    let length = |host: &Arc<EncodedHost>| {
        host.bytes.len() + encoded_len_varint(u64::try_from(host.bytes.len()).unwrap_or(u64::MAX)) + 1
    };
    let mut value = Vec::with_capacity(proto.encoded_len() + hosts.iter().map(length).sum::<usize>());
    value.extend(proto.encode_to_vec());
    let mut hash = Sha256::new_with_prefix(&value);
    for host in hosts {
        encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, &mut value);
        encode_varint(u64::try_from(host.bytes.len()).unwrap_or(u64::MAX), &mut value);
        value.extend_from_slice(&host.bytes);
        hash.update(host.digest);
    }
    let body = Any { type_url: TypeUrl::Route.as_str().to_owned(), value };
    Resource::with_digest(name, &hash.finalize(), body)
}
