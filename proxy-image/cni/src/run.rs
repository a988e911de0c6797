//! One call from begin to end.

use std::time::Duration;

use crate::{Call, Command, Failure, Namespaces, Request, ask, decide, output};

/// The agent gives up before, and says why; a kubelet gives a sandbox minutes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does what the runtime wants, and returns what goes to standard output.
///
/// # Errors
/// What the runtime is told instead: a pod of the mesh that cannot start yet, or a call that makes no sense.
pub fn run(variable: impl Fn(&str) -> Option<String>, config: &[u8]) -> Result<String, Failure> {
    let call = Call::read(variable, config)?;
    match call.command {
        Command::Version => Ok(output::versions()),
        Command::Nothing => Ok(String::new()),
        Command::Add => add(&call).map_err(|failure| failure.in_version(call.version.clone())),
    }
}

fn add(call: &Call) -> Result<String, Failure> {
    let Some(previous) = &call.previous else {
        return Err(Failure::config(format!("{} must come after another plugin in a list", crate::PLUGIN)));
    };
    if let Some(pod) = &call.pod {
        let request = Request {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            netns: call.netns.clone(),
            addresses: call.addresses(),
        };
        let reply = ask(&call.settings.socket, &request, PATIENCE);
        decide(pod, &reply, || Namespaces::read(&call.settings.namespaces)).into_result()?;
    }
    Ok(previous.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn call(command: &str, namespace: &str, config: &Value) -> Result<String, Failure> {
        let variable = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_ARGS" => Some(format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=cart-0")),
            "CNI_NETNS" => Some("/run/netns/cni-1".to_owned()),
            _ => None,
        };
        run(variable, config.to_string().as_bytes())
    }

    #[test]
    fn a_result_is_handed_on_as_it_came_and_a_pod_of_the_mesh_waits_while_nobody_answers() {
        let folder = tempfile::tempdir().unwrap();
        let stored = folder.path().join("namespaces");
        std::fs::write(&stored, r#"{"namespaces":{"shop":true}}"#).unwrap();
        let previous = json!({ "cniVersion": "0.4.0", "ips": [{ "version": "4", "address": "10.0.0.7/24" }], "dns": {} });
        let config = json!({
            "cniVersion": "0.4.0", "name": "pods", "type": "meshwright-cni", "socket": folder.path().join("s"),
            "namespaces": stored, "prevResult": previous,
        });
        let output = call("ADD", "plain", &config).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), previous);

        let failure: Value =
            serde_json::from_str(&call("ADD", "shop", &config).unwrap_err().to_json()).unwrap();
        assert_eq!((&failure["cniVersion"], &failure["code"]), (&json!("0.4.0"), &json!(11)));
        assert!(failure["msg"].as_str().unwrap().contains("shop/cart-0"), "{failure}");
        assert_eq!(call("DEL", "shop", &config).unwrap(), "");

        let alone = json!({ "cniVersion": "1.0.0", "name": "pods", "type": "meshwright-cni" });
        assert!(call("ADD", "shop", &alone).unwrap_err().to_json().contains("after another plugin"));
        let versions: Value = serde_json::from_str(&call("VERSION", "", &json!({})).unwrap()).unwrap();
        assert_eq!(versions["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    }
}
