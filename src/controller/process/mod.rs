//! The operator's process: what runs in it, which replica leads, and what it serves.
//!
//! Every replica runs all of it but the reconciles, which only the leader does. Nothing here decides about an object.

pub mod certificates;
pub mod clock;
pub mod code_rights;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod owners;
