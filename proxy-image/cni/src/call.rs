//! What the container runtime wants: a few variables of the environment, and the configuration on standard input.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::Failure;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// A pod gets its network.
    Add,
    /// Which versions are spoken.
    Version,
    /// DEL, CHECK, GC and STATUS: nothing. What the agent knows it finds out by itself, and a pod's end must never wait for us.
    Nothing,
}

/// A call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What is to be done.
    pub command: Command,
    /// Version of the configuration.
    pub version: Option<String>,
    /// Where to ask.
    pub settings: Settings,
    /// What the plugins before us did; it is also our result.
    pub previous: Option<Value>,
    /// Whose network it is; none if it is no pod's.
    pub pod: Option<Pod>,
    /// `CNI_NETNS`.
    pub netns: String,
}

/// Our entry in the node's list; the agent wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// The agent's socket.
    #[serde(default)]
    pub socket: PathBuf,
    /// What it stored, see [`crate::Namespaces`].
    #[serde(default)]
    pub namespaces: PathBuf,
}

/// A pod, as kubelets name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; empty where the container runtime does not tell.
    pub uid: String,
}

#[derive(Deserialize)]
struct Config {
    #[serde(rename = "cniVersion")]
    version: Option<String>,
    #[serde(rename = "prevResult")]
    previous: Option<Value>,
    #[serde(flatten)]
    settings: Settings,
}

impl Call {
    /// Reads a call.
    ///
    /// # Errors
    /// A command that the specification does not know, or a configuration that is not JSON.
    pub fn read(variable: impl Fn(&str) -> Option<String>, config: &[u8]) -> Result<Self, Failure> {
        let command = match variable("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("VERSION") => Command::Version,
            Some("DEL" | "CHECK" | "GC" | "STATUS") => Command::Nothing,
            other => return Err(Failure::decode(format!("CNI_COMMAND is {other:?}"))),
        };
        if command != Command::Add {
            // They succeed whatever else is said.
            let settings = Settings::default();
            return Ok(Self {
                command,
                version: None,
                settings,
                previous: None,
                pod: None,
                netns: String::new(),
            });
        }
        let Config { version, previous, settings } = serde_json::from_slice(config)
            .map_err(|e| Failure::decode(format!("read the configuration: {e}")))?;
        let pod = pod(&variable("CNI_ARGS").unwrap_or_default());
        Ok(Self {
            command,
            version,
            settings,
            previous,
            pod,
            netns: variable("CNI_NETNS").unwrap_or_default(),
        })
    }

    /// The addresses of the previous result, without the length of their prefixes.
    pub fn addresses(&self) -> Vec<String> {
        let all = self.previous.iter().filter_map(|result| result.get("ips")?.as_array()).flatten();
        let addresses = all.filter_map(|ip| ip.get("address")?.as_str());
        addresses.map(|address| address.split('/').next().unwrap_or_default().to_owned()).collect()
    }
}

fn pod(args: &str) -> Option<Pod> {
    let argument = |name: &str| {
        let found = args.split(';').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        found.map(|(_, value)| value.to_owned())
    };
    let (namespace, name) = (argument("K8S_POD_NAMESPACE")?, argument("K8S_POD_NAME")?);
    (!namespace.is_empty() && !name.is_empty()).then(|| Pod {
        namespace,
        name,
        uid: argument("K8S_POD_UID").unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID=u1";

    fn read(command: &str, args: &str, config: &str) -> Result<Call, Failure> {
        let variable = |name: &str| match name {
            "CNI_COMMAND" => Some(command.to_owned()),
            "CNI_ARGS" => Some(args.to_owned()),
            "CNI_NETNS" => Some("/var/run/netns/cni-1".to_owned()),
            _ => None,
        };
        Call::read(variable, config.as_bytes())
    }

    #[test]
    fn an_add_names_pod_namespace_and_addresses() {
        let config = r#"{"cniVersion":"1.0.0","name":"pods","type":"meshwright-cni","socket":"/s","namespaces":"/n",
            "prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.7/24","gateway":"10.0.0.1"},{"address":"fd00::7/64"}]}}"#;
        let call = read("ADD", ARGS, config).unwrap();
        let pod = Pod { namespace: "shop".into(), name: "cart-0".into(), uid: "u1".into() };
        assert_eq!((call.command, call.pod.as_ref()), (Command::Add, Some(&pod)));
        assert_eq!(call.settings, Settings { socket: "/s".into(), namespaces: "/n".into() });
        assert_eq!(call.addresses(), ["10.0.0.7", "fd00::7"]);
        assert_eq!(call.netns, "/var/run/netns/cni-1");
    }

    #[test]
    fn what_is_no_pods_network_has_no_pod() {
        for args in ["", "K8S_POD_NAME=cart-0", "K8S_POD_NAMESPACE=;K8S_POD_NAME=cart-0", "x"] {
            assert_eq!(read("ADD", args, "{}").unwrap().pod, None, "{args}");
        }
        let old = read("ADD", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0", "{}").unwrap();
        assert_eq!(old.pod.unwrap().uid, "");
    }

    #[test]
    fn only_what_it_must_read_can_be_wrong() {
        for command in ["DEL", "CHECK", "GC", "STATUS"] {
            assert_eq!(read(command, "", "not json").unwrap().command, Command::Nothing);
        }
        assert_eq!(read("VERSION", "", "").unwrap().command, Command::Version);
        assert!(read("ADD", ARGS, "not json").is_err());
        assert!(read("SUBTRACT", ARGS, "{}").is_err());
    }
}
