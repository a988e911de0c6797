//! Whether a live object already says what we want: every field we set is there with our value. Fields that we do not
//! set belong to others (defaults, the autoscaler, an injected container) and are not looked at.

use std::fmt;

use serde_json::{Map, Value};

/// Lists that the API server merges by a key, so that others may add entries of their own.
/// Lists that are not here are ours as a whole.
const MERGED: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("ports", &["containerPort", "port"]),
    ("imagePullSecrets", &["name"]),
    ("ownerReferences", &["uid"]),
    ("topologySpreadConstraints", &["topologyKey"]),
];

/// Second keys of such lists: TCP and UDP on one port are two entries, a must and a wish for one topology too.
const MORE_KEYS: [&str; 2] = ["protocol", "whenUnsatisfiable"];

/// Maps that the API server replaces as a whole. An entry that somebody adds is a change, also where we set others: one
/// more label in a Service's selector leaves it without pods.
const ATOMIC: [&str; 5] = ["selector", "matchLabels", "podSelector", "labelSelector", "nodeSelector"];

/// Fields whose `false` is not their default: without it they would be true.
const TRUE_BY_DEFAULT: [&str; 2] = ["allowPrivilegeEscalation", "automountServiceAccountToken"];

/// One step of a path into an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A field.
    Field(String),
    /// The entry of a merged list with this key.
    Entry(&'static str, Value),
    /// An entry of another list.
    Index(usize),
}

/// Where two objects differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Path(pub Vec<Step>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if i == 0 => write!(f, "{name}")?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Entry(key, value) => {
                    write!(f, "[{key}={}]", value.as_str().unwrap_or(&value.to_string()))?
                }
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The first field of `desired` that `live` does not have with that value.
pub fn difference(desired: &Value, live: &Value) -> Option<Path> {
    let mut path = Vec::new();
    differs(desired, Some(live), &mut path).then_some(Path(path))
}

// On a difference `path` is left pointing at it.
fn differs(desired: &Value, live: Option<&Value>, path: &mut Vec<Step>) -> bool {
    let Some(live) = live.filter(|l| !l.is_null()) else {
        // The API server drops what is empty.
        return !is_empty(desired) || path.last().is_some_and(|step| is_kept(step, desired));
    };
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => object_differs(desired, live, path),
        (Value::Array(desired), Value::Array(live)) => list_differs(desired, live, path),
        (Value::String(desired), Value::String(live)) => {
            desired != live && !same_quantity(desired, live, path)
        }
        (Value::Number(desired), Value::Number(live)) => desired.as_f64() != live.as_f64(),
        (desired, live) => desired != live && !(is_empty(desired) && is_empty(live)),
    }
}

fn object_differs(desired: &Map<String, Value>, live: &Map<String, Value>, path: &mut Vec<Step>) -> bool {
    for (name, value) in desired {
        path.push(Step::Field(name.clone()));
        if differs(value, live.get(name), path) {
            return true;
        }
        path.pop();
    }
    let atomic = path.iter().any(|s| matches!(s, Step::Field(f) if ATOMIC.contains(&f.as_str())));
    // A label may be empty and still select.
    let says = |value: &Value| value.is_string() || !is_empty(value);
    let added = live.iter().find(|(name, value)| !desired.contains_key(*name) && says(value));
    match added {
        Some((name, _)) if atomic => {
            path.push(Step::Field(name.clone()));
            true
        }
        _ => false,
    }
}

fn is_kept(step: &Step, value: &Value) -> bool {
    value.is_boolean() && matches!(step, Step::Field(f) if TRUE_BY_DEFAULT.contains(&f.as_str()))
}

fn list_differs(desired: &[Value], live: &[Value], path: &mut Vec<Step>) -> bool {
    let Some(key) = merge_key(desired, path) else {
        if desired.len() != live.len() {
            return true;
        }
        for (index, (desired, live)) in desired.iter().zip(live).enumerate() {
            path.push(Step::Index(index));
            if differs(desired, Some(live), path) {
                return true;
            }
            path.pop();
        }
        return false;
    };
    for entry in desired {
        let id = entry.get(key).cloned().unwrap_or_default();
        let found = live
            .iter()
            .find(|l| l.get(key) == Some(&id) && MORE_KEYS.iter().all(|k| l.get(k) == named(entry, l, k)));
        path.push(Step::Entry(key, id));
        if differs(entry, found, path) {
            return true;
        }
        path.pop();
    }
    false
}

// Where we do not name it, any matches.
fn named<'a>(entry: &'a Value, live: &'a Value, key: &str) -> Option<&'a Value> {
    entry.get(key).or_else(|| live.get(key))
}

fn merge_key(list: &[Value], path: &[Step]) -> Option<&'static str> {
    let Some(Step::Field(field)) = path.last() else { return None };
    // The ports of a NetworkPolicy are not merged: an added one would be a hole.
    let in_rule = path.iter().any(|s| matches!(s, Step::Field(f) if f == "ingress" || f == "egress"));
    if in_rule {
        return None;
    }
    let (_, keys) = MERGED.iter().find(|(name, _)| name == field)?;
    keys.iter().copied().find(|key| list.iter().all(|entry| entry.get(key).is_some()))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.iter().all(|(name, value)| {
            is_empty(value) && !(value.is_boolean() && TRUE_BY_DEFAULT.contains(&name.as_str()))
        }),
    }
}

// A user may write 0.5 where the API server answers 500m.
fn same_quantity(desired: &str, live: &str, path: &[Step]) -> bool {
    let amount = path.iter().any(|s| matches!(s, Step::Field(f) if f == "requests" || f == "limits"));
    amount && quantity(desired).is_some_and(|d| Some(d) == quantity(live))
}

/// Amount of a Kubernetes quantity.
fn quantity(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return text.parse().ok(),
    };
    // Rounded, because 0.1 and 100m are not the same binary fraction.
    number.parse::<f64>().ok().map(|n| (n * scale * 1e9).round())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(desired: Value, live: Value) -> Option<String> {
        difference(&desired, &live).map(|p| p.to_string())
    }

    #[test]
    fn fields_of_others_are_not_looked_at() {
        let live = json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [
            {"name": "injected", "image": "x"}, {"name": "proxy", "image": "a", "terminationMessagePath": "/t"}]}}}});
        let desired =
            json!({"spec": {"template": {"spec": {"containers": [{"name": "proxy", "image": "a"}]}}}});
        assert_eq!(at(desired, live), None);
    }

    #[test]
    fn a_changed_field_is_named() {
        let live = json!({"spec": {"containers": [{"name": "proxy", "image": "b"}]}});
        let desired = json!({"spec": {"containers": [{"name": "proxy", "image": "a"}]}});
        assert_eq!(at(desired, live).as_deref(), Some("spec.containers[name=proxy].image"));
    }

    #[test]
    fn an_added_subject_or_rule_is_a_difference() {
        let desired = json!({"subjects": [{"name": "a"}]});
        assert_eq!(
            at(desired, json!({"subjects": [{"name": "a"}, {"name": "b"}]})).as_deref(),
            Some("subjects")
        );
        let rule = |ports: Value| json!({"spec": {"ingress": [{"ports": ports}]}});
        assert!(at(rule(json!([{"port": 1}])), rule(json!([{"port": 1}, {"port": 2}]))).is_some());
    }

    #[test]
    fn an_entry_added_to_a_selector_is_a_difference() {
        let service = |selector: Value| json!({"spec": {"selector": selector}});
        let more = json!({"app": "a", "more": "b"});
        assert_eq!(
            at(service(json!({"app": "a"})), service(more.clone())).as_deref(),
            Some("spec.selector.more")
        );
        assert_eq!(at(service(json!({"app": "a"})), service(json!({"app": "a"}))), None);
        assert!(at(service(json!({"app": "a"})), service(json!({"app": "a", "more": ""}))).is_some());
        let all_pods = json!({"spec": {"podSelector": {}}});
        assert_eq!(at(all_pods.clone(), all_pods.clone()), None);
        assert!(at(all_pods, json!({"spec": {"podSelector": {"matchLabels": more}}})).is_some());
        let labels = |more: Value| json!({"metadata": {"labels": more}});
        assert_eq!(at(labels(json!({"app": "a"})), labels(json!({"app": "a", "more": "b"}))), None);
    }

    #[test]
    fn a_false_that_is_not_the_default_must_be_there() {
        for field in TRUE_BY_DEFAULT {
            assert!(at(json!({"a": {field: false}}), json!({"a": {}})).is_some(), "{field}");
            assert!(at(json!({"a": {field: false}}), json!({})).is_some(), "{field}");
            assert!(at(json!({field: false}), json!({field: true})).is_some(), "{field}");
            assert_eq!(at(json!({field: false}), json!({field: false})), None, "{field}");
        }
    }

    #[test]
    fn two_constraints_over_one_topology_are_two_entries() {
        let over = |when: &str, skew: i32| json!({"topologyKey": "zone", "whenUnsatisfiable": when, "maxSkew": skew});
        let list = |list: Vec<Value>| json!({"topologySpreadConstraints": list});
        let both = || list(vec![over("DoNotSchedule", 2), over("ScheduleAnyway", 1)]);
        assert_eq!(at(both(), both()), None);
        assert!(at(both(), list(vec![over("DoNotSchedule", 2), over("ScheduleAnyway", 3)])).is_some());
        assert!(at(both(), list(vec![over("DoNotSchedule", 2)])).is_some());
    }

    #[test]
    fn what_the_server_drops_or_rewrites_is_no_difference() {
        assert_eq!(at(json!({"a": {}, "b": [], "c": false, "d": ""}), json!({})), None);
        let cpu = |s: &str| json!({"resources": {"requests": {"cpu": s}}});
        assert_eq!(at(cpu("0.1"), cpu("100m")), None);
        assert_eq!(at(cpu("1000m"), cpu("1")), None);
        assert!(at(cpu("2"), cpu("1")).is_some());
        assert!(at(json!({"name": "0.1"}), json!({"name": "100m"})).is_some());
    }
}
