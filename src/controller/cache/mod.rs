//! State of the cluster that the operator knows without a request: stores filled by watches, their indexes, and the
//! ledgers that follow them.
//!
//! This module makes no decisions and does not write to the cluster. Its state is not needed to continue: after a start
//! all of it is rebuilt from the watches.

pub mod budget;
pub mod children;
pub mod consumers;
pub mod facts;
pub mod index;
pub mod informers;
pub mod invokers;
pub mod listings;
pub mod pages;
pub mod queue;
pub mod read_your_writes;
pub mod scope;
pub mod series;
pub mod slots;
pub mod sources;
pub mod stored;
pub mod stores;
pub mod triggers;
pub mod verdicts;
