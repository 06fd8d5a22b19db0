//! Whether a backend Secret is there. Asked for by name and for metadata only:
//! a watch would need the right to list the Secrets of the whole cluster. An answer
//! serves all who use the same Repository, for a short while.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
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

/// What was last heard of each.
#[derive(Default)]
pub struct Secrets(Mutex<HashMap<(String, String), Answer>>);

#[derive(Clone, Copy)]
struct Answer {
    at: Instant,
    there: bool,
}

impl Answer {
    fn holds(&self, now: Instant) -> bool {
        now - self.at < if self.there { THERE_FOR } else { MISSING_FOR }
    }
}

impl Secrets {
    /// Whether the Secret is there.
    pub async fn look(&self, client: &Client, namespace: &str, name: &str) -> Seen<()> {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let there = match known.filter(|a| a.holds(Instant::now())) {
            Some(answer) => answer.there,
            None => {
                let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
                let at = Instant::now();
                let there = match api.get_metadata_opt(name).await {
                    Ok(found) => found.is_some(),
                    Err(e) => return Seen::Unknown(plain(&e)),
                };
                let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                all.retain(|_, a| a.holds(at));
                all.insert(key, Answer { at, there });
                there
            }
        };
        if there { Seen::Found(()) } else { Seen::Missing }
    }
}
