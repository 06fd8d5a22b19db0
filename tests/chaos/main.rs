//! Chaos: members are restored and backed up while what they depend on is killed, cut off or damaged.
//!
//! A fault comes when status shows that the run is in a certain state, not after a certain time. Whatever the faults,
//! the same judge checks the end: see `judge`. `make chaos RUNS=n SEED=s`; docs/reliability.md has the figures.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod faults;
mod field;
mod follow;
mod inject;
mod judge;
mod runs;
mod states;
mod watched;

// Shared with the end-to-end tests, which use more of them.
#[allow(dead_code)]
#[path = "../e2e/harness.rs"]
mod harness;
#[allow(dead_code)]
#[path = "../e2e/manifests.rs"]
mod manifests;
#[allow(dead_code)]
#[path = "../e2e/proxy.rs"]
mod proxy;
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;
#[path = "../e2e/watchman.rs"]
mod watchman;
