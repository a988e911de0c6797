//! Generates the gRPC code from `proto/` without needing a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["certificates", "reports", "inspection", "nodes"].map(|name| format!("proto/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
