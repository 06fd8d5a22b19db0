//! How the operator writes: a client that checks leadership before each write, and the components that record writes.
//!
//! Only the files of this module have access to the client, so that no other module writes.

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

/// The writes of a plan.
pub struct Writes {
    /// Slots and PVCs that Jobs take.
    pub slots: Slots,
    /// Objects that were written and that the watches have not yet delivered.
    pub written: Written,
    /// Counts the operator's work.
    pub counters: Arc<dyn Counters>,
    pub(super) client: Client,
    pub(super) reporter: Reporter,
    pub(super) precedence: Precedence,
    clock: Clock,
}

impl Writes {
    /// Writes through a client that checks leadership. Events are reported by `reporter`.
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
