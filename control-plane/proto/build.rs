//! Generates the gRPC code from `proto/` without needing a protoc on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = protox::compile(["proto/certificates.proto"], ["proto"])?;
    println!("cargo:rerun-if-changed=proto/certificates.proto");
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
