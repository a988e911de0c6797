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

/// Ports that are never HTTP: to wait for the client's first bytes there would hold up what the server begins, or gain nothing.
pub const OPAQUE_PORTS: [u16; 37] = [
    21,    // FTP
    22,    // SSH
    25,    // SMTP
    53,    // DNS
    110,   // POP3
    119,   // NNTP
    143,   // IMAP
    389,   // LDAP
    465,   // SMTP over TLS
    587,   // SMTP, submission
    636,   // LDAP over TLS
    873,   // rsync
    993,   // IMAP over TLS
    995,   // POP3 over TLS
    1433,  // SQL Server
    1521,  // Oracle
    1883,  // MQTT
    2181,  // ZooKeeper
    2525,  // SMTP
    3306,  // MySQL
    4190,  // ManageSieve
    4222,  // NATS
    4444,  // Galera
    4567,  // Galera
    4568,  // Galera
    5432,  // PostgreSQL
    5671,  // AMQP over TLS
    5672,  // AMQP
    5900,  // VNC
    6379,  // Redis
    8883,  // MQTT over TLS
    9042,  // Cassandra
    9092,  // Kafka
    9300,  // Elasticsearch, between nodes
    11211, // memcached
    27017, // MongoDB
    33060, // MySQL X
];

/// What a word says that stands in `appProtocol` or begins a port's name.
fn declared(word: &str) -> Option<Protocol> {
    match word {
        "http" | "http1" | "http2" | "h2c" | "grpc" | "ws" | "websocket" | "www" => Some(Protocol::Http),
        "https" | "tls" | "ssl" | "wss" | "grpcs" | "tcp" => Some(Protocol::Tcp),
        "mysql" | "mariadb" | "mongo" | "mongodb" | "redis" | "postgres" | "postgresql" | "mssql"
        | "oracle" | "cassandra" | "cql" | "memcached" | "memcache" | "amqp" | "amqps" | "kafka" | "nats"
        | "mqtt" | "smtp" | "smtps" | "imap" | "imaps" | "pop3" | "pop3s" | "ldap" | "ldaps" | "ssh"
        | "sftp" | "ftp" | "dns" | "zookeeper" | "thrift" => Some(Protocol::Tcp),
        _ => None,
    }
}

/// By `appProtocol`, else by the port's name, else by well-known ports where the server speaks first.
pub fn protocol(port: &ServicePort) -> Protocol {
    if let Some(application) = port.app_protocol.as_deref().filter(|application| !application.is_empty()) {
        let application = application.to_ascii_lowercase();
        let word = application.strip_prefix("kubernetes.io/").unwrap_or(&application);
        // A protocol that we do not know is one all the same, and byte by byte every protocol works.
        return declared(first_word(word)).unwrap_or(Protocol::Tcp);
    }
    if let Some(protocol) = declared(first_word(&port.name)) {
        return protocol;
    }
    if OPAQUE_PORTS.contains(&port.port) { Protocol::Tcp } else { Protocol::Detect }
}

fn first_word(name: &str) -> &str {
    name.split('-').next().unwrap_or(name)
}
