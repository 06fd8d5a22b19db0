//! Counters of the operator's work, from which metrics are made.
//!
//! Counting never fails and never changes an outcome.

use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelValue;

/// How a reconcile ended.
#[derive(Clone, Copy, Debug, EncodeLabelValue, Eq, Hash, PartialEq)]
pub enum Reconciled {
    /// The object is in the desired state for now.
    Done,
    /// The reconcile failed and is retried.
    Failed,
    /// The reconcile did not finish: the operator stopped, or an error was not counted where it happened.
    Abandoned,
}

/// The receiver of counts.
pub trait Counters: Send + Sync {
    /// A reconcile of an object of a kind ended.
    fn reconciled(&self, kind: &str, result: Reconciled, took: Duration);
    /// A Job was made for a step (`Step::verb`).
    fn job_created(&self, step: &str);
    /// A run reached a phase that is final.
    fn run_ended(&self, kind: &str, phase: &str, took: Duration);
    /// A step ended with a reason of `names::reason`, or `Other`; `Succeeded` when it succeeded.
    fn outcome(&self, step: &str, reason: &str);
}

/// The measurement of a reconcile. If it is dropped before its end, the reconcile counts as abandoned.
pub struct Measured<'a> {
    counters: &'a dyn Counters,
    kind: String,
    since: Instant,
    result: Reconciled,
}

impl<'a> Measured<'a> {
    /// Begins to measure a reconcile of an object; end it with [`Measured::end`].
    #[must_use]
    pub fn begin(counters: &'a dyn Counters, kind: &str) -> Self {
        Self { counters, kind: kind.to_owned(), since: Instant::now(), result: Reconciled::Abandoned }
    }

    /// Ends the measurement with a result.
    pub fn end(mut self, result: Reconciled) {
        self.result = result;
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.counters.reconciled(&self.kind, self.result, self.since.elapsed());
    }
}
