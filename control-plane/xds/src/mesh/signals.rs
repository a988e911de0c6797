//! Golden metrics: what Envoy counts for each request and connection of pods, and how to read it.
//!
//! Envoy's stats access logger counts, in one scope with a limit. Each of its statistics has a single tag, whose value is all labels in a row:
//! so a request costs few of them and few strings, and a name can be read again without knowing where one value ends. The agent reads them
//! ([`parse`]), and makes labels of them.
//!
//! The sender's side tells who calls whom, because it alone knows the Service that was called. The receiver's side tells which identity
//! connects: who calls from elsewhere, a gateway for one, is seen only there.

mod loggers;
mod series;

pub(super) use self::loggers::{
    ENDPOINT, of_connections, of_failures, of_others, of_peers, of_received, of_requests,
};
pub use self::loggers::{MAX_COUNTERS, MAX_HISTOGRAMS, STATISTICS};
pub(super) use self::series::SEPARATOR;
pub use self::series::{
    Destination, Kind, Outcome, Series, Workload, is_of_requests, parse, parse_whole, prefixes,
};

/// A workload as it is written into the filter state of its connections and the names of its endpoints: namespace, name and service account.
/// `identity` is its SPIFFE id.
pub(super) fn workload(identity: &str, name: &str) -> String {
    let (namespace, account) = series::of_identity(identity).unwrap_or_default();
    [namespace, name, account].join(series::SEPARATOR)
}
