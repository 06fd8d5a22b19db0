//! Being told to stop.
//!
//! Kubernetes sends SIGTERM and, after the grace period, SIGKILL. The agent passes the
//! first one on (the driver ends its program), so that the outcome is still written.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::Instrument;

/// Becomes true with the first SIGTERM or SIGINT.
pub fn stop_on_signal() -> watch::Receiver<bool> {
    let (tell, stop) = watch::channel(false);
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let tell = tell.clone();
        match signal(kind) {
            Ok(mut signals) => {
                let wait = async move {
                    while signals.recv().await.is_some() {
                        // First: the log may be full.
                        tell.send_replace(true);
                        tracing::warn!("told to stop");
                    }
                };
                tokio::spawn(wait.in_current_span());
            }
            Err(error) => tracing::warn!(%error, "a signal cannot be obeyed"),
        }
    }
    stop
}
