//! Whom a refused table is blamed on, and for how long.

use meshwright_core::config::{CompiledRule, ConnectionRoutes};
use meshwright_core::model::{HttpRouteMatch, ObjectKind, RouteKind};

use super::*;

fn entry(name: &str, rule: &str) -> Arc<RouteEntry> {
    Arc::new(RouteEntry {
        kind: RouteKind::Http,
        route: ObjectKey::new("shop", name),
        rule_index: 0,
        match_index: 0,
        matches: HttpRouteMatch::default(),
        rule: Arc::new(CompiledRule { name: Some(rule.to_owned()), ..CompiledRule::default() }),
    })
}

/// Routes with the names of their rules, all of one Service's port.
fn routes(all: &[(&str, &str)]) -> Arc<ServiceRoutes> {
    let producer = Some(all.iter().map(|(name, rule)| entry(name, rule)).collect());
    let port = Arc::new(PortRoutes { producer, ..PortRoutes::default() });
    Arc::new([(ObjectKey::new("shop", "web"), [(80, port)].into())].into())
}

fn of(version: &str) -> Vec<(Arc<str>, Arc<str>)> {
    vec![(ROUTES.into(), version.into())]
}

fn ack(version: &str) -> Event {
    Event::Ack { kind: TypeUrl::Route, resources: of(version), removed: Vec::new() }
}

fn nack(version: &str) -> Event {
    Event::Nack { kind: TypeUrl::Route, resources: of(version), message: format!("no {version}") }
}

fn closed() -> Event {
    Event::Closed { maybe_sent: Default::default() }
}

fn blamed_at(tables: &mut Tables, now: Instant) -> Vec<String> {
    let all = tables.rejections(now);
    assert!(all.keys().all(|object| object.kind == ObjectKind::HttpRoute));
    all.iter().map(|(object, words)| format!("{}: {words}", object.key.name)).collect()
}

fn blamed(tables: &mut Tables) -> Vec<String> {
    blamed_at(tables, Instant::now())
}

#[test]
fn those_are_to_blame_that_no_proxy_has_taken() {
    let (mut tables, now) = (Tables::new(What::Requests), Instant::now());
    tables.published(&"1".into(), &routes(&[("old", "x"), ("other", "x")]));
    assert!(tables.on_event(7, &nack("1"), now));
    assert_eq!(blamed(&mut tables), [""; 0], "nobody knows which");
    assert!(tables.on_event(7, &ack("1"), now));
    tables.published(&"2".into(), &routes(&[("old", "x"), ("other", "y"), ("new", "x")]));
    assert!(tables.on_event(7, &nack("2"), now) && tables.on_event(8, &nack("2"), now));
    assert_eq!(blamed(&mut tables), ["new: no 2", "other: no 2"]);
    // One of them was mended, the other is still not in force.
    tables.published(&"3".into(), &routes(&[("old", "x"), ("other", "x"), ("new", "x")]));
    assert!(tables.on_event(8, &closed(), now));
    assert_eq!(blamed(&mut tables), ["new: no 2", "other: no 2"], "nobody has said anything of it yet");
    assert!(tables.on_event(7, &nack("3"), now));
    assert_eq!(blamed(&mut tables), ["new: no 3"]);
    tables.published(&"4".into(), &routes(&[("old", "x"), ("new", "y")]));
    assert!(tables.on_event(7, &ack("4"), now) && !tables.on_event(9, &ack("4"), now));
    assert_eq!(blamed(&mut tables), [""; 0]);
}

#[test]
fn the_only_route_is_to_blame_in_any_case_and_unknown_versions_are_nobodys() {
    let (mut tables, now) = (Tables::new(What::Requests), Instant::now());
    tables.published(&"1".into(), &routes(&[("only", "x")]));
    tables.on_event(1, &nack("1"), now);
    assert_eq!(blamed(&mut tables), ["only: no 1"]);
    tables.on_event(1, &nack("0"), now);
    assert_eq!(blamed(&mut tables), [""; 0]);
}

#[test]
fn a_slow_proxy_that_takes_an_older_table_makes_nothing_new_of_what_others_took() {
    let (mut tables, now) = (Tables::new(What::Requests), Instant::now());
    tables.published(&"1".into(), &routes(&[("old", "x")]));
    tables.published(&"2".into(), &routes(&[("old", "x"), ("other", "x")]));
    tables.published(&"3".into(), &routes(&[("old", "x"), ("other", "x"), ("new", "x")]));
    tables.on_event(1, &ack("2"), now);
    tables.on_event(1, &nack("3"), now);
    tables.on_event(2, &ack("1"), now);
    assert_eq!(blamed(&mut tables), ["new: no 3"]);
}

#[test]
fn a_refusal_outlives_its_stream_until_something_newer_is_taken() {
    let (mut tables, start) = (Tables::new(What::Requests), Instant::now());
    tables.published(&"1".into(), &routes(&[("old", "x")]));
    tables.published(&"2".into(), &routes(&[("old", "x"), ("new", "x")]));
    tables.on_event(1, &ack("1"), start);
    tables.on_event(1, &nack("2"), start);
    assert!(tables.on_event(1, &closed(), start) && !tables.on_event(3, &closed(), start));
    let later = start + REMEMBERED / 2;
    assert!(!tables.on_event(2, &ack("1"), later));
    assert_eq!(blamed_at(&mut tables, later), ["new: no 2"]);
    // It comes back and refuses again, and nobody hears of anything in between.
    tables.on_event(4, &nack("2"), later);
    let end = tables.next_end().unwrap();
    assert_eq!(blamed_at(&mut tables, end), ["new: no 2"]);
    assert_eq!(tables.next_end(), None);
    assert!(tables.on_event(4, &closed(), end));
    tables.published(&"3".into(), &routes(&[("old", "x"), ("new", "y")]));
    assert!(tables.on_event(2, &ack("3"), end));
    assert_eq!(blamed_at(&mut tables, end), [""; 0]);
    // Nobody comes back.
    tables.published(&"4".into(), &routes(&[("old", "z")]));
    tables.on_event(5, &nack("4"), end);
    tables.on_event(5, &closed(), end);
    assert_eq!(blamed_at(&mut tables, end), ["old: no 4"]);
    let over = tables.next_end().unwrap();
    assert_eq!(blamed_at(&mut tables, over), [""; 0]);
}

#[test]
fn of_a_refused_table_about_connections_its_own_routes_are_told_and_no_others() {
    let both = |name: &str| -> Arc<ServiceRoutes> {
        let tcp = RouteEntry { kind: RouteKind::Tcp, ..RouteEntry::clone(&entry(name, "x")) };
        let consumers = [("web".to_owned(), Arc::new(tcp))].into();
        let connections = ConnectionRoutes { consumers, ..ConnectionRoutes::default() };
        let producer = Some(vec![entry("http", name)]);
        let port = Arc::new(PortRoutes { producer, connections, ..PortRoutes::default() });
        Arc::new([(ObjectKey::new("shop", "web"), [(80, port)].into())].into())
    };
    let event = |version: &str| vec![(SERVICES.into(), version.into()), ("pod/u1/policy".into(), "7".into())];
    let ack = |version: &str| Event::Ack {
        kind: TypeUrl::ExtensionConfig,
        resources: event(version),
        removed: Vec::new(),
    };
    let nack = |version: &str| Event::Nack {
        kind: TypeUrl::ExtensionConfig,
        resources: event(version),
        message: "no".to_owned(),
    };
    let (mut tables, now) = (Tables::new(What::Connections), Instant::now());
    tables.published(&"1".into(), &both("old"));
    assert!(!tables.on_event(1, &self::nack("1"), now), "another table's");
    assert!(!tables.on_event(1, &ack("1"), now));
    // What says the same in other words is no news, whoever refuses what comes then.
    tables.published(&"1".into(), &both("renamed"));
    tables.published(&"2".into(), &both("renamed"));
    assert!(tables.on_event(1, &nack("2"), now));
    assert_eq!(tables.rejections(now), BTreeMap::new());
    tables.published(&"3".into(), &both("new"));
    assert!(tables.on_event(1, &nack("3"), now));
    let id = ObjectId { kind: ObjectKind::TcpRoute, key: ObjectKey::new("shop", "new") };
    assert_eq!(tables.rejections(now), [(id, "no".to_owned())].into());
    assert!(tables.on_event(1, &ack("3"), now));
    assert_eq!(tables.rejections(now), BTreeMap::new());
}
