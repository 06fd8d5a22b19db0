//! Looks again and again, for what takes its time and while the API server is away.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(250);
/// Seconds that an API server which a test took away is waited for.
const AWAY: u64 = 120;
/// Longest wait for one of its answers: one that is paused keeps its connections.
const ANSWER: Duration = Duration::from_secs(15);

/// Asks again while the API server is away or coming back, so that a test may take it away. What it refuses is an answer.
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

/// Looks again and again until there is an answer, or the time is over.
pub async fn eventually<T>(seconds: u64, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(answer) = look().await {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}
