//! Tenants that attack another namespace or the operator, or that try to get a right that they do not have.
//!
//! `make test-tenants` starts an API server and runs the tests. Each attacker is impersonated, so that the API server's
//! own RBAC decides what the attacker can write. The test itself plays the node of the attacker (it runs a pod that
//! lies). The tests run in parallel like those of the API tier; the operator of each works in the namespaces of both
//! tenants. Assertions are about the victim. SECURITY.md lists the test for each attack.

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
