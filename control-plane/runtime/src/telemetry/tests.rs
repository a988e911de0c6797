use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::*;

/// A collector that passes on what it gets, as text.
#[derive(Clone)]
struct Collector(mpsc::UnboundedSender<String>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(format!("traces {:?}", request.into_inner())).ok();
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Collector {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.send(format!("logs {:?}", request.into_inner())).ok();
        Ok(Response::new(Default::default()))
    }
}

/// In a process of its own, because a subscriber is the whole process's and the endpoint is in its environment.
#[tokio::test]
async fn spans_and_logs_reach_a_collector() {
    let (sender, mut received) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let collector = Collector(sender);
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(LogsServiceServer::new(collector));
    tokio::spawn(server.serve_with_incoming(incoming));
    let program = std::env::current_exe().unwrap();
    let mut exporting = tokio::process::Command::new(program);
    exporting.args(["--exact", "telemetry::tests::exports", "--ignored"]).stdout(std::process::Stdio::null());
    let status = exporting.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).status();
    let status = tokio::time::timeout(Duration::from_secs(60), status).await.unwrap().unwrap();
    assert!(status.success());
    received.close();
    let mut all = String::new();
    while let Some(text) = received.recv().await {
        all += &text;
    }
    for wanted in ["traces", "logs", "an upgrade", "step taken", "a-service"] {
        assert!(all.contains(wanted), "{wanted} is not in {all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the part of spans_and_logs_reach_a_collector that runs in a process of its own"]
async fn exports() {
    let args = Args { log_filter: "info".to_owned(), log_format: Format::Json };
    let guard = init("a-service", &args).unwrap();
    tracing::info_span!("an upgrade").in_scope(|| tracing::info!("step taken"));
    drop(guard);
}
