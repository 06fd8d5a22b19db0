//! One reconcile loop, and one file for each kind that users write.
//!
//! A reconcile observes, has `plan` decide, applies, and reports. What it reads and what it writes stands in the rooms
//! below; a file here only says in which order, and in what the kind differs.

pub mod backup;
pub mod blueprint;
pub mod context;
pub mod invoker;
pub mod large_objects;
pub mod reconcile;
pub mod repository;
pub mod restore;
