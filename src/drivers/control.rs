//! What the agent and a running step share.

use tokio::sync::watch;

use crate::contract::Progress;

/// What the agent and a running step share.
#[derive(Clone, Debug)]
pub struct Control {
    /// Told how far the step is.
    pub progress: watch::Sender<Progress>,
    /// Becomes true when the step must end.
    pub stop: watch::Receiver<bool>,
}
