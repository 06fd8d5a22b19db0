//! Follows the objects of a kind from the first to the last, even while the API server is away.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

/// Pause before the next request to an API server that did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one watch may last. This also bounds the silence of an API server that was paused.
const WATCH: u32 = 60;

/// The task that follows the objects. It ends when this value is dropped.
pub struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Calls `see` for every version of every object: with the object while it exists, and with `None` once it is gone.
/// After an outage, it continues with the objects that exist then.
pub fn follow<K>(api: Api<K>, mut see: impl FnMut(&str, Option<&K>) + Send + 'static) -> Following
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    Following(tokio::spawn(async move {
        let mut there: BTreeSet<String> = BTreeSet::new();
        loop {
            let Ok(list) = api.list(&ListParams::default()).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let now: BTreeSet<String> = list.items.iter().map(|o| o.uid().unwrap_or_default()).collect();
            there.difference(&now).for_each(|uid| see(uid, None));
            there = now;
            list.items.iter().for_each(|o| see(&o.uid().unwrap_or_default(), Some(o)));
            let since = list.metadata.resource_version.unwrap_or_default();
            let Ok(events) = api.watch(&WatchParams::default().timeout(WATCH), &since).await else { continue };
            let mut events = std::pin::pin!(events);
            while let Some(Ok(event)) = events.next().await {
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        let uid = object.uid().unwrap_or_default();
                        there.insert(uid.clone());
                        see(&uid, Some(&object));
                    }
                    WatchEvent::Deleted(object) => {
                        let uid = object.uid().unwrap_or_default();
                        there.remove(&uid);
                        see(&uid, None);
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(_) => break,
                }
            }
        }
    }))
}
