//! Fields of a Gateway that are not implemented.

use meshwright_api::gateway as api;

/// Those that are set, as paths, in the order of the spec.
pub(super) fn fields(spec: &api::GatewaySpec) -> Vec<String> {
    let mut fields = Vec::new();
    if spec.allowed_listeners.is_some() {
        fields.push("spec.allowedListeners".to_owned());
    }
    if spec.default_scope.as_ref().is_some_and(|scope| *scope != api::GatewayDefaultScope::None) {
        fields.push("spec.defaultScope".to_owned());
    }
    fields.extend(spec.listeners.iter().filter_map(filters));
    if let Some(tls) = &spec.tls {
        let parts =
            [("spec.tls.backend", tls.backend.is_some()), ("spec.tls.frontend", tls.frontend.is_some())];
        fields.extend(parts.iter().filter(|(_, set)| *set).map(|(path, _)| (*path).to_owned()));
    }
    fields
}

/// The one of them without which a listener would let in whom it should not: its filters, or the validation of client certificates.
pub(super) fn guard(spec: &api::GatewaySpec, listener: &api::GatewayListeners) -> Option<String> {
    let frontend = spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
    let validates = listener.protocol == "HTTPS"
        && frontend.is_some_and(|frontend| validates_clients(frontend, listener.port));
    filters(listener).or_else(|| validates.then(|| "spec.tls.frontend".to_owned()))
}

fn filters(listener: &api::GatewayListeners) -> Option<String> {
    listener.filters.as_ref().map(|_| format!("spec.listeners[{}].filters", listener.name))
}

/// What is said of a port replaces the default, also where it is nothing.
fn validates_clients(frontend: &api::GatewayTlsFrontend, port: i32) -> bool {
    let of_port = frontend.per_port.iter().flatten().find(|one| one.port == port);
    of_port.map_or(frontend.default.validation.is_some(), |one| one.tls.validation.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(tls: Value) -> api::GatewaySpec {
        let listener =
            |name: &str, port: u16, protocol: &str| json!({"name": name, "port": port, "protocol": protocol});
        let mut filtered = listener("filtered", 80, "HTTP");
        filtered["filters"] = json!({});
        let listeners = [filtered, listener("http", 80, "HTTP"), listener("a", 443, "HTTPS")];
        let listeners = listeners.into_iter().chain([listener("b", 8443, "HTTPS")]).collect::<Vec<_>>();
        serde_json::from_value(
            json!({"gatewayClassName": "x", "allowedListeners": {}, "listeners": listeners, "tls": tls}),
        )
        .unwrap()
    }

    fn unguarded(tls: Value) -> Vec<String> {
        let spec = spec(tls);
        let unguarded = spec.listeners.iter().filter(|listener| guard(&spec, listener).is_some());
        unguarded.map(|listener| listener.name.clone()).collect()
    }

    #[test]
    fn what_is_not_implemented_is_named() {
        let fields = fields(&spec(json!({"backend": {}, "frontend": {"default": {}}})));
        let filters = "spec.listeners[filtered].filters";
        assert_eq!(fields, ["spec.allowedListeners", filters, "spec.tls.backend", "spec.tls.frontend"]);
    }

    #[test]
    fn a_guard_is_missing_where_clients_should_be_checked() {
        let validation =
            json!({"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}});
        let on = |port: u16, tls: &Value| json!([{"port": port, "tls": tls}]);
        assert_eq!(unguarded(json!({"frontend": {"default": {}}})), ["filtered"]);
        assert_eq!(unguarded(json!({"frontend": {"default": validation}})), ["filtered", "a", "b"]);
        let some = json!({"frontend": {"default": {}, "perPort": on(8443, &validation)}});
        assert_eq!(unguarded(some), ["filtered", "b"]);
        let others = json!({"frontend": {"default": validation, "perPort": on(443, &json!({}))}});
        assert_eq!(unguarded(others), ["filtered", "b"]);
    }
}
