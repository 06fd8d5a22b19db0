//! One reconcile loop, and one file for each kind that users write.
//!
//! A reconcile observes, has `plan` decide, applies, and reports. The reads and writes are in the lower modules. A file
//! here defines only their order and the differences of its kind.

pub mod backup;
pub mod blueprint;
pub mod context;
pub mod invoker;
pub mod large_objects;
pub mod reconcile;
pub mod repository;
pub mod restore;
