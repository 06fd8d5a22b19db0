//! Asks running Jobs how far they are. Best effort: an answer that does not come is no fault.
//!
//! The only question that goes to a pod and not to the API server. Nothing is decided by its answer.

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

/// A Job answers from memory; what takes longer is a network that drops packets.
const PATIENCE: Duration = Duration::from_millis(500);
/// The answer is one small JSON object.
const ANSWER_LIMIT: usize = 4096;

/// The client that asks.
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
