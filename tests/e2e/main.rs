//! End to end: the installed operator on a real node, and trees compared byte for byte.
//!
//! `make test-e2e` starts a cluster for them. Each test has a namespace and a bucket of its own, so
//! that they run side by side. The name of a test says what its scenario id (A01) means.
//! Data is put into volumes and compared from the host, without the code under test.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod applications;
mod backup;
mod backup_faults;
mod batch;
#[allow(dead_code, reason = "some of it is for tests without a node")]
#[path = "../api/cluster.rs"]
mod cluster;
mod deaths;
mod elsewhere;
mod faults;
#[allow(dead_code, reason = "some of it is for tests without a node")]
#[path = "../api/front.rs"]
mod front;
#[allow(dead_code, reason = "some of it is for the chaos harness")]
mod harness;
mod howto;
mod interrupted;
mod manifests;
mod newcomer;
#[allow(dead_code, reason = "some of it is for tests without a node")]
#[path = "../api/operator.rs"]
mod operator;
mod oversized;
#[allow(dead_code, reason = "some of it is for the chaos harness")]
mod proxy;
mod ready;
mod reports;
mod repository;
mod restore;
mod rights;
mod selection;
mod settings;
mod snapshots;
mod store;
mod targets;
mod tenants;
mod two_nodes;
mod watchman;

#[path = "../support/repository.rs"]
mod quick_repository;
#[path = "../support/mod.rs"]
mod support;
