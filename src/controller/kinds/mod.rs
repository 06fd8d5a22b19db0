//! One reconcile loop, and one file for each kind that users write.

pub mod backup;
pub mod blueprint;
pub mod context;
pub mod invoker;
pub mod large_objects;
pub mod reconcile;
pub mod repository;
pub mod restore;
