//! What should happen next: pure functions.
//!
//! No async, no client, no clock, no environment, no randomness: time is an
//! argument, so that every decision can be tried thousands of times a second.

pub mod contract;
pub mod duration;
pub mod hosts;
pub mod restic_args;
pub mod schedule;
