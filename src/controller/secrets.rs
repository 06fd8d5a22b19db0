//! Whether a backend Secret is there. Asked for by name and for metadata only:
//! a watch would need the right to list the Secrets of the whole cluster. An answer
//! serves all who use the same Repository, for a short while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use tokio::time::Instant;

use super::observe::plain;
use crate::plan::observed::Seen;

/// One that was there counts as there for this long. A Job whose Secret has gone does not start and says so.
const THERE_FOR: Duration = Duration::from_secs(30);
/// One that was missing is not asked for again before this.
const MISSING_FOR: Duration = Duration::from_secs(2);

/// What was last heard of each. Who asks while another does waits for the same answer.
#[derive(Default)]
pub struct Secrets(Mutex<HashMap<(String, String), Arc<Known>>>);

type Known = tokio::sync::Mutex<Option<Answer>>;

#[derive(Clone, Copy)]
struct Answer {
    at: Instant,
    there: bool,
}

impl Answer {
    fn holds(&self) -> bool {
        self.at.elapsed() < if self.there { THERE_FOR } else { MISSING_FOR }
    }
}

impl Secrets {
    /// Whether the Secret is there; with `now`, as the API server says at this moment. None is named by "".
    pub async fn look(&self, client: &Client, namespace: &str, name: &str, now: bool) -> Seen<()> {
        if name.is_empty() {
            return Seen::Missing;
        }
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let mut known = known.lock().await;
        let there = if let Some(answer) = known.filter(|a| !now && a.holds()) {
            answer.there
        } else {
            let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
            let there = match api.get_metadata_opt(name).await {
                Ok(found) => found.is_some(),
                Err(e) => return Seen::Unknown(plain(&e)),
            };
            *known = Some(Answer { at: Instant::now(), there });
            there
        };
        if there { Seen::Found(()) } else { Seen::Missing }
    }
}
