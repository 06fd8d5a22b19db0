//! Repeated requests: for states that take time, and while the API server is away.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::Api;
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use serde_json::Value;

/// Pause between two looks: a tenth of the time that was waited so far, within these bounds. The API server is the
/// first bottleneck of tests that run side by side.
const PAUSE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_millis(500);
/// Seconds to wait for an API server that a test took away.
const AWAY: u64 = 120;
/// Longest wait for an answer of the API server: a paused API server keeps its connections.
const ANSWER: Duration = Duration::from_secs(15);

/// Repeats a request while the API server is away or coming back, so that a test may take it away. A refusal is an
/// answer.
pub async fn steadily<T>(mut ask: impl AsyncFnMut() -> kube::Result<T>) -> kube::Result<T> {
    let mut last = None;
    let answer = eventually(AWAY, async || match tokio::time::timeout(ANSWER, ask()).await {
        Ok(Err(kube::Error::Api(status))) if status.code < 500 && status.code != 429 => {
            Some(Err(kube::Error::Api(status)))
        }
        Ok(Err(error)) => {
            last = Some(error);
            None
        }
        Ok(Ok(answer)) => Some(Ok(answer)),
        Err(_) => None,
    });
    match (answer.await, last) {
        (Some(answer), _) => answer,
        (None, Some(error)) => Err(error),
        (None, None) => panic!("the API server did not answer for {AWAY} s"),
    }
}

/// Looks repeatedly until there is an answer, or the time is over.
pub async fn eventually<T>(seconds: u64, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let since = Instant::now();
    loop {
        if let Some(answer) = look().await {
            return Some(answer);
        }
        if since.elapsed() >= Duration::from_secs(seconds) {
            return None;
        }
        tokio::time::sleep((since.elapsed() / 10).clamp(*PAUSE.start(), *PAUSE.end())).await;
    }
}

/// Waits until an object is as wanted; if not in time, returns its last state. A missing object is `Null`. A watch
/// reports the changes, so no state of the object is missed and no request is repeated meanwhile.
pub async fn followed(
    api: &Api<DynamicObject>,
    name: &str,
    seconds: u64,
    is: impl Fn(&Value) -> bool,
) -> Result<Value, Value> {
    let (mut last, deadline) = (Value::Null, Instant::now() + Duration::from_secs(seconds));
    let found = eventually(seconds, async || {
        let found = steadily(async || api.get_opt(name).await).await.unwrap();
        last = found.map_or(Value::Null, |o| serde_json::to_value(o).unwrap());
        if is(&last) {
            return Some(last.clone());
        }
        // A missing object is looked for repeatedly.
        let version = last["metadata"]["resourceVersion"].as_str()?.to_owned();
        let of_it = WatchParams::default().fields(&format!("metadata.name={name}"));
        let heard = async {
            let mut events = api.watch(&of_it, &version).await.ok()?.boxed();
            while let Some(Ok(event)) = events.next().await {
                last = match event {
                    WatchEvent::Added(o) | WatchEvent::Modified(o) => serde_json::to_value(o).unwrap(),
                    WatchEvent::Deleted(_) => Value::Null,
                    WatchEvent::Bookmark(_) | WatchEvent::Error(_) => return None,
                };
                if is(&last) {
                    return Some(last.clone());
                }
            }
            None
        };
        // A watch may be silent because the API server is silent.
        let limit = ANSWER.min(deadline.saturating_duration_since(Instant::now()));
        tokio::time::timeout(limit, heard).await.ok().flatten()
    });
    match found.await {
        Some(object) => Ok(object),
        None => Err(last),
    }
}
