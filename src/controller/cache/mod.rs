//! What the operator knows of the cluster without asking: stores filled by watches, their indexes, and the ledgers that
//! follow them.
//!
//! Nothing here decides anything, or writes to the cluster. Nothing here is needed to go on: after a start all of it is
//! made anew from the watches.

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
