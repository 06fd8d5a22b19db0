//! Signals to stop.
//!
//! Kubernetes sends SIGTERM and, after the grace period, SIGKILL. On SIGTERM, the driver ends its program, so that
//! the outcome can still be written.

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
                        // Before logging, because the log may block.
                        tell.send_replace(true);
                        tracing::warn!("told to stop");
                    }
                };
                tokio::spawn(wait.in_current_span());
            }
            Err(error) => tracing::warn!(%error, "a signal handler could not be installed"),
        }
    }
    stop
}
