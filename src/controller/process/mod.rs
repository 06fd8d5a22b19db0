//! The operator's process: what runs in it, which replica leads, and what it serves.
//!
//! Every replica runs everything except the reconciles, which only the leader runs. This module makes no decisions
//! about objects.

pub mod certificates;
pub mod clock;
pub mod code_rights;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod owners;
