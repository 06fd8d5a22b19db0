//! One binary, several roles: the operator, the agent in its Jobs, and the generator of its definitions.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Declarative backup and restore for Kubernetes.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Write the custom resource definitions, one file a kind.
    Crds {
        /// Folder to write to.
        #[arg(long, default_value = "crds")]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().role {
        Role::Crds { out } => lifeboat::cli::crds::write(&out),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("lifeboat: {message}");
            ExitCode::FAILURE
        }
    }
}
