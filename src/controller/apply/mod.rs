//! The writes of a plan: objects, rights, sessions, status.
//!
//! This module makes no decisions. Plans are applied only here, and no other module has a client that writes.
//! Each write first checks whether this replica leads.

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
