//! The operator's process against a real API server, without a node: the tests play kubelet and Job controller.
//!
//! `make test-api` starts the cluster and runs the tests in parallel on one API server: each has its own namespaces,
//! and operators that work only in these ([`cluster::Cluster::enter`]). A few need the cluster to themselves
//! ([`cluster::Cluster::alone`]), and their operator works in all namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod arrival;
mod backups;
mod canceled;
#[allow(dead_code, reason = "some of it is for tenants that attack")]
mod cluster;
mod code_rights;
mod definitions;
mod extraneous;
mod front;
mod held;
#[allow(dead_code, reason = "some of it is for tenants that attack")]
mod installed;
mod jobs;
mod lateness;
mod leadership;
mod leaving;
mod manifests;
mod namespaces;
mod openshift;
#[allow(dead_code, reason = "some of it is for tests on a node")]
mod operator;
mod oversized;
mod readme;
mod ready;
mod refusals;
mod repository;
mod restarts;
mod runs;
mod scales;
mod settings;
mod snapshots;
mod targets;
mod weather;
mod webhook;
