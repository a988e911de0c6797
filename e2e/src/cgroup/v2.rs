//! Controllers of cgroup v2: a cgroup has those that its parent hands down.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What kubelet asks its root for, where the machine has it: else it does not start.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "hugetlb", "pids"];

/// Hands down to the children of `dir` what pods need. No process may be in `dir` itself, unless it is the root.
pub fn hand_down(dir: &Path) -> Result<()> {
    let file = dir.join("cgroup.subtree_control");
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let has = read(&dir.join("cgroup.controllers"))?;
    for controller in missing(&has, &read(&file)?) {
        fs::write(&file, format!("+{controller}")).with_context(|| {
            format!("enabling the cgroup controller {controller} in {}: pods need it", file.display())
        })?;
    }
    Ok(())
}

/// What the cgroup `has` and does not hand down yet.
fn missing(has: &str, hands_down: &str) -> Vec<&'static str> {
    let in_list = |list: &str, controller| list.split_whitespace().any(|word| word == controller);
    CONTROLLERS.into_iter().filter(|c| in_list(has, *c) && !in_list(hands_down, *c)).collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn what_the_machine_has_is_handed_down_and_nothing_else() {
        let debian = "cpuset cpu io memory hugetlb pids rdma misc\n";
        assert_eq!(missing(debian, "\n"), ["cpu", "cpuset", "memory", "hugetlb", "pids"]);
        // What systemd hands down by itself.
        assert_eq!(missing(debian, "cpu memory pids\n"), ["cpuset", "hugetlb"]);
        assert!(missing(debian, debian).is_empty());
        assert_eq!(missing("cpuset cpu memory pids", "cpuset"), ["cpu", "memory", "pids"]);
    }
}
