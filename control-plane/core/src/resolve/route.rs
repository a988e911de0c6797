//! The status of one route under one parent.

use super::compile::CompiledRoute;
use crate::conditions::{ACCEPTED, PARTIALLY_INVALID, RESOLVED_REFS, ROUTE_PROGRAMMED, reason};
use crate::model::{HttpRoute, ParentRef, World};
use crate::status::{ConditionStatus, ConditionUpdate, Finding, RouteParentStatus};

/// Whether no rule of the route can be had. It still takes its requests, and answers 500.
pub(crate) fn is_wholly_invalid(compiled: &CompiledRoute) -> bool {
    !compiled.invalid.is_empty() && compiled.invalid.len() == compiled.rules.len()
}

/// The entry for one parentRef; `attached` is what attaching found: why it is not, or what is to be said although it is.
pub(crate) fn parent_status(
    route: &HttpRoute,
    reference: &ParentRef,
    attached: Result<Option<String>, Finding>,
    compiled: &CompiledRoute,
    world: &World,
) -> RouteParentStatus {
    let generation = route.meta.generation;
    let invalid = compiled.invalid.first().filter(|_| is_wholly_invalid(compiled));
    let (refused, remark) = match attached {
        Ok(remark) => (None, remark),
        Err(finding) => (Some(finding), None),
    };
    let finding = refused.or_else(|| invalid.map(|(index, finding)| about_rule(route, *index, finding)));
    let accepted = match (&finding, remark) {
        (Some(finding), _) => ConditionUpdate::bad(ACCEPTED, finding, generation),
        (None, remark) => ConditionUpdate {
            message: remark.unwrap_or_default(),
            ..ConditionUpdate::ok(ACCEPTED, reason::ACCEPTED, generation)
        },
    };
    let mut conditions = vec![
        accepted,
        ConditionUpdate::from_finding(
            RESOLVED_REFS,
            compiled.unresolved.as_ref(),
            reason::RESOLVED_REFS,
            generation,
        ),
    ];
    if let (None, Some((index, first))) = (&finding, compiled.invalid.first()) {
        let about = about_rule(route, *index, first);
        conditions.push(ConditionUpdate {
            kind: PARTIALLY_INVALID,
            status: ConditionStatus::True,
            reason: reason::UNSUPPORTED_VALUE,
            // The API prescribes how the message starts.
            message: format!("Dropped Rule, its requests get 500: {}", about.message),
            observed_generation: generation,
        });
    }
    if let Some(words) = world.rejections.get(&route.id()) {
        let finding =
            Finding::new(reason::REJECTED_BY_PROXY, format!("a proxy refused the configuration: {words}"));
        conditions.push(ConditionUpdate::bad(ROUTE_PROGRAMMED, &finding, generation));
    }
    RouteParentStatus { parent_ref: reference.clone(), conditions }
}

fn about_rule(route: &HttpRoute, index: usize, finding: &Finding) -> Finding {
    let name = route.rules.get(index).and_then(|rule| rule.name.as_deref());
    let rule = name.map_or_else(|| format!("rules[{index}]"), |name| format!("rules[{index}] ({name})"));
    Finding::new(finding.reason, format!("{rule}: {}", finding.message))
}
