//! How the operator writes: a client that asks for leadership before each write, and those who have to know of one.
//!
//! Only the files of this room get at the client, so that no other room writes.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::runtime::events::Reporter;

use crate::controller::apply::counters::Counters;
use crate::controller::apply::fence::Fenced;
use crate::controller::apply::precedence::Precedence;
use crate::controller::cache::read_your_writes::Written;
use crate::controller::cache::slots::Slots;
use crate::controller::observe::reads::Clock;

/// The writes of a decision.
pub struct Writes {
    /// Slots and claims that Jobs take.
    pub slots: Slots,
    /// What was written, and the watches have not told yet.
    pub written: Written,
    /// Counts what was done.
    pub counters: Arc<dyn Counters>,
    pub(super) client: Client,
    pub(super) reporter: Reporter,
    pub(super) precedence: Precedence,
    clock: Clock,
}

impl Writes {
    /// Writes by a client that asks for leadership. Events are reported by `reporter`.
    pub fn new(client: &Fenced, reporter: Reporter, slots: Slots, counters: Arc<dyn Counters>, clock: Clock) -> Self {
        Self {
            slots,
            written: Written::default(),
            counters,
            client: client.client(),
            reporter,
            precedence: Precedence::default(),
            clock,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.clock)()
    }
}
