//! Why something could not be observed, and how users read it.
//!
//! Other modules decide what an error means for an object; this module does not retry.

use crate::controller::cache::verdicts::Busy;

/// Why something could not be observed. The read is always retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server could not be reached, or refused a read.
    #[error("{0}")]
    Kube(#[from] kube::Error),
    /// The object could not be validated yet.
    #[error("{0}")]
    Busy(#[from] Busy),
    /// It is unknown what was started for the object.
    #[error("its status was written by another version of the operator, and cannot be read; nothing is done")]
    AnotherVersion,
}

/// An error of the API server as one sentence for a user.
pub fn plain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
