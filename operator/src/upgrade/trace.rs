//! One OpenTelemetry trace for each upgrade. It is made when the upgrade is over, from its record: an operator that was restarted in
//! the middle tells the same story.

use std::time::{Duration, SystemTime};

use meshwright_api::{DonePhase, UpgradeRecord, UpgradeResult};
use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span, SpanBuilder, Status, TraceContextExt, Tracer},
};

/// Name of the instrumentation scope.
const SCOPE: &str = "meshwright-operator";

/// Hands the trace to the exporter, if there is one.
pub fn export(record: &UpgradeRecord) {
    let tracer = global::tracer(SCOPE);
    let started = SystemTime::from(record.started.0);
    let root = SpanBuilder::from_name("upgrade").with_start_time(started).with_attributes(of_upgrade(record));
    let mut root = tracer.build_with_context(root, &Context::new());
    if record.result != UpgradeResult::Succeeded {
        root.set_status(Status::error(record.reason.clone()));
    }
    let context = Context::new().with_span(root);
    let mut at = started;
    for phase in &record.phases {
        let name = match phase.step {
            Some(step) => format!("{:?} {step}", phase.phase),
            None => format!("{:?}", phase.phase),
        };
        let span = SpanBuilder::from_name(name).with_start_time(at).with_attributes(of_phase(phase));
        at += Duration::from_secs(u64::try_from(phase.seconds).unwrap_or(0));
        tracer.build_with_context(span, &context).end_with_timestamp(at);
    }
    context.span().end_with_timestamp(SystemTime::from(record.ended.0));
}

fn of_upgrade(record: &UpgradeRecord) -> Vec<KeyValue> {
    let approvers: Vec<_> = record.approvals.iter().map(|a| format!("{}: {}", a.step, a.user)).collect();
    vec![
        KeyValue::new("meshwright.revision.from", record.from.clone()),
        KeyValue::new("meshwright.revision.to", record.to.clone()),
        KeyValue::new("meshwright.version.from", record.from_version.clone()),
        KeyValue::new("meshwright.version.to", record.to_version.clone()),
        KeyValue::new("meshwright.upgrade.result", format!("{:?}", record.result)),
        KeyValue::new("meshwright.upgrade.reason", record.reason.clone()),
        KeyValue::new("meshwright.upgrade.approvals", approvers.join(", ")),
    ]
}

fn of_phase(phase: &DonePhase) -> Vec<KeyValue> {
    let Some(verdict) = &phase.verdict else { return Vec::new() };
    vec![
        KeyValue::new("meshwright.verdict", format!("{:?}", verdict.result)),
        KeyValue::new("meshwright.verdict.reason", verdict.reason.clone()),
        KeyValue::new("meshwright.verdict.canary_requests", verdict.canary_requests),
        KeyValue::new("meshwright.verdict.baseline_requests", verdict.baseline_requests),
    ]
}
