use super::*;

fn outcome(namespace: &str, around: &[(&str, &str)], own: &[(&str, &str)]) -> Result<(), Outside> {
    asked(namespace, around, Pod { labels: labels(own), ..pod("u", "n", &[]) })
}

fn asked(namespace: &str, around: &[(&str, &str)], pod: Pod) -> Result<(), Outside> {
    let labels = Namespace { labels: labels(around) };
    membership(&pod, &ObjectKey::new(namespace, "p"), Some(&labels), &rules())
}

const IN: &[(&str, &str)] = &[("meshwright.io/mesh", "enabled")];
const OUT: &[(&str, &str)] = &[("meshwright.io/mesh", "disabled")];

#[test]
fn the_pods_own_label_wins() {
    assert_eq!(outcome("shop", &[], &[]), Err(Outside::NotAsked));
    assert_eq!(outcome("shop", IN, &[]), Ok(()));
    assert_eq!(outcome("shop", &[], IN), Ok(()));
    assert_eq!(outcome("shop", OUT, IN), Ok(()));
    assert_eq!(outcome("shop", IN, OUT), Err(Outside::Disabled(On::Pod)));
    assert_eq!(outcome("shop", OUT, &[]), Err(Outside::Disabled(On::Namespace)));
}

#[test]
fn a_value_that_means_nothing_is_no_and_is_not_passed_over() {
    let odd = &[("meshwright.io/mesh", "true")];
    let unknown = |on| Err(Outside::UnknownValue(on, "true".to_owned()));
    assert_eq!(outcome("shop", odd, &[]), unknown(On::Namespace));
    assert_eq!(outcome("shop", IN, odd), unknown(On::Pod));
    assert_eq!(outcome("shop", odd, IN), Ok(()));
}

#[test]
fn a_pod_whose_namespace_is_not_known_can_ask_by_itself() {
    let with = |own| {
        let pod = Pod { labels: labels(own), ..pod("u", "n", &[]) };
        membership(&pod, &ObjectKey::new("shop", "p"), None, &rules())
    };
    assert_eq!(with(IN), Ok(()));
    assert_eq!(with(&[]), Err(Outside::NotAsked));
}

#[test]
fn no_label_opens_a_closed_namespace() {
    assert_eq!(outcome("kube-system", IN, IN), Err(Outside::ClosedNamespace("kube-system".to_owned())));
    // Nor is anyone told to try one there.
    assert_eq!(outcome("kube-system", &[], &[]), Err(Outside::ClosedNamespace("kube-system".to_owned())));
}

#[test]
fn pods_that_cannot_be_in_the_mesh_are_not() {
    let gateway = &[("meshwright.io/component", "gateway"), ("meshwright.io/mesh", "enabled")];
    assert_eq!(outcome("shop", IN, gateway), Err(Outside::OwnProxy("gateway".to_owned())));
    let host = Pod { host_network: true, ..pod("u", "n", &[]) };
    assert_eq!(asked("shop", IN, host.clone()), Err(Outside::HostNetwork));
    assert_eq!(asked("shop", &[], host), Err(Outside::NotAsked), "nobody is told of what nobody wants");
    let sidecar = Pod { sidecar: Some("istio-proxy".to_owned()), ..pod("u", "n", &[]) };
    assert_eq!(asked("shop", IN, sidecar), Err(Outside::ForeignSidecar("istio-proxy".to_owned())));
    let fixed = Pod { service_account: String::new(), ..pod("u", "n", &[]) };
    assert_eq!(asked("shop", IN, fixed), Err(Outside::NoServiceAccount));
}

#[test]
fn what_istio_redirects_without_a_sidecar_is_left_to_it() {
    let both = &[("meshwright.io/mesh", "enabled"), ("istio.io/dataplane-mode", "ambient")];
    assert_eq!(outcome("shop", both, &[]), Err(Outside::Ambient(On::Namespace)));
    assert_eq!(outcome("shop", &[], both), Err(Outside::Ambient(On::Pod)));
    assert_eq!(outcome("shop", both, &[("istio.io/dataplane-mode", "none")]), Ok(()));
}

#[test]
fn a_namespace_enrolls_exactly_the_plain_pods_that_would_be_members() {
    let values = [None, Some("enabled"), Some("disabled"), Some("true")];
    for name in ["shop", "kube-system"] {
        for (value, mode) in values.iter().flat_map(|value| [None, Some("ambient")].map(|mode| (value, mode)))
        {
            let mesh = value.map(|value| ("meshwright.io/mesh", value));
            let mode = mode.map(|mode| ("istio.io/dataplane-mode", mode));
            let pairs: Vec<_> = mesh.into_iter().chain(mode).collect();
            let namespace = Namespace { labels: labels(&pairs) };
            assert_eq!(
                enrolls(name, &namespace, &rules()),
                outcome(name, &pairs, &[]).is_ok(),
                "{name} {pairs:?}"
            );
        }
    }
}

#[test]
fn every_reason_names_a_remedy() {
    let name = || "x".to_owned();
    for (reason, word) in [
        (Outside::NotAsked, "meshwright.io/mesh=enabled"),
        (Outside::Disabled(On::Pod), "set it to enabled"),
        (Outside::Disabled(On::Namespace), "there or on the pod"),
        (Outside::UnknownValue(On::Namespace, name()), "set it to enabled or disabled"),
        (Outside::ClosedNamespace(name()), "another one"),
        (Outside::OwnProxy(name()), "take the label off"),
        (Outside::HostNetwork, "take hostNetwork off"),
        (Outside::ForeignSidecar(name()), "take the pod out of that mesh"),
        (Outside::Ambient(On::Pod), "take it off"),
        (Outside::NoServiceAccount, "run it as a Deployment"),
    ] {
        let text = reason.to_string();
        let remedy = text.split_once(": ").unwrap().1;
        assert!(remedy.contains(word), "{text}");
    }
}
