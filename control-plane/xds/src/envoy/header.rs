//! Header modifications.

use envoy_types::pb::envoy::config::core::v3::{
    HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
};
use meshwright_core::model::HeaderModifier;

/// Headers to set or add, in Envoy's form.
pub(super) fn to_add(modifier: &HeaderModifier) -> Vec<HeaderValueOption> {
    let set = modifier.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = modifier.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

/// Headers to remove.
pub(super) fn to_remove(modifier: &HeaderModifier) -> Vec<String> {
    modifier.remove.clone()
}

fn option((name, value): &(String, String), action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.clone(),
            // A percent sign starts a command for Envoy's formatter.
            value: value.replace('%', "%%"),
            raw_value: Vec::new(),
        }),
        append_action: action as i32,
        keep_empty_value: true,
        ..HeaderValueOption::default()
    }
}
