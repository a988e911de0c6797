//! Policies that are in force for a pod, by the same rules as the control plane has.

use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use meshwright_api as api;
use meshwright_core::{
    ObjectKey,
    mesh::{InForce, Plaintext, in_force},
    model::{self, LabelOperator, LabelRequirement, LabelSelector, Meta, Target, World},
};

use super::{Members, modelled};

/// What policies make of a pod, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// Those in force, each with what it is.
    pub names: Vec<String>,
    /// Which plaintext it takes.
    pub plaintext: String,
}

impl Members {
    /// What policies make of a member of the mesh.
    ///
    /// # Errors
    /// In the API server's words, when they could not be read.
    pub fn in_force(&self, pod: &Pod) -> Result<Policies, String> {
        let mut world = World::default();
        for policy in self.authorization.as_ref().map_err(String::clone)? {
            let policy = authorization(policy);
            world.authorization_policies.insert(policy.meta.key.clone(), Arc::new(policy));
        }
        for policy in self.tls.as_ref().map_err(String::clone)? {
            let policy = tls(policy);
            world.mesh_tls_policies.insert(policy.meta.key.clone(), Arc::new(policy));
        }
        let key = ObjectKey::new(pod.namespace().unwrap_or_default(), pod.name_any());
        let pod = modelled(pod);
        let InForce { authorization, tls, plaintext } = in_force(&world, &self.rules, &key, &pod);
        let named = authorization.into_iter().map(|policy| {
            let action = if policy.denies { "DENY" } else { "ALLOW" };
            let mode = if policy.dry_run { ", only tried" } else { "" };
            format!("AuthorizationPolicy {} ({action}{mode})", policy.meta.key)
        });
        let tls = tls.map(|policy| {
            let mode = if policy.strict { "Strict" } else { "Permissive" };
            format!("MeshTLSPolicy {} ({mode})", policy.meta.key)
        });
        Ok(Policies { names: named.chain(tls).collect(), plaintext: words(&plaintext) })
    }
}

fn words(plaintext: &Plaintext) -> String {
    let mut text = if plaintext.refused { "refused" } else { "taken" }.to_owned();
    let ports: Vec<_> = plaintext.except.iter().map(u16::to_string).collect();
    if !ports.is_empty() {
        let _ = write!(text, ", but for ports {}", ports.join(", "));
    }
    if plaintext.refuses_any() {
        text.push_str("; probes of the kubelet come through");
    }
    text
}

// Of rules only what decides about plaintext.
fn authorization(policy: &api::AuthorizationPolicy) -> model::AuthorizationPolicy {
    let rule = |rule: &api::AuthorizationRule| {
        let ports = rule.network_attributes.iter().flat_map(|attributes| &attributes.ports);
        model::AuthorizationRule { ports: ports.filter_map(|one| port(*one)).collect(), ..Default::default() }
    };
    model::AuthorizationPolicy {
        meta: meta(policy),
        target: target(&policy.spec.target_refs),
        denies: policy.spec.action == api::AuthorizationAction::Deny,
        dry_run: policy.spec.mode == api::AuthorizationMode::DryRun,
        rules: policy.spec.rules.iter().map(rule).collect(),
        unreadable: None,
    }
}

fn tls(policy: &api::MeshTLSPolicy) -> model::MeshTlsPolicy {
    let is_strict = |mode: api::TlsMode| mode == api::TlsMode::Strict;
    let ports = policy.spec.ports.iter();
    model::MeshTlsPolicy {
        meta: meta(policy),
        target: target(&policy.spec.target_refs),
        strict: is_strict(policy.spec.mode),
        ports: ports.filter_map(|one| Some((port(one.port)?, is_strict(one.mode)))).collect(),
        unreadable: None,
    }
}

fn meta(object: &impl Resource) -> Meta {
    let meta = object.meta();
    let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    Meta::new(
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
        meta.generation.unwrap_or_default(),
        created,
    )
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok()
}

fn target(refs: &[api::TargetRef]) -> Target {
    let requirement = |one: &api::SelectorRequirement| LabelRequirement {
        key: one.key.clone(),
        operator: match one.operator.as_str() {
            "In" => LabelOperator::In,
            "NotIn" => LabelOperator::NotIn,
            "Exists" => LabelOperator::Exists,
            "DoesNotExist" => LabelOperator::DoesNotExist,
            other => LabelOperator::Unknown(other.to_owned()),
        },
        values: one.values.clone(),
    };
    let selector = |one: &api::TargetRef| LabelSelector {
        match_labels: one.selector.match_labels.clone(),
        match_expressions: one.selector.match_expressions.iter().map(requirement).collect(),
    };
    Target(refs.iter().map(selector).collect())
}
