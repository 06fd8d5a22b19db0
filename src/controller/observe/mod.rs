//! The reads of a decision: everything that `plan` may depend on.
//!
//! All reads go through [`reads::Reads`], which takes a client and stores. This module does not write to the cluster,
//! and uses no leader election. Reads use the watches where that is enough, so that a reconcile costs the API server
//! nothing.

pub mod backup;
pub mod code_rights;
pub mod conflicts;
pub mod errors;
pub mod invoker;
pub mod jobs;
pub mod namespace;
pub mod openshift;
pub mod progress;
pub mod reads;
pub mod repository;
pub mod restore;
pub mod secrets;
pub mod targets;
pub mod usage;
pub mod validity;
