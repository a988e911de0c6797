//! Pods that everybody of the mesh may call: of which there is no policy, or that leave, so that policies are about them no more. The control
//! plane does not know how long a pod that leaves is still called through its proxy; who keeps its listeners does, and says it with this.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::util::pack_any;
use prost::{Message, Name};

use super::{RULES, policy, policy_name, requests};
use crate::{Resource, mesh::parts::extension};

/// The extension of such a pod.
pub fn open_policy(uid: &str) -> Resource {
    policy(uid, "", None)
}

/// Whether this is the extension of such a pod.
pub fn is_open_policy(uid: &str, policy: &Resource) -> bool {
    **policy.name() == *policy_name(uid) && policy.body() == open_policy(uid).body()
}

/// The rules about requests, by which all requests to these pods are let in, too: over connections from a time when rules looked at them. None
/// if that is another resource.
pub fn rules_with<'a>(rules: &Resource, uids: impl Iterator<Item = &'a str>) -> Option<Resource> {
    let config = TypedExtensionConfig::decode(rules.body().value.as_slice()).ok()?;
    let typed = config.typed_config.filter(|any| any.type_url == Rbac::type_url())?;
    let mut decoded = Rbac::decode(typed.value.as_slice()).ok()?;
    uids.for_each(|uid| requests::admit(&mut decoded, uid));
    Some(Resource::new(RULES, pack_any(extension(RULES, decoded))))
}

#[cfg(test)]
mod tests {
    use meshwright_core::mesh::{Authorization, Node, PodPolicy, Rule, RuleSet};

    use super::*;

    #[test]
    fn a_policy_is_open_where_nobody_is_refused() {
        let deny = |ports: &[u16]| PodPolicy {
            authorization: Authorization {
                enforced: RuleSet {
                    allow: None,
                    deny: vec![Rule { ports: ports.iter().copied().collect(), ..Rule::default() }],
                },
                tried: None,
            },
            ..PodPolicy::default()
        };
        assert!(is_open_policy("u1", &open_policy("u1")) && !is_open_policy("u1", &open_policy("u2")));
        for (made, expected) in [(None, true), (Some(PodPolicy::default()), true), (Some(deny(&[80])), false)]
        {
            assert_eq!(is_open_policy("u1", &policy("u1", "spiffe://td/a", made.as_ref())), expected);
        }
        let node = Node { policies: [("u1".to_owned(), deny(&[80]).into())].into(), ..Node::default() };
        let before = super::super::rules(Some(&node));
        let count = |rules: &Resource| {
            let config = TypedExtensionConfig::decode(rules.body().value.as_slice()).unwrap();
            let rules = Rbac::decode(config.typed_config.unwrap().value.as_slice()).unwrap();
            rules.rules.unwrap().policies["admitted"].principals.len()
        };
        let after = rules_with(&before, ["u2", "u3"].into_iter()).unwrap();
        assert_eq!((count(&before), count(&after)), (1, 3));
        assert_eq!(rules_with(&before, [].into_iter()).as_ref(), Some(&before), "nothing else is changed");
        assert_eq!(rules_with(&open_policy("u1"), [].into_iter()), None);
    }
}
