//! What two control planes are compared by.

use super::*;
use crate::Snapshot;

fn snapshot(config: &GatewayConfig) -> Snapshot {
    let translation = translated_with(config, &Options::default(), &mut ready, &mut |_| None);
    translation
        .resources
        .into_iter()
        .fold(Snapshot::default(), |snapshot, (kind, resources)| snapshot.with(kind, resources.into_values()))
}

fn of(config: &GatewayConfig) -> Vec<Part> {
    parts(&snapshot(config), config)
}

/// Parts whose hash or existence differs.
fn changed<'a>(before: &'a [Part], after: &'a [Part]) -> BTreeSet<&'a str> {
    let only = |these: &'a [Part], those: &'a [Part]| these.iter().filter(|part| !those.contains(part));
    only(before, after).chain(only(after, before)).map(|part| part.name.as_str()).collect()
}

fn to(name: &str) -> CompiledRule {
    forward(vec![backend(Some(name), 1)])
}

/// One host with these routes.
fn shop(routes: Vec<RouteEntry>) -> GatewayConfig {
    config(vec![port(80, PortProtocol::Http, vec![listener("http", "*", &[], vec![("a.example", routes)])])])
}

#[test]
fn the_names_are_the_ones_of_every_version() {
    let value = |name: &str, value| ValueMatch { name: name.to_owned(), value };
    let exact = |text: &str| StringMatch::Exact(text.to_owned());
    let regex = |text: &str| StringMatch::RegularExpression(text.to_owned());
    let mut picky = entry("/picky", to("cart"));
    picky.matches.method = Some("GET".to_owned());
    picky.matches.headers = vec![value("host", exact("x")), value("x-user", regex("[a-z]+"))];
    picky.matches.query_params = vec![value("q", exact("1")), value("r", regex(r"\d"))];
    let mut whole = entry("/", to("web"));
    whole.matches.path = PathMatch::Exact("/whole".to_owned());
    let mut by_regex = entry("/", CompiledRule::default());
    by_regex.matches.path = PathMatch::RegularExpression("/v[0-9]+".to_owned());
    let routes = vec![picky, whole, by_regex, entry("/", to("cart")), entry("/", to("web"))];
    let secure = vec![
        listener("any", "*", &["a"], vec![("*", vec![])]),
        listener("one", "b.example", &["a"], vec![("b.example", vec![])]),
    ];
    let mut config = shop(routes);
    config.ports.push(port(443, PortProtocol::Https, secure));
    let names: Vec<_> = of(&config).into_iter().map(|part| (part.kind, part.name)).collect();
    let expected = [
        (PartKind::Listener, "infra/gw/443"),
        (PartKind::Listener, "infra/gw/80"),
        (PartKind::Route, "infra/gw/443/any *"),
        (PartKind::Route, "infra/gw/443/any misdirected/b.example"),
        (PartKind::Route, "infra/gw/443/any misdirected/b.example PathPrefix /"),
        (PartKind::Route, "infra/gw/443/one b.example"),
        (PartKind::Route, "infra/gw/443/one misdirected/*"),
        (PartKind::Route, "infra/gw/443/one misdirected/* PathPrefix /"),
        (PartKind::Route, "infra/gw/80 a.example"),
        (PartKind::Route, "infra/gw/80 a.example Exact /whole"),
        (PartKind::Route, "infra/gw/80 a.example PathPrefix /"),
        (PartKind::Route, "infra/gw/80 a.example PathPrefix / #2"),
        (
            PartKind::Route,
            r"infra/gw/80 a.example PathPrefix /picky, method=GET, header host=x, header x-user~[a-z]+, query q=1, query r~\d",
        ),
        (PartKind::Route, "infra/gw/80 a.example RegularExpression /v[0-9]+"),
        (PartKind::Cluster, "outbound|8080|cart.shop"),
        (PartKind::Cluster, "outbound|8080|web.shop"),
    ];
    assert_eq!(names, expected.map(|(kind, name)| (kind, name.to_owned())));
}

#[test]
fn a_part_differs_where_its_content_does() {
    let routes = |first: &str, second: &str| vec![entry("/a", to(first)), entry("/b", to(second))];
    let base = of(&shop(routes("cart", "web")));
    assert!(base.iter().all(|part| part.hash.len() == 24));

    let other = of(&shop(routes("cart", "cart")));
    let expected = ["infra/gw/80 a.example PathPrefix /b", "outbound|8080|web.shop"];
    assert_eq!(changed(&base, &other), expected.into());

    let mut turned = routes("cart", "web");
    turned.reverse();
    assert_eq!(changed(&base, &of(&shop(turned))), ["infra/gw/80 a.example"].into(), "the order counts");

    let lost = of(&shop(routes("cart", "web").drain(..1).collect()));
    let expected = ["infra/gw/80 a.example", "infra/gw/80 a.example PathPrefix /b", "outbound|8080|web.shop"];
    assert_eq!(changed(&base, &lost), expected.into());

    let mut secure = shop(routes("cart", "web"));
    secure.ports[0].protocol = PortProtocol::Https;
    secure.ports[0].listeners[0].certificates = vec![ObjectKey::new("shop", "a")];
    assert!(changed(&base, &of(&secure)).contains("infra/gw/80"), "the listener is another");
}

#[test]
fn a_setting_of_the_whole_table_is_a_change_of_its_hosts() {
    let config = shop(vec![entry("/a", to("cart"))]);
    let (base, mut snapshot) = (of(&config), snapshot(&config));
    let known = snapshot.get(TypeUrl::Route, "infra/gw/80").unwrap();
    let mut table = RouteConfiguration::decode(known.body().value.as_slice()).unwrap();
    table.ignore_port_in_host_matching = false;
    let body = envoy_types::util::pack_any(table);
    snapshot.edit(TypeUrl::Route).insert(Resource::new("infra/gw/80", body));
    assert_eq!(changed(&base, &parts(&snapshot, &config)), ["infra/gw/80 a.example"].into());
}

#[test]
fn clusters_that_linger_are_not_told() {
    let config = shop(vec![entry("/a", to("cart"))]);
    let (base, mut snapshot) = (of(&config), snapshot(&config));
    snapshot.edit(TypeUrl::Cluster).insert(cluster::resource(&service("gone"), &Backends::default()));
    assert_eq!(parts(&snapshot, &config), base);
}
