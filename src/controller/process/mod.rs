//! The operator's process: what runs in it, which replica leads, and what it serves.

pub mod certificates;
pub mod clock;
pub mod code_rights;
pub mod http;
pub mod leader;
pub mod metrics;
pub mod operator;
pub mod owners;
