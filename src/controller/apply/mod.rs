//! The writes of a decision: objects, rights, sessions, status.
//!
//! Nothing here decides anything.

pub mod counters;
pub mod fence;
pub mod invoker;
pub mod objects;
pub mod precedence;
pub mod rbac;
pub mod reserve;
pub mod sessions;
pub mod status;
pub mod workloads;
pub mod writes;
