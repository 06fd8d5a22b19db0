//! Asks running Jobs for their progress. Best effort: a missing answer is not an error.
//!
//! This is the only request that goes to a pod and not to the API server. No decision depends on its answer.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use futures::future::join_all;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::contract::{PROGRESS_PORT, Progress};
use crate::plan::seen::job_status::{JobSeen, JobState};

/// A Job answers from memory; if an answer takes longer, the network drops packets.
const PATIENCE: Duration = Duration::from_millis(500);
/// The answer is one small JSON object.
const ANSWER_LIMIT: usize = 4096;

/// The client that asks Jobs for their progress.
#[derive(Clone, Debug)]
pub struct ProgressClient(Client<HttpConnector, Empty<Bytes>>);

impl Default for ProgressClient {
    fn default() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

impl ProgressClient {
    /// Progress of the Jobs that run, by name, as far as they answer.
    pub async fn of(&self, jobs: &[JobSeen]) -> BTreeMap<String, Progress> {
        let running = jobs.iter().filter(|j| matches!(j.state, JobState::Active { .. }) && !j.deleting);
        let asked = running.filter_map(|j| Some((j.name.clone(), j.address.clone()?)));
        let answers = join_all(asked.map(async |(name, address)| Some((name, self.ask(&address).await?)))).await;
        answers.into_iter().flatten().collect()
    }

    async fn ask(&self, address: &str) -> Option<Progress> {
        let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let uri = format!("http://{host}:{PROGRESS_PORT}/progress").parse().ok()?;
        let answer = async {
            let body = Limited::new(self.0.get(uri).await.ok()?.into_body(), ANSWER_LIMIT);
            serde_json::from_slice(&body.collect().await.ok()?.to_bytes()).ok()
        };
        tokio::time::timeout(PATIENCE, answer).await.ok()?
    }
}
