//! What a pod is a replica of.

/// A CronJob's Jobs end in the minute that they were made for, in minutes since 1970.
const MINUTE_DIGITS: usize = 8;

/// The name of the Deployment, StatefulSet, DaemonSet, Job, CronJob that made a pod; its own name where nothing did. By what its name was made
/// from, which nobody can change: a listener depends on it, and another owner must not close connections. `generate_name` is
/// `metadata.generateName`, `hash` the label `pod-template-hash`, `job` the label `batch.kubernetes.io/job-name`.
pub fn workload(name: &str, generate_name: Option<&str>, hash: Option<&str>, job: Option<&str>) -> String {
    let Some(made_from) = generate_name else { return name.to_owned() };
    let made_from = made_from.trim_end_matches('-');
    let of_job = job.filter(|job| made_from.starts_with(job));
    let without_hash = hash.and_then(|hash| made_from.strip_suffix(hash)?.strip_suffix('-'));
    let found = match (of_job, without_hash) {
        (Some(job), _) => without_minute(job),
        (None, Some(deployment)) => deployment,
        (None, None) => made_from,
    };
    if found.is_empty() { name.to_owned() } else { found.to_owned() }
}

fn without_minute(job: &str) -> &str {
    match job.rsplit_once('-') {
        Some((cron_job, minute))
            if minute.len() >= MINUTE_DIGITS && minute.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            cron_job
        }
        _ => job,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_have_one_name_whatever_made_them() {
        let cases = [
            ("front-5f6d8-x2x1p", Some("front-5f6d8-"), Some("5f6d8"), None, "front"),
            ("a.b-5f6d8-x2x1p", Some("a.b-5f6d8-"), Some("5f6d8"), None, "a.b"),
            ("set-5f6d8-x2x1p", Some("set-5f6d8-"), None, None, "set-5f6d8"),
            ("db-0", Some("db-"), None, None, "db"),
            ("logs-x2x1p", Some("logs-"), None, None, "logs"),
            ("load-x2x1p", Some("load-"), None, Some("load"), "load"),
            ("load-0-x2x1p", Some("load-0-"), None, Some("load"), "load"),
            ("backup-29384756-x2x1p", Some("backup-29384756-"), None, Some("backup-29384756"), "backup"),
            ("load-2024-x2x1p", Some("load-2024-"), None, Some("load-2024"), "load-2024"),
            ("by-hand", None, Some("hand"), None, "by-hand"),
            ("x-1", Some("-"), None, None, "x-1"),
            ("front-x2x1p", Some("front-"), Some("other"), Some("elsewhere"), "front"),
        ];
        for (name, made_from, hash, job, expected) in cases {
            assert_eq!(workload(name, made_from, hash, job), expected, "{name}");
        }
    }
}
