//! What is seen of a kind of object from the first to the last, API server or not.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::task::JoinHandle;

/// Pause before an API server that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long one watch may last; also the bound on the silence of a server that was paused.
const WATCH: u32 = 60;

/// Ends with its owner.
pub struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Tells `see` of every version of every object: those that there are, and `None` for one that went.
/// After an outage it goes on from what there is then.
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
