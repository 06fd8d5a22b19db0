//! Why a step failed, and what that means for the run.

use serde::{Deserialize, Serialize};

/// Why something failed.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Failure {
    /// Decides what happens next.
    pub class: Class,
    /// PascalCase, one of `names::reason`.
    pub reason: String,
    /// What happened, to what, and what to do.
    pub message: String,
    /// Exit code of the data mover, where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl Failure {
    /// A failure without an exit code.
    pub fn new(class: Class, reason: &str, message: impl Into<String>) -> Self {
        Self { class, reason: reason.to_owned(), message: message.into(), exit_code: None }
    }
}

/// What a failure means for the run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Class {
    /// The user's object or settings are wrong; only a change of them helps.
    Invalid,
    /// A named object does not exist yet; wait for it.
    Waiting,
    /// Infrastructure: try again within the deadline.
    Transient,
    /// The data is wrong or missing; trying again does not help.
    Data,
    /// A failure of the operator, or unknown; stop.
    #[default]
    Fatal,
}
