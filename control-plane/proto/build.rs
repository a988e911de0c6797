//! Generates the gRPC code from `proto/` without needing a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["certificates", "reports", "inspection", "nodes"].map(|name| format!("proto/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    // Agents write them down.
    let written = "#[derive(serde::Serialize, serde::Deserialize)] #[serde(default)]";
    let configured = ["Admission", "CallerRule"].iter().fold(tonic_prost_build::configure(), |all, name| {
        all.type_attribute(format!("meshwright.nodes.v1.{name}"), written)
    });
    configured.compile_fds(descriptors)?;
    Ok(())
}
