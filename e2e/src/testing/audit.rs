//! The API server's audit log: what operator and control plane wrote.

use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Env;

/// Renewals and reviews are no changes: they go on for as long as anything runs.
const EXCEPTED: [&str; 3] = ["leases", "tokenreviews", "subjectaccessreviews"];
const READS: [&str; 3] = ["get", "list", "watch"];
/// Service accounts of the operator, and of the control plane in the mesh's namespace.
const OURS: [&str; 2] = ["system:serviceaccount:meshwright-system:", "system:serviceaccount:mesh:"];

/// One write by operator or control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Who, without `system:serviceaccount:`.
    pub user: String,
    pub verb: String,
    pub resource: String,
    /// Empty, or such as `status`.
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// What the API server answered.
    pub code: u64,
}

/// Reads on from where it was.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    offset: u64,
}

impl Audit {
    /// From now on.
    ///
    /// # Errors
    /// When there is no audit log, or it is not ours to read.
    pub fn from_now(env: &Env) -> Result<Self> {
        let path = env.cluster.audit_log_path()?;
        let metadata = path.metadata().with_context(|| format!("look at {}", path.display()))?;
        Ok(Self { path, offset: metadata.len() })
    }

    /// The writes since the last call.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn writes(&mut self) -> Result<Vec<Write>> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = std::fs::File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().with_context(|| format!("read {}", self.path.display()))?;
        // The last line may be half written: it is read the next time.
        let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        self.offset += whole as u64;
        Ok(bytes[..whole].split(|b| *b == b'\n').filter_map(write_in).collect())
    }
}

fn write_in(line: &[u8]) -> Option<Write> {
    let event: Value = serde_json::from_slice(line).ok()?;
    let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (user, verb, resource) = (text("/user/username"), text("/verb"), text("/objectRef/resource"));
    let ours = OURS.iter().any(|prefix| user.starts_with(prefix));
    let counts = event["stage"] == "ResponseComplete"
        && !READS.contains(&verb.as_str())
        && !EXCEPTED.contains(&resource.as_str());
    (ours && counts).then(|| Write {
        user: user.trim_start_matches("system:serviceaccount:").to_owned(),
        verb,
        resource,
        subresource: text("/objectRef/subresource"),
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code: event.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn line(user: &str, verb: &str, resource: &str) -> String {
        format!(
            r#"{{"stage":"ResponseComplete","verb":"{verb}","user":{{"username":"{user}"}},"objectRef":{{"resource":"{resource}","namespace":"n","name":"x"}},"responseStatus":{{"code":200}}}}"#
        )
    }

    #[test]
    fn only_changes_by_our_service_accounts_count() {
        let operator = "system:serviceaccount:meshwright-system:meshwright-operator";
        assert!(write_in(line(operator, "patch", "services").as_bytes()).is_some());
        assert!(
            write_in(line("system:serviceaccount:mesh:mesh-1", "update", "httproutes").as_bytes()).is_some()
        );
        assert_eq!(write_in(line(operator, "watch", "services").as_bytes()), None);
        assert_eq!(write_in(line(operator, "update", "leases").as_bytes()), None);
        assert_eq!(write_in(line("system:serviceaccount:bookinfo:x", "patch", "services").as_bytes()), None);
    }

    #[test]
    fn a_half_written_line_is_read_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let text = line("system:serviceaccount:mesh:a", "patch", "services");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut audit = Audit { path, offset: 0 };
        write!(file, "{text}\n{}", &text[..20]).unwrap();
        assert_eq!(audit.writes().unwrap().len(), 1);
        writeln!(file, "{}", &text[20..]).unwrap();
        assert_eq!(audit.writes().unwrap().len(), 1);
        assert_eq!(audit.writes().unwrap().len(), 0);
    }
}
