//! Fields that somebody keeps changing back: mended a few times at once, then once a minute and reported, not fought.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry, jiff::Timestamp};
use serde_json::Value;

use super::{
    Problem,
    compare::{Path, Step},
};

/// So many corrections of one object within [`WINDOW`] make it contested.
const LIMIT: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);
/// A contested object is corrected as often.
const INTERVAL: Duration = Duration::from_secs(60);
/// So long it must need no correction to be believed; long enough that one which is changed back once a minute does not
/// look right in between.
const QUIET: Duration = Duration::from_secs(120);
/// Who is named when no field manager owns the field: our own request was changed on its way in.
const ADMISSION: &str = "an admission policy or webhook (no field manager owns the field)";

/// What was corrected lately, by object, and the hash of what was written last.
#[derive(Debug, Default)]
pub struct Contests(Mutex<HashMap<String, Record>>, Mutex<HashMap<String, String>>);

#[derive(Debug, Default)]
struct Record {
    corrections: VecDeque<Timestamp>,
    problem: Option<Problem>,
}

impl Record {
    fn forget(&mut self, now: Timestamp) {
        while self.corrections.front().is_some_and(|w| age(*w, now) >= WINDOW) {
            self.corrections.pop_front();
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

    /// May this object be corrected once more, `problem` being what is wrong with it? Counts the correction, or says how
    /// long to wait.
    pub fn admit(&self, object: &str, problem: &Problem, now: Timestamp) -> Result<(), Duration> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.entry(object.to_owned()).or_default();
        record.forget(now);
        if record.corrections.len() >= LIMIT {
            record.problem = Some(problem.clone());
            let since = record.corrections.back().map_or(INTERVAL, |last| age(*last, now));
            if let Some(wait) = INTERVAL.checked_sub(since).filter(|wait| !wait.is_zero()) {
                return Err(wait);
            }
        }
        record.corrections.push_back(now);
        Ok(())
    }

    /// What is wrong with an object that may look right now, and for how long it must stay so to be believed.
    pub fn standing(&self, object: &str, now: Timestamp) -> Option<(Problem, Duration)> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get_mut(object)?;
        record.forget(now);
        let Some(last) = record.corrections.back() else {
            records.remove(object);
            return None;
        };
        let problem = record.problem.clone()?;
        match QUIET.checked_sub(age(*last, now)).filter(|left| !left.is_zero()) {
            Some(left) => Some((problem, left)),
            None => {
                records.remove(object);
                None
            }
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

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + k8s_openapi::jiff::SignedDuration::from_secs(seconds)
    }

    fn wrong() -> Problem {
        Problem::Contested { object: "a".into(), field: "spec.x".into(), manager: "rogue".into() }
    }

    /// When corrections were made of an object that is changed back `every` seconds, and when it was not reported after
    /// it had been once.
    fn fight(every: i64, until: i64) -> (Vec<i64>, Vec<i64>) {
        let contests = Contests::default();
        let (mut made, mut silent, mut reported, mut wait) = (Vec::new(), Vec::new(), false, 0);
        let mut right_until = 0;
        for second in 0..until {
            if second >= right_until && second >= wait {
                match contests.admit("a", &wrong(), at(second)) {
                    Ok(()) => {
                        made.push(second);
                        right_until = second + every;
                    }
                    Err(left) => wait = second + i64::try_from(left.as_secs()).unwrap(),
                }
            }
            match contests.standing("a", at(second)) {
                Some(_) => reported = true,
                None if reported => silent.push(second),
                None => {}
            }
        }
        assert!(reported, "every {every} s was never reported");
        (made, silent)
    }

    #[test]
    fn whoever_changes_back_is_reported_as_long_as_it_goes_on_and_corrected_at_most_once_a_minute() {
        for every in [1, 5, 15, 40, 70, 110] {
            let (made, silent) = fight(every, 3600);
            assert_eq!(silent, Vec::<i64>::new(), "every {every} s");
            let late: Vec<_> = made.iter().skip(LIMIT).collect();
            assert!(late.windows(2).all(|w| w[1] - w[0] >= 60), "every {every} s: {made:?}");
            assert!(late.len() >= 25, "it is still mended: {made:?}");
        }
    }

    #[test]
    fn one_that_stays_right_is_believed_and_others_are_not_held_back() {
        let contests = Contests::default();
        for second in 0..5 {
            assert_eq!(contests.admit("a", &wrong(), at(second)), Ok(()));
            assert_eq!(contests.standing("a", at(second)), None, "five corrections are no contest");
        }
        assert_eq!(contests.admit("a", &wrong(), at(5)), Err(Duration::from_secs(59)));
        assert_eq!(contests.admit("b", &wrong(), at(5)), Ok(()));
        assert_eq!(contests.standing("a", at(6)), Some((wrong(), Duration::from_secs(118))));
        assert_eq!(contests.standing("a", at(124)), None);
        assert_eq!(contests.admit("a", &wrong(), at(125)), Ok(()));
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
