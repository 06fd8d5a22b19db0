//! State that the agent and a running step share.

use tokio::sync::watch;

use crate::contract::Progress;

/// State that the agent and a running step share.
#[derive(Clone, Debug)]
pub struct Control {
    /// Receives the progress of the step.
    pub progress: watch::Sender<Progress>,
    /// Becomes true when the step must end.
    pub stop: watch::Receiver<bool>,
}
