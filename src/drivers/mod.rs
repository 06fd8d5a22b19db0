//! One room per external system.
//!
//! A driver knows its system and `contract`, and nothing of Kubernetes or
//! of the kinds users write. It never decides what a run does next: it does one
//! step and says truthfully how that ended.

pub mod control;
pub mod done;
#[cfg(test)]
pub mod mock;
pub mod restic;
