//! What should happen next: pure functions.
//!
//! No async, no client, no clock, no environment, no randomness: time is an argument, so that every decision can be
//! tried thousands of times a second. A reconcile reads the cluster once ([`seen`]), decides here, applies the plan
//! ([`effects::Plan`]), and writes the status that belongs to what was applied.

pub mod backup;
pub mod effects;
#[cfg(test)]
pub(crate) mod fake;
pub mod repository;
pub mod restore;
pub mod run;
pub mod seen;
pub mod setup;
pub mod systems;
pub mod work;
