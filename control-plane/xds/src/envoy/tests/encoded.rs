//! RouteConfigurations that are put together from encoded hosts.

use envoy_types::pb::envoy::config::route::v3::VirtualHost;
use proptest::collection::vec;
use proptest::prelude::*;

use super::validate::everything;
use super::*;

/// As Envoy reads it, made in one piece.
fn plain(
    name: &str,
    port: &PortConfig,
    hosts: &[&Arc<VirtualHostConfig>],
    others: &[&str],
) -> RouteConfiguration {
    let mut virtual_hosts: Vec<_> = hosts.iter().map(|host| route::virtual_host(host, port)).collect();
    virtual_hosts.extend(others.iter().map(|hostname| route::misdirected_host(hostname)));
    if port.protocol == PortProtocol::Http {
        virtual_hosts.push(route::probe_host());
    }
    virtual_hosts.sort_by(|a, b| a.name.cmp(&b.name));
    RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        ignore_port_in_host_matching: true,
        most_specific_header_mutations_wins: true,
        ..RouteConfiguration::default()
    }
}

#[test]
fn the_parts_are_the_same_message_as_the_whole() {
    let config = everything();
    let translation = translate(&config, &Options::default(), &mut |_| None, &EncodedHosts::default());
    let mut seen = 0;
    for port in &config.ports {
        for (name, hosts, others) in route::configurations(&config.gateway, port) {
            let expected = plain(&name, port, &hosts, &others);
            let resource = &translation.resources[&TypeUrl::Route][name.as_str()];
            let decoded: RouteConfiguration = decode(&translation, TypeUrl::Route, &name);
            assert_eq!(decoded, expected, "{name}");
            assert_eq!(resource.body().type_url, envoy_types::util::pack_any(expected.clone()).type_url);
            assert_eq!(resource.body().value.len(), expected.encoded_len());
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
}

#[test]
fn probes_are_answered_before_a_route_that_takes_every_host() {
    let hosts = |own: &str| {
        let config = config(vec![port(
            80,
            PortProtocol::Http,
            vec![listener(
                "http",
                "*",
                &[],
                vec![("*", vec![entry("/", CompiledRule::default())]), (own, Vec::new())],
            )],
        )]);
        let translation = translate(&config, &Options::default(), &mut |_| None, &EncodedHosts::default());
        let table: RouteConfiguration = decode(&translation, TypeUrl::Route, "infra/gw/80");
        let named = |host: &VirtualHost| (host.domains.clone(), host.routes.len());
        table.virtual_hosts.iter().map(named).collect::<Vec<_>>()
    };
    let probe = (vec!["probe.meshwright.invalid".to_owned()], 0);
    assert_eq!(hosts("a.example").iter().filter(|host| **host == probe).count(), 1);
    assert_eq!(hosts("probe.meshwright.invalid").len(), 2, "Envoy refuses a domain that is there twice");
}

/// A host of one of two names that redirects, which depends on the port, to one of a few paths.
fn host(name: usize, path: u8) -> Arc<VirtualHostConfig> {
    let to = RequestRedirect {
        path: Some(PathModifier::ReplaceFullPath(format!("/{path}"))),
        ..Default::default()
    };
    let rule = CompiledRule { action: RuleAction::Redirect(to), ..CompiledRule::default() };
    let hostname = ["a.example.com", "b.example.com"][name].to_owned();
    Arc::new(VirtualHostConfig { hostname, routes: vec![Arc::new(entry("/", rule))] })
}

proptest! {
    #[test]
    fn hosts_that_are_known_change_nothing_but_the_work(
        // Each time another path for the hosts that get one, and the protocol and hosts of either port.
        steps in vec((vec(proptest::option::of(0_u8..3), 2), vec((any::<bool>(), 0_usize..3), 2)), 1..8),
    ) {
        let (mut hosts, mut known) = (vec![host(0, 0), host(1, 0)], EncodedHosts::default());
        let (mut bodies, mut versions) = (BTreeMap::new(), BTreeMap::new());
        for (paths, ports) in steps {
            for (name, path) in paths.into_iter().enumerate() {
                if let Some(path) = path {
                    hosts[name] = host(name, path);
                }
            }
            let ports = ports.into_iter().zip([80, 443]).map(|((tls, count), number)| {
                let mut all = listener("l", "*.example.com", &["a"], Vec::new());
                all.virtual_hosts = hosts[..count].to_vec();
                port(number, if tls { PortProtocol::Https } else { PortProtocol::Http }, vec![all])
            });
            let config = config(ports.collect());
            let translate = |known| translate(&config, &Options::default(), &mut |_| None, known);
            let (kept, anew) = (translate(&known), translate(&EncodedHosts::default()));
            prop_assert_eq!(&kept.resources, &anew.resources);
            known = kept.hosts;
            for resource in kept.resources[&TypeUrl::Route].values() {
                let (body, version) = (&resource.body().value, resource.version());
                prop_assert_eq!(bodies.entry(version.clone()).or_insert_with(|| body.clone()), body);
                prop_assert_eq!(versions.entry(body.clone()).or_insert_with(|| version.clone()), version);
            }
        }
    }
}
