//! What a container runtime starts for each pod; see the library.

use std::{io::Read, process::ExitCode};

use meshwright_cni::{Failure, run};

fn main() -> ExitCode {
    let mut config = Vec::new();
    let read =
        std::io::stdin().read_to_end(&mut config).map_err(|e| Failure::io("read the configuration", &e));
    match read.and_then(|_| run(|name| std::env::var(name).ok(), &config)) {
        Ok(output) => {
            print!("{output}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{}", failure.to_json());
            ExitCode::FAILURE
        }
    }
}
