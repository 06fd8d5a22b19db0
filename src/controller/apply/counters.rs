//! What is counted of the work. Metrics are made of it.
//!
//! Counting never fails and never changes an outcome.

use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelValue;

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Reconciled {
    /// The object is as it should be for now.
    Done,
    /// It failed, and is tried again.
    Failed,
    /// It was left half way: the operator stopped, or an error was not counted where it happened.
    Abandoned,
}

/// Whoever counts.
pub trait Counters: Send + Sync {
    /// A look at an object of a kind ended.
    fn reconciled(&self, kind: &str, result: Reconciled, took: Duration);
    /// A Job was made for a step (`Step::verb`).
    fn job_created(&self, step: &str);
    /// A run reached a phase that is final.
    fn run_ended(&self, kind: &str, phase: &str, took: Duration);
    /// A step ended with a reason of `names::reason`, or `Other`; `Succeeded` when all went well.
    fn outcome(&self, step: &str, reason: &str);
}

/// A look at an object that is being measured. Dropped before its end, it counts as abandoned.
pub struct Measured<'a> {
    counters: &'a dyn Counters,
    kind: String,
    since: Instant,
    result: Reconciled,
}

impl<'a> Measured<'a> {
    /// Begins to measure a look at an object; end it with [`Measured::end`].
    #[must_use]
    pub fn begin(counters: &'a dyn Counters, kind: &str) -> Self {
        Self { counters, kind: kind.to_owned(), since: Instant::now(), result: Reconciled::Abandoned }
    }

    /// The look ended like this.
    pub fn end(mut self, result: Reconciled) {
        self.result = result;
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.counters.reconciled(&self.kind, self.result, self.since.elapsed());
    }
}
