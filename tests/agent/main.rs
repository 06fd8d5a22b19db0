//! The agent with the real restic, as a Job would run it: one process per step, task by environment, outcome by file.
//!
//! restic is found by `LIFEBOAT_RESTIC` or on the PATH; without restic these tests fail instead of passing unnoticed.
//! Some tests need root, to give files their owners and to mount a small file system; they report when it is missing.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod again;
mod arguments;
mod backup;
mod exact;
mod exact_patterns;
mod links;
mod lost;
mod obstacles;
mod process;
#[path = "../support/repository.rs"]
mod quick_repository;
mod reports;
mod repository;
mod restore;
mod site;
mod stores;
#[path = "../support/mod.rs"]
mod support;
mod volume;
