use meshwright_api::MeshRevision;
use serde::de::DeserializeOwned;

use super::*;
use crate::{check, describe::Description};

fn read<T: DeserializeOwned>(yaml: &str) -> T {
    serde_yaml_ng::from_str(yaml).unwrap()
}

fn pod(name: &str, more: &str) -> Pod {
    let spec = format!("nodeName: n1, serviceAccountName: {name}, containers: [{{ name: app }}]");
    read(&format!(
        "metadata: {{ name: {name}, namespace: shop, uid: uid-{name}, labels: {{ app: {name} }} }}\n\
         spec: {{ {spec}{more} }}\nstatus: {{ podIPs: [{{ ip: 10.0.0.1 }}] }}"
    ))
}

/// A mesh with one node: `cart` is listed, `pay` waits, `edge` uses the node's network, `db` is outside by its own label.
fn members() -> Members {
    let mut db = pod("db", "");
    db.labels_mut().insert("meshwright.io/mesh".to_owned(), "disabled".to_owned());
    let mesh_node = "
metadata: { name: n1, namespace: mesh }
spec: { revision: prod-1, epoch: 7 }
status:
  revision: prod-1
  epoch: 7
  pods: [{ uid: uid-cart, addresses: [10.0.0.1] }]
  awaiting: [{ uid: uid-pay, reason: envoy does not listen in it yet }]";
    Members {
        namespace: "mesh".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        rules: Rules { closed: ["mesh".to_owned()].into(), root: "mesh".to_owned() },
        nodes: Ok(vec![read("metadata: { name: n1 }")]),
        mesh_nodes: Ok(vec![read(mesh_node)]),
        pods: Ok(vec![pod("cart", ""), pod("pay", ""), pod("edge", ", hostNetwork: true"), db]),
        namespaces: Ok(vec![read("metadata: { name: shop, labels: { meshwright.io/mesh: enabled } }")]),
        policies: Ok(Vec::new()),
        authorization: Ok(vec![
            read(
                "metadata: { name: front-only, namespace: shop }\nspec: { targetRefs: [{ selector: { matchLabels: { app: cart } } }],\
                 rules: [{ sources: [{ type: ServiceAccount, serviceAccount: { name: front } }] }] }",
            ),
            read(
                "metadata: { name: no-admin, namespace: shop }\nspec: { action: DENY, mode: DryRun,\
                 rules: [{ networkAttributes: { ports: [80] } }] }",
            ),
            read("metadata: { name: other, namespace: web }\nspec: {}"),
        ]),
        tls: Ok(vec![
            read("metadata: { name: all, namespace: mesh }\nspec: { mode: Strict }"),
            read(
                "metadata: { name: pay, namespace: shop }\nspec: { mode: Permissive, ports: [{ port: 3306, mode: Strict }],\
                 targetRefs: [{ selector: { matchLabels: { app: pay } } }] }",
            ),
        ]),
        cilium: Ok(None),
    }
}

fn revision() -> MeshRevision {
    read(
        "metadata: { name: prod-1, namespace: mesh }\n\
         spec: { mesh: prod, version: 0.3.0, trustDomain: cluster.local, workloadTTL: 24h, nodeSlot: A, \
           images: { controlPlane: c, proxy: p }, controlPlane: {}, gateways: {} }",
    )
}

#[test]
fn pods_that_want_in_and_are_outside_are_told_with_the_reason() {
    let found = check::problems_of(&members());
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("shop/pay") && found[0].contains("envoy does not listen in it yet"));
    assert!(found[1].contains("shop/edge") && found[1].contains("hostNetwork"));
}

#[test]
fn nodes_that_are_not_served_are_told() {
    let mut seen = members();
    let all = seen.mesh_nodes.as_mut().unwrap();
    all[0].spec.epoch = 8;
    seen.nodes.as_mut().unwrap().push(read("metadata: { name: n2 }"));
    let found = check::problems_of(&seen);
    assert!(found.iter().any(|f| f.contains("node n1 is to be served by revision prod-1")), "{found:?}");
    assert!(found.iter().any(|f| f.contains("node n2 has no MeshNode")), "{found:?}");
}

#[test]
fn policies_that_leave_no_way_to_the_port_of_the_mesh_are_told_once_and_add_up() {
    let policy = |name: &str, spec: &str| -> NetworkPolicy {
        read(&format!("metadata: {{ name: {name}, namespace: shop }}\nspec: {spec}"))
    };
    let closed = || policy("only-http", "{ podSelector: {}, ingress: [{ ports: [{ port: 8080 }] }] }");
    let of = |policies: Vec<NetworkPolicy>| {
        let seen = Members { policies: Ok(policies), ..members() };
        let found = check::problems_of(&seen);
        found.into_iter().filter(|f| f.contains("NetworkPolicy")).collect::<Vec<_>>()
    };
    let found = of(vec![closed()]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("shop/only-http lets nothing to pods of the mesh at port 15008"), "{found:?}");
    for open in [
        "{ podSelector: {}, ingress: [{}] }",
        "{ podSelector: {}, ingress: [{ ports: [{ port: 15000, endPort: 15100 }] }] }",
        "{ podSelector: { matchExpressions: [{ key: app, operator: In, values: [cart, pay] }] }, ingress: [{ ports: [{ port: 15008, protocol: TCP }] }] }",
    ] {
        assert!(of(vec![closed(), policy("more", open)]).is_empty(), "{open}");
    }
    let udp = "{ podSelector: {}, ingress: [{ ports: [{ port: 15008, protocol: UDP }] }] }";
    assert_eq!(of(vec![closed(), policy("more", udp)]).len(), 1);
    assert!(of(vec![policy("other", "{ podSelector: { matchLabels: { app: other } } }")]).is_empty());
    let out = "{ podSelector: {}, policyTypes: [Egress], egress: [{ ports: [{ port: 53 }] }] }";
    assert!(of(vec![policy("dns", out)])[0].contains("lets nothing from pods"));
}

#[test]
fn cilium_in_the_way_is_told_and_as_it_should_be_is_not() {
    let of = |data: &str| {
        let config: ConfigMap = read(&format!("data: {data}"));
        let seen = Members { cilium: Ok(Some(config)), ..members() };
        check::problems_of(&seen).into_iter().filter(|f| f.contains("Cilium")).count()
    };
    assert_eq!(of("{ bpf-lb-sock: 'true', cni-exclusive: 'true' }"), 2);
    assert_eq!(of("{ bpf-lb-sock: 'true', bpf-lb-sock-hostns-only: 'true', cni-exclusive: 'false' }"), 0);
}

#[test]
fn a_pod_is_described() {
    let (seen, revisions) = (members(), [revision()]);
    let of = |name: &str| {
        let pod = seen.pods.as_ref().unwrap().iter().find(|p| p.name_any() == name).unwrap();
        Description::new(pod, &seen, &revisions)
    };
    let text = ["cart", "pay", "edge", "db"].map(|name| of(name).text()).join("\n");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    insta::assert_snapshot!(text);
    let unread = Members { tls: Err("forbidden".to_owned()), ..members() };
    let cart = &unread.pods.as_ref().unwrap()[0];
    let said = Description::new(cart, &unread, &revisions).plaintext.unwrap();
    assert!(said.contains("could not be read: forbidden"), "{said}");
    let mut new = pod("new", "");
    new.spec.as_mut().unwrap().node_name = None;
    assert_eq!(Description::new(&new, &seen, &revisions).waits_for.as_deref(), Some("a node"));
}
