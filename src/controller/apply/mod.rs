//! The writes of a decision: objects, rights, sessions, status.
//!
//! Nothing here decides anything.

pub mod objects;
pub mod precedence;
pub mod rbac;
pub mod sessions;
pub mod status;
pub mod workloads;
