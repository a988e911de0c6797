//! `kubectl mesh describe pod`: one pod's place in the mesh. Pure.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use meshwright_api::{MeshRevision, NODE_PORT};
use serde::Serialize;

use crate::{
    members::{Members, Policies, Stands, describe_proxies, is_there, name, node_of},
    output::Page,
};

/// What there is to say of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    /// Namespace and name.
    pub pod: String,
    /// It is to be in the mesh.
    pub member: bool,
    /// Why it is not, with the remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<String>,
    /// SPIFFE id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Its node; none before it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The MeshRevision whose proxy serves the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The one that is to, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goes_to: Option<String>,
    /// The ports of that proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<&'static str>,
    /// Others send it mutual TLS, at these addresses.
    pub listed: Vec<String>,
    /// Policies in force for it.
    pub policies: Vec<String>,
    /// Which plaintext policies let it take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<String>,
    /// What its configuration waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// What to look at next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<String>,
}

impl Description {
    /// Puts it together.
    pub fn new(pod: &Pod, seen: &Members, revisions: &[MeshRevision]) -> Self {
        let membership = seen.membership(pod);
        let member = membership.is_ok();
        let node = Some(node_of(pod)).filter(|node| !node.is_empty());
        let mesh_node = node.as_deref().and_then(|node| seen.mesh_node(node));
        let status = mesh_node.and_then(|m| m.status.as_ref());
        let revision = status.map(|s| s.revision.clone()).filter(|r| !r.is_empty());
        let wanted = mesh_node.map(|m| m.spec.revision.clone());
        let stands = if member { seen.stands(pod) } else { Stands::Unheard };
        let waits_for = match (&stands, &node) {
            _ if !member => None,
            (Stands::Listed(_), _) => None,
            (_, None) => Some("a node".to_owned()),
            _ if !is_there(pod) => Some("nothing: it has ended".to_owned()),
            (Stands::Awaited(why), _) => Some(why.clone()),
            (Stands::Unheard, Some(node)) => Some(format!("a word of the proxy of node {node}")),
        };
        let in_force = if member { seen.in_force(pod) } else { Ok(Policies::default()) };
        let (policies, plaintext) = match in_force {
            Ok(Policies { names, plaintext }) => (names, Some(plaintext).filter(|text| !text.is_empty())),
            Err(error) => (Vec::new(), Some(format!("not known: policies could not be read: {error}"))),
        };
        let look = wanted.as_ref().filter(|_| waits_for.is_some());
        let slot = |name: &String| revisions.iter().find(|r| r.name_any() == *name)?.spec.node_slot;
        Self {
            pod: name(pod),
            member,
            outside: membership.err().map(|why| why.to_string()),
            identity: member.then(|| seen.identity(pod)),
            look: look.map(|wanted| describe_proxies(&seen.namespace, wanted)),
            slot: revision.as_ref().and_then(slot).map(|slot| slot.as_str()),
            goes_to: wanted.filter(|wanted| revision.as_ref() != Some(wanted)),
            listed: match stands {
                Stands::Listed(listed) => listed.addresses,
                _ => Vec::new(),
            },
            policies,
            plaintext,
            node,
            revision,
            waits_for,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        page.raw(format!("Pod {}", self.pod));
        let mut field =
            |name: &str, text: Option<&String>| text.iter().for_each(|text| page.field(name, text));
        let member = if self.member { "yes" } else { "no" }.to_owned();
        field("in the mesh", Some(&member));
        field("why not", self.outside.as_ref());
        field("identity", self.identity.as_ref());
        field("node", self.node.as_ref());
        let slot = self.slot.map_or_else(String::new, |slot| format!(", ports of slot {slot}"));
        field("proxy", self.revision.as_ref().map(|r| format!("of revision {r}{slot}")).as_ref());
        field("goes to", self.goes_to.as_ref().map(|r| format!("revision {r}")).as_ref());
        if self.member {
            let listed = match self.listed.is_empty() {
                true => "no: others send it plaintext".to_owned(),
                false => format!("yes, at {} port {NODE_PORT}", self.listed.join(", ")),
            };
            field("mutual TLS", Some(&listed));
        }
        field("plaintext", self.plaintext.as_ref());
        field("policies", Some(self.policies.join(", ")).filter(|all| !all.is_empty()).as_ref());
        field("waits for", self.waits_for.as_ref());
        field("look at", self.look.as_ref());
        page.done()
    }
}
