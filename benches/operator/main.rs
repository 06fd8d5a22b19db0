//! Speed of the operator, and its requests to the API server: `make bench`.
//!
//! A real etcd and API server, no node: the bench plays kubelet and Job controller. Each section prints its figures;
//! `docs/performance.md` explains and compares them. `make bench ONLY=latency` runs one section.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench ends where it cannot go on")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
#![allow(dead_code, reason = "shares the tests' helpers, and not all of them")]

mod audit;
#[path = "../../tests/api/cluster.rs"]
mod cluster;
#[path = "../support/figures.rs"]
mod figures;
#[path = "../../tests/api/jobs.rs"]
mod jobs;
#[path = "../../tests/api/operator.rs"]
mod operator;
mod sections;
mod world;

#[tokio::main]
async fn main() {
    // `cargo test --all-targets` also runs benches; only `cargo bench` passes this argument.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|o| o == name);
    let cluster = std::sync::Arc::new(cluster::Cluster::alone().await);
    if wanted("latency") {
        sections::latency(&cluster).await;
    }
    if wanted("requests") {
        sections::requests(&cluster).await;
    }
    if wanted("broken") {
        sections::broken(&cluster).await;
    }
    if wanted("batch") {
        sections::batch(&cluster).await;
    }
    if wanted("leader") {
        sections::leader(&cluster).await;
    }
    if wanted("scale") {
        let sizes = std::env::var("SIZES").unwrap_or_else(|_| "1000,10000".to_owned());
        sections::scale(&cluster, sizes.split(',').map(|n| n.parse().unwrap()).collect()).await;
    }
}
