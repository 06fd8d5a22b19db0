//! How a step ended.

use crate::contract::Answer;
use crate::contract::Failure;

/// How a step ended. A step that failed may have both an answer and a failure: what it did, and why it failed.
#[derive(Debug, Default, PartialEq)]
pub struct Done {
    /// What was found or done.
    pub answer: Option<Answer>,
    /// Why the step failed.
    pub failure: Option<Failure>,
    /// The step failed before it wrote anything to the volumes.
    pub untouched: bool,
    /// Messages for the user about the step that are not failures.
    pub warnings: Vec<String>,
}

impl Done {
    /// A step that did everything that was requested.
    pub fn ok(answer: impl Into<Answer>) -> Self {
        Self { answer: Some(answer.into()), ..Self::default() }
    }

    /// A step that did something, and may then have failed.
    pub fn of(answer: impl Into<Answer>, failure: Option<Failure>) -> Self {
        Self { failure, ..Self::ok(answer) }
    }

    /// A failed step without a known result.
    pub fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// A failure before the first write.
    pub fn untouched(failure: Failure) -> Self {
        Self { untouched: true, ..Self::failed(failure) }
    }
}
