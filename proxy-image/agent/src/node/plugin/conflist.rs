//! The node's list of network plugins, with and without ours: pure.

use std::path::{Path, PathBuf};

use meshwright_cni::PLUGIN;
use serde_json::{Value, json};

/// Why a list cannot take our plugin, with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is not JSON.
    #[error("{0} is no JSON, so no pod gets a network: mend it, or let your network provider write it again")]
    Json(PathBuf),
    /// It names a single plugin.
    #[error(
        "{0} names a single plugin, and only a list can be chained: have your network provider write a .conflist"
    )]
    Single(PathBuf),
}

/// The file that the container runtime uses: the first by name, of those that it reads at all.
pub fn used(files: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    files.into_iter().filter(|file| is_read(file)).min()
}

/// Whether container runtimes read it, by its name.
pub fn is_read(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ["conf", "conflist", "json"].iter().any(|known| ending == *known))
}

/// Our entry.
pub fn entry(socket: &Path, namespaces: &Path) -> Value {
    json!({ "type": PLUGIN, "socket": socket, "namespaces": namespaces })
}

/// The list with our entry, once and last; none if it is so already.
///
/// # Errors
/// When it is no list.
pub fn with(file: &Path, text: &[u8], entry: &Value) -> Result<Option<String>, Unusable> {
    let mut list: Value = serde_json::from_slice(text).map_err(|_| Unusable::Json(file.to_owned()))?;
    let plugins = list.get_mut("plugins").and_then(Value::as_array_mut);
    let plugins = plugins.ok_or_else(|| Unusable::Single(file.to_owned()))?;
    let alone = plugins.iter().filter(|plugin| is_ours(plugin)).count() == 1;
    if alone && plugins.last() == Some(entry) {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.push(entry.clone());
    Ok(Some(format!("{list:#}\n")))
}

/// Whether nothing is in it: the power went before it was on the disk.
pub fn is_blank(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte == 0 || byte.is_ascii_whitespace())
}

/// The list without our entry; none if it is not in it.
pub fn without(text: &[u8]) -> Option<Value> {
    let mut list: Value = serde_json::from_slice(text).ok()?;
    let plugins = list.get_mut("plugins")?.as_array_mut()?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    (plugins.len() < before).then_some(list)
}

/// What to write to take our entry out: what was there before we came, to the byte, if nobody else has changed the list since, or it is lost.
pub fn restored(text: &[u8], original: Option<&[u8]>) -> Option<Vec<u8>> {
    if is_blank(text) {
        return original.map(<[u8]>::to_vec);
    }
    let without = without(text)?;
    let original = original
        .filter(|original| serde_json::from_slice::<Value>(original).is_ok_and(|list| list == without));
    Some(original.map_or_else(|| format!("{without:#}\n").into_bytes(), <[u8]>::to_vec))
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGINAL: &str = r#"{ "name": "pods", "cniVersion": "1.0.0",
  "plugins": [ {"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "portmap"} ] }"#;

    fn ours() -> Value {
        entry(Path::new("/run/meshwright/cni.sock"), Path::new("/etc/cni/net.d/meshwright.namespaces"))
    }

    fn file() -> PathBuf {
        "/etc/cni/net.d/10-x.conflist".into()
    }

    fn added(text: &str) -> Option<String> {
        with(&file(), text.as_bytes(), &ours()).unwrap()
    }

    #[test]
    fn our_entry_is_last_and_everything_else_stays() {
        let text = added(ORIGINAL).unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&list["name"], &list["cniVersion"]), (&json!("pods"), &json!("1.0.0")));
        assert_eq!(list["plugins"][0], json!({ "type": "bridge", "ipam": { "type": "host-local" } }));
        assert_eq!((&list["plugins"][2], list["plugins"].as_array().unwrap().len()), (&ours(), 3));
        assert_eq!(added(&text), None, "once is enough");
    }

    #[test]
    fn an_entry_that_is_not_as_it_should_be_is_replaced() {
        for plugins in [
            json!([{ "type": PLUGIN, "socket": "/elsewhere" }, { "type": "bridge" }]),
            json!([ours(), { "type": "bridge" }]),
            json!([{ "type": "bridge" }, ours(), ours()]),
        ] {
            let list: Value =
                serde_json::from_str(&added(&json!({ "plugins": plugins }).to_string()).unwrap()).unwrap();
            assert_eq!(list["plugins"], json!([{ "type": "bridge" }, ours()]), "{plugins}");
        }
    }

    #[test]
    fn what_was_there_before_comes_back_to_the_byte() {
        let text = added(ORIGINAL).unwrap();
        let restored = |text: &str, original: Option<&str>| {
            super::restored(text.as_bytes(), original.map(str::as_bytes))
        };
        assert_eq!(restored(&text, Some(ORIGINAL)).unwrap(), ORIGINAL.as_bytes());
        let without: Value = serde_json::from_slice(&restored(&text, None).unwrap()).unwrap();
        assert_eq!(without, serde_json::from_str::<Value>(ORIGINAL).unwrap());
        let other = json!({ "name": "pods", "plugins": [{ "type": "ptp" }, ours()] }).to_string();
        let rewritten: Value = serde_json::from_slice(&restored(&other, Some(ORIGINAL)).unwrap()).unwrap();
        assert_eq!(rewritten["plugins"], json!([{ "type": "ptp" }]), "somebody rewrote it meanwhile");
        assert_eq!(restored(ORIGINAL, Some(ORIGINAL)), None, "it is not in it");
        assert_eq!(restored("{", None), None);
        for lost in ["", "\0\0\0", "\n"] {
            assert_eq!(restored(lost, Some(ORIGINAL)).unwrap(), ORIGINAL.as_bytes());
            assert_eq!(restored(lost, None), None);
        }
    }

    #[test]
    fn what_is_no_list_says_what_to_do() {
        let error = |text: &str| with(&file(), text.as_bytes(), &ours()).unwrap_err();
        assert_eq!(error("{"), Unusable::Json(file()));
        assert_eq!(error(r#"{"type":"bridge"}"#), Unusable::Single(file()));
        assert!(error("{}").to_string().contains("10-x.conflist"));
    }

    #[test]
    fn the_runtime_uses_the_first_file_that_it_reads() {
        let used = |names: &[&str]| used(names.iter().map(PathBuf::from));
        let names = [
            "/d/20-b.conflist",
            "/d/10-a.conflist",
            "/d/05-x.meshwright-original",
            "/d/00-readme",
            "/d/.00.conflist.bak",
        ];
        assert_eq!(used(&names), Some("/d/10-a.conflist".into()));
        assert_eq!(used(&["/d/10-a.conflist", "/d/10-a.conf"]), Some("/d/10-a.conf".into()));
        assert_eq!(used(&["/d/x"]), None);
    }
}
