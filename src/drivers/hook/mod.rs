//! The actions of hooks that need no Kubernetes: HTTP requests, TCP connections, and commands in the Job itself.
//!
//! Every action is tried once. Messages name hosts, ports and exit codes, never paths, headers or bodies.

pub mod command;
pub mod http;
pub mod output;
mod redirect;

use tokio::net::TcpStream;

use crate::contract::hook::Address;
use crate::contract::{Class, Failure};
use crate::names::reason;

/// The failure of an action. It is not retried: a hook runs once.
pub fn failed(label: &str, why: &str) -> Failure {
    Failure::new(Class::Fatal, reason::HOOK_FAILED, format!("{label}: {why}"))
}

/// Opens a connection and closes it.
///
/// # Errors
/// The connection could not be opened; why.
pub async fn connect(address: &Address) -> Result<(), String> {
    TcpStream::connect((address.host.as_str(), address.port)).await.map(drop).map_err(|e| format!("{e}."))
}
