//! Fields that somebody keeps changing back: mended a few times a minute, then reported instead of fought.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry, jiff::Timestamp};
use serde_json::Value;

use super::compare::{Path, Step};

/// Corrections of one object within [`WINDOW`].
const LIMIT: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Who is named when no field manager owns the field: our own request was changed on its way in.
const ADMISSION: &str = "an admission policy or webhook (no field manager owns the field)";

/// What was corrected lately, by object, and the hash of what was written last.
#[derive(Debug, Default)]
pub struct Contests(Mutex<HashMap<String, Record>>, Mutex<HashMap<String, String>>);

#[derive(Debug, Default)]
struct Record {
    writes: VecDeque<Timestamp>,
    reported: bool,
}

impl Record {
    fn forget(&mut self, now: Timestamp) {
        while self.writes.front().is_some_and(|w| age(*w, now) >= WINDOW) {
            self.writes.pop_front();
        }
    }
}

fn age(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

impl Contests {
    /// Remembers what was written.
    pub fn wrote(&self, object: &str, hash: &str) {
        let mut hashes = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(object.to_owned(), hash.to_owned());
    }

    /// Whether this very content was what this process wrote last.
    pub fn was_written(&self, object: &str, hash: &str) -> bool {
        let hashes = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.get(object).is_some_and(|h| h == hash)
    }

    /// May this object be corrected once more? Counts the correction, or says how long to wait.
    pub fn admit(&self, object: &str, now: Timestamp) -> Result<(), Duration> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.entry(object.to_owned()).or_default();
        record.forget(now);
        match record.writes.front() {
            Some(first) if record.writes.len() >= LIMIT => {
                record.reported = true;
                Err(WINDOW.saturating_sub(age(*first, now)))
            }
            _ => {
                record.writes.push_back(now);
                Ok(())
            }
        }
    }

    /// Whether the object is contested although it looks right now, and for how long it must stay so to be believed.
    pub fn quiet_for(&self, object: &str, now: Timestamp) -> Option<Duration> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get_mut(object)?;
        record.forget(now);
        match record.writes.back() {
            None => {
                records.remove(object);
                None
            }
            Some(last) => record.reported.then(|| WINDOW.saturating_sub(age(*last, now))),
        }
    }
}

/// The field manager, other than `ours`, that owns the field at `path`.
pub fn other_manager(managed: &[ManagedFieldsEntry], path: &Path, ours: &str) -> String {
    managed
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(ours))
        .find(|entry| entry.fields_v1.as_ref().is_some_and(|f| owns(&f.0, &path.0)))
        .and_then(|entry| entry.manager.clone())
        .unwrap_or_else(|| ADMISSION.to_owned())
}

fn owns(fields: &Value, path: &[Step]) -> bool {
    let Some((step, rest)) = path.split_first() else { return true };
    let Some(fields) = fields.as_object() else { return false };
    // A set that ends here owns all below: atomic lists and maps look like this.
    if fields.is_empty() {
        return true;
    }
    match step {
        Step::Field(name) => fields.get(&format!("f:{name}")).is_some_and(|f| owns(f, rest)),
        Step::Entry(key, value) => fields.iter().any(|(id, f)| {
            id.strip_prefix("k:")
                .and_then(|json| serde_json::from_str::<Value>(json).ok())
                .is_some_and(|id| id.get(key) == Some(value))
                && owns(f, rest)
        }),
        Step::Index(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
    use serde_json::json;

    #[test]
    fn at_most_five_corrections_a_minute() {
        let contests = Contests::default();
        let start = Timestamp::UNIX_EPOCH;
        let at = |s: i64| start + k8s_openapi::jiff::SignedDuration::from_secs(s);
        for second in 0..5 {
            assert_eq!(contests.admit("a", at(second)), Ok(()));
        }
        assert_eq!(contests.quiet_for("a", at(5)), None);
        assert_eq!(contests.admit("a", at(5)), Err(Duration::from_secs(55)));
        assert_eq!(contests.admit("b", at(5)), Ok(()));
        assert_eq!(contests.quiet_for("a", at(6)), Some(Duration::from_secs(58)));
        let mut writes = 5;
        for second in 5..600 {
            writes += usize::from(contests.admit("a", at(second)).is_ok());
        }
        assert!(writes <= 50, "{writes} in ten minutes");
        assert_eq!(contests.quiet_for("a", at(2000)), None);
    }

    #[test]
    fn names_the_manager_of_the_field() {
        let entry = |manager: &str, fields: Value| ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        };
        let path = Path(vec![
            Step::Field("spec".into()),
            Step::Field("containers".into()),
            Step::Entry("name", json!("proxy")),
            Step::Field("image".into()),
        ]);
        let image = json!({"f:spec": {"f:containers": {"k:{\"name\":\"proxy\"}": {"f:image": {}}}}});
        let other = json!({"f:spec": {"f:replicas": {}}});
        let managed =
            [entry("ours", image.clone()), entry("scaler", other.clone()), entry("patcher", image.clone())];
        assert_eq!(other_manager(&managed, &path, "ours"), "patcher");
        assert_eq!(other_manager(&managed[..2], &path, "ours"), ADMISSION);
    }
}
