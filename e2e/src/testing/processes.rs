//! The processes of a pod, where the nodes are this machine's.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use rustix::process::Pid;

/// Of the pod's containers that run, or of the one with this name.
///
/// # Errors
/// When /proc cannot be read.
pub fn processes(pod: &Pod, container: Option<&str>) -> Result<Vec<Pid>> {
    let containers: Vec<String> = container_ids(pod, container);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("read /proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        // The id has 64 digits: no other process of this machine has it in the name of its cgroup.
        if containers.iter().any(|id| is_of(&cgroups, id)) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn container_ids(pod: &Pod, container: Option<&str>) -> Vec<String> {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    let wanted = statuses.iter().filter(|s| container.is_none_or(|name| s.name == name));
    let running = wanted.filter(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
    let ids =
        running.filter_map(|s| s.container_id.as_deref()?.split_once("://").map(|(_, id)| id.to_owned()));
    ids.filter(|id| id.len() >= 32).collect()
}

/// Whether one of the lines of `/proc/<pid>/cgroup` is this container's.
fn is_of(cgroups: &str, id: &str) -> bool {
    cgroups.lines().any(|line| line.rsplit('/').next() == Some(id))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_process_belongs_to_the_container_that_its_cgroup_is_named_after() {
        let v1 =
            "9:pids:/m/n1/kubepods/burstable/podx/0123abcd\n2:cpu:/m/n1/kubepods/burstable/podx/0123abcd\n";
        assert!(is_of(v1, "0123abcd"));
        assert!(is_of("0::/m/n1/kubepods/podx/0123abcd\n", "0123abcd"));
        assert!(!is_of("0::/m/n1/kubepods/podx/0123abcdef\n", "0123abcd"));
        assert!(!is_of("", "0123abcd"));
    }

    #[test]
    fn one_container_of_two_can_be_meant() {
        let container = |name: &str, digit: &str, state: &str| {
            json!({"name": name, "containerID": format!("containerd://{}", digit.repeat(64)),
            "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {state: {}}})
        };
        let running = [container("agent", "a", "running"), container("envoy", "b", "running")];
        let pod = |statuses: &[_]| -> Pod {
            from_value(json!({"metadata": {}, "status": {"containerStatuses": statuses}})).unwrap()
        };
        assert_eq!(container_ids(&pod(&running), None).len(), 2);
        assert_eq!(container_ids(&pod(&running), Some("envoy")), ["b".repeat(64)]);
        assert!(container_ids(&pod(&[container("envoy", "b", "waiting")]), None).is_empty());
    }
}
