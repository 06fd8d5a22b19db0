//! One module per external system.
//!
//! A driver uses its system and `contract`, and does not depend on Kubernetes or on the kinds that users write. It
//! never decides what a run does next: it does one step and reports truthfully how the step ended.

pub mod application;
pub mod control;
pub mod done;
#[cfg(test)]
pub mod mock;
pub mod restic;
