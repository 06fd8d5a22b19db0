//! How a step ended.

use crate::contract::Answer;
use crate::contract::Failure;

/// How a step ended. Both may be present: what was done before it failed.
#[derive(Debug, Default, PartialEq)]
pub struct Done {
    /// What was found or done.
    pub answer: Option<Answer>,
    /// Why the step failed.
    pub failure: Option<Failure>,
    /// It failed before it wrote anything to the volumes.
    pub untouched: bool,
    /// What is to be known of it, though it is no failure.
    pub warnings: Vec<String>,
}

impl Done {
    /// A step that did all it was asked for.
    pub fn ok(answer: impl Into<Answer>) -> Self {
        Self { answer: Some(answer.into()), ..Self::default() }
    }

    /// A step that may have failed after what it did.
    pub fn of(answer: impl Into<Answer>, failure: Option<Failure>) -> Self {
        Self { failure, ..Self::ok(answer) }
    }

    /// A step that did nothing that is known.
    pub fn failed(failure: Failure) -> Self {
        Self { failure: Some(failure), ..Self::default() }
    }

    /// A failure before the first write.
    pub fn untouched(failure: Failure) -> Self {
        Self { untouched: true, ..Self::failed(failure) }
    }
}
