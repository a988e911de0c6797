//! Kubeconfigs with everything inside, so that they can be copied and used from any folder.

use std::path::Path;

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::layout::Layout;
use crate::pki::Pair;

/// Writes a kubeconfig that only its owner can read.
pub fn write(path: &Path, layout: &Layout, ca: &Pair, client: &Pair) -> Result<()> {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "meshwright", "cluster": {
            "server": layout.api_url(),
            "certificate-authority-data": STANDARD.encode(&ca.certificate),
        }}],
        "users": [{"name": "user", "user": {
            "client-certificate-data": STANDARD.encode(&client.certificate),
            "client-key-data": STANDARD.encode(&client.key),
        }}],
        "contexts": [{"name": "meshwright", "context": {"cluster": "meshwright", "user": "user"}}],
        "current-context": "meshwright",
    });
    // JSON is YAML.
    let text = serde_json::to_string_pretty(&config).context("writing a kubeconfig")?;
    crate::pki::write_private(path, text.as_bytes())
}
