//! Logs on stdout, and traces and logs over OTLP when `OTEL_EXPORTER_OTLP_ENDPOINT` is set.

use std::sync::Arc;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_sdk::{Resource, logs::SdkLoggerProvider, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// How to log.
#[derive(Clone, Debug, clap::Args)]
// Without its group, which is named after the type: every flattened struct here is called Args.
#[group(skip)]
pub struct Args {
    /// Which events to log: a level, or directives such as `info,meshwright_xds=debug`
    #[arg(long, env = "MESHWRIGHT_LOG", default_value = "info")]
    pub log_filter: String,
    /// Format of the log lines
    #[arg(long, env = "MESHWRIGHT_LOG_FORMAT", default_value = "plain")]
    pub log_format: Format,
}

/// Format of the log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Plain,
    /// One JSON object a line.
    Json,
}

/// Telemetry could not be set up, or a filter does not parse.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter's directives are malformed.
    #[error("parse log filter {filter:?}: {source}")]
    Filter {
        /// The rejected text.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The subscriber is gone.
    #[error("replace log filter: {0}")]
    Reload(#[from] reload::Error),
    /// The OTLP exporter refused its configuration.
    #[error("set up OTLP exporter")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A subscriber is installed already.
    #[error("install log subscriber")]
    Install(#[from] tracing_subscriber::util::TryInitError),
    /// OTLP needs a runtime for its connection.
    #[error("set up OTLP exporter outside of a tokio runtime")]
    NoRuntime,
}

type SetFilter = dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync;

/// Changes the log filter at run time.
#[derive(Clone)]
pub struct Level(Option<Arc<SetFilter>>);

impl Level {
    /// A level that changes nothing, for tests.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Replaces the filter.
    pub fn set(&self, filter: &str) -> Result<(), Error> {
        let parsed = parse(filter)?;
        if let Some(set) = &self.0 {
            set(parsed)?;
        }
        Ok(())
    }
}

/// Keeps the exporters alive; dropping it flushes and shuts them down, so hold it until the end of `main`.
#[must_use = "dropping the guard stops the export of traces and logs"]
pub struct Guard {
    level: Level,
    traces: Option<SdkTracerProvider>,
    logs: Option<SdkLoggerProvider>,
}

impl Guard {
    /// The handle for `PUT /loglevel`.
    pub fn level(&self) -> Level {
        self.level.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Standard error, because the subscriber exports through what is being shut down.
        if let Some(Err(e)) = self.traces.take().map(|p| p.shutdown()) {
            eprintln!("shut down trace export: {e}");
        }
        if let Some(Err(e)) = self.logs.take().map(|p| p.shutdown()) {
            eprintln!("shut down log export: {e}");
        }
    }
}

/// Installs the subscriber. `service` becomes `service.name` unless `OTEL_SERVICE_NAME` says otherwise.
pub fn init(service: &'static str, args: &Args) -> Result<Guard, Error> {
    let (filter, handle) = reload::Layer::new(parse(&args.log_filter)?);
    let (traces, logs) = match std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT") {
        Some(endpoint) if !endpoint.is_empty() => {
            let (traces, logs) = providers(service)?;
            (Some(traces), Some(logs))
        }
        _ => (None, None),
    };
    let console: Box<dyn Layer<Registry> + Send + Sync> = match args.log_format {
        Format::Plain => tracing_subscriber::fmt::layer().with_filter(filter).boxed(),
        Format::Json => {
            tracing_subscriber::fmt::layer().json().flatten_event(true).with_filter(filter).boxed()
        }
    };
    let spans = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(export_filter())
    });
    let records =
        logs.as_ref().map(|provider| OpenTelemetryTracingBridge::new(provider).with_filter(export_filter()));
    if let Some(provider) = &traces {
        // For spans of the past, which no `tracing` span can be.
        opentelemetry::global::set_tracer_provider(provider.clone());
    }
    tracing_subscriber::registry().with(console).with(spans).with(records).try_init()?;
    let level = Level(Some(Arc::new(move |filter| handle.reload(filter))));
    Ok(Guard { level, traces, logs })
}

fn providers(service: &'static str) -> Result<(SdkTracerProvider, SdkLoggerProvider), Error> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(Error::NoRuntime);
    }
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(service);
    }
    let resource = resource.build();
    let spans = opentelemetry_otlp::SpanExporter::builder().with_tonic().build()?;
    let records = opentelemetry_otlp::LogExporter::builder().with_tonic().build()?;
    Ok((
        SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.clone()).build(),
        SdkLoggerProvider::builder().with_batch_exporter(records).with_resource(resource).build(),
    ))
}

// The exporter's own connection must not be exported, or each export would cause the next.
fn export_filter() -> EnvFilter {
    ["hyper=off", "tonic=off", "h2=off", "tower=off", "opentelemetry=off"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(EnvFilter::new("info"), EnvFilter::add_directive)
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder().parse(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests;
