//! What the container runtime reads on standard output.

use serde_json::json;

/// Versions of the specification that this plugin speaks. It hands on what it gets, so it has no say in results; it needs a previous result,
/// which there is since 0.3.0.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Why a call failed. The kubelet makes an event of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    code: u32,
    message: String,
    version: Option<String>,
}

// Codes of the specification. From 100 on they are the plugin's own.
const IO: u32 = 5;
const DECODE: u32 = 6;
const CONFIG: u32 = 7;
const TRY_LATER: u32 = 11;

impl Failure {
    /// Something could not be read.
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        Self::new(IO, format!("{what}: {error}"))
    }

    /// The configuration or the environment makes no sense.
    pub fn decode(message: impl Into<String>) -> Self {
        Self::new(DECODE, message)
    }

    /// The plugin is used in a way that cannot work.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(CONFIG, message)
    }

    /// Not now: the kubelet tries again.
    pub fn try_later(message: impl Into<String>) -> Self {
        Self::new(TRY_LATER, message)
    }

    fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), version: None }
    }

    /// For a configuration of this version; without one the runtime takes what it knows.
    #[must_use]
    pub fn in_version(self, version: Option<String>) -> Self {
        Self { version, ..self }
    }

    /// As the specification wants it.
    pub fn to_json(&self) -> String {
        let version = self.version.as_deref().unwrap_or("1.0.0");
        json!({ "cniVersion": version, "code": self.code, "msg": self.message }).to_string()
    }
}

/// The answer to VERSION.
pub(crate) fn versions() -> String {
    json!({ "cniVersion": VERSIONS[VERSIONS.len() - 1], "supportedVersions": VERSIONS }).to_string()
}
