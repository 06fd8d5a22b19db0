//! Reports the progress of a step: in the log, and by `GET /progress`.
//!
//! Best effort: a port that is in use, or a slow reader, does not change the result of a step.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::contract::Progress;

/// Interval between lines, so that the log stays short.
const EVERY: Duration = Duration::from_secs(5);

/// Answers `GET /progress` until the future is dropped.
pub async fn serve(port: u16, progress: watch::Receiver<Progress>) {
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(%error, port, "progress is not available");
            return;
        }
    };
    if let Err(error) = axum::serve(listener, router(progress)).await {
        tracing::warn!(%error, "progress is no longer available");
    }
}

fn router(progress: watch::Receiver<Progress>) -> Router {
    let answer = |State(progress): State<watch::Receiver<Progress>>| async move { Json(*progress.borrow()) };
    Router::new().route("/progress", get(answer)).with_state(progress)
}

/// Logs changes, and the last state when the step has ended.
pub async fn log(mut progress: watch::Receiver<Progress>) {
    let mut logged = Progress::default();
    let mut tick = tokio::time::interval(EVERY);
    loop {
        let ended = tokio::select! {
            _ = tick.tick() => false,
            _ = progress.wait_for(|_| false) => true,
        };
        let now = *progress.borrow();
        if now != logged {
            line(now);
            logged = now;
        }
        if ended {
            return;
        }
    }
}

fn line(p: Progress) {
    tracing::info!(
        percent = (p.percent * 10.0).round() / 10.0,
        bytes_done = p.bytes_done,
        bytes_total = p.bytes_total,
        files_done = p.files_done,
        files_total = p.files_total,
        "progress"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt;

    #[tokio::test]
    async fn progress_is_answered_as_json() {
        let (tell, progress) = watch::channel(Progress::default());
        tell.send_replace(Progress { percent: 50.0, bytes_done: 1, bytes_total: 2, files_done: 3, files_total: 4 });
        let request = axum::http::Request::get("/progress").body(axum::body::Body::empty()).unwrap();
        let response = router(progress).oneshot(request).await.unwrap();
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let read: Progress = serde_json::from_slice(&body).unwrap();
        assert_eq!((read.bytes_done, read.files_total), (1, 4));
    }

    #[tokio::test]
    async fn the_log_ends_with_the_step() {
        let (tell, progress) = watch::channel(Progress::default());
        let log = tokio::spawn(log(progress));
        for n in 0..100 {
            tell.send_replace(Progress { bytes_done: n, ..Progress::default() });
        }
        drop(tell);
        tokio::time::timeout(Duration::from_secs(3), log).await.unwrap().unwrap();
    }
}
