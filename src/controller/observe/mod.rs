//! The reads of a decision: everything that `plan` may depend on.
//!
//! Nothing here writes to the cluster.

pub mod jobs;
pub mod openshift;
pub mod progress;
pub mod secrets;
pub mod targets;
pub mod validity;
