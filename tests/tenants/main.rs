//! Tenants that attack: another namespace, the operator, or a right that they do not have.
//!
//! `make test-tenants` starts an API server and runs them. Each attacker is impersonated, so that the API server's
//! own RBAC decides what he can write; what he would have a node do (run a pod that lies) the test does for him. They run
//! beside each other as those of the API tier do; the operator of each works in the namespaces of both tenants.
//! Assertions are on the victim. SECURITY.md says which test shows what.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod actors;
mod bounds;
mod children;
mod elsewhere;
mod facts;
mod forged;
mod places;
mod revoked;
mod rights;
mod scene;
mod slow;
mod variations;

#[allow(dead_code, reason = "shared with the tests of the API tier")]
#[path = "../api/cluster.rs"]
mod cluster;
#[allow(dead_code, reason = "shared with the tests of the API tier")]
#[path = "../api/installed.rs"]
mod installed;
#[allow(dead_code, reason = "shared with the tests of the API tier")]
#[path = "../api/jobs.rs"]
mod jobs;
#[allow(dead_code, reason = "shared with the tests of the API tier")]
#[path = "../api/operator.rs"]
mod operator;
