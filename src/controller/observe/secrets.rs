//! Whether a backend Secret exists, and in which version. The Secret is read by name, and only its
//! metadata: a watch would need the right to list the Secrets of the whole cluster. An answer
//! serves all objects that use the same Repository, for a short time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::controller::observe::errors::plain;
use crate::plan::seen::Seen;

/// A Secret that existed counts as existing for this long. A Job whose Secret is gone does not start and reports it.
const THERE_FOR: Duration = Duration::from_secs(30);
/// A Secret that was missing is not read again before this time.
const MISSING_FOR: Duration = Duration::from_secs(2);

/// The last answer for each Secret. A caller that asks during the request of another caller waits for the same answer.
#[derive(Default)]
pub struct Secrets(Mutex<HashMap<(String, String), Arc<Known>>>);

type Known = tokio::sync::Mutex<Option<Answer>>;

#[derive(Clone)]
struct Answer {
    at: Instant,
    /// Version of the Secret, if it exists.
    version: Option<Arc<str>>,
}

impl Answer {
    fn holds(&self) -> bool {
        self.at.elapsed() < if self.version.is_some() { THERE_FOR } else { MISSING_FOR }
    }
}

impl Secrets {
    /// Whether the Secret exists; with `now`, as the API server says at this moment. An empty name means no Secret.
    pub async fn look(&self, client: &Client, namespace: &str, name: &str, now: bool) -> Seen<()> {
        match self.version(client, namespace, name, now).await {
            Seen::Found(_) => Seen::Found(()),
            Seen::Missing => Seen::Missing,
            Seen::Unknown(why) => Seen::Unknown(why),
        }
    }

    /// The version of the Secret, in the same way.
    pub async fn version(&self, client: &Client, namespace: &str, name: &str, now: bool) -> Seen<Arc<str>> {
        if name.is_empty() {
            return Seen::Missing;
        }
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
        let mut known = known.lock().await;
        let version = if let Some(answer) = known.as_ref().filter(|a| !now && a.holds()) {
            answer.version.clone()
        } else {
            let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
            let version = match api.get_metadata_opt(name).await {
                Ok(found) => found.map(|f| f.metadata.resource_version.unwrap_or_default().into()),
                Err(e) => return Seen::Unknown(plain(&e)),
            };
            *known = Some(Answer { at: Instant::now(), version: version.clone() });
            version
        };
        version.map_or(Seen::Missing, Seen::Found)
    }
}
