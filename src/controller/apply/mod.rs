//! The writes of a decision: objects, rights, sessions, status.
//!
//! Nothing here decides anything. A plan becomes what was applied only here, and no other room has a client that writes;
//! each write asks first whether this replica leads.

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
