//! Lifeboat: declarative backup and restore for Kubernetes.
//!
//! Folders are rooms, and imports only go up this list (`tests/walls.rs`):
//!
//! ```text
//! names       what we call things
//! digest      hashes; knows nothing else
//! text        texts for people; knows nothing else
//! api         what users write: CRD types, nothing else
//! contract    what a Job is asked and what it answers
//! plan        what should happen next: pure functions
//! admission   api + plan -> default, validate, deny
//! controller  observe -> plan -> apply -> report; talks to Kubernetes, as the agent that lists snapshots does
//!             (cache < observe < apply < kinds < process)
//! drivers     one room per external system; no Kubernetes, no CRD types
//! agent       contract -> drivers -> outcome; runs in Jobs, most without Kubernetes credentials
//! serve       HTTP servers that no client can keep from others; knows nothing else
//! cli         what people run
//! ```
//!
//! Data flows one way: user YAML, defaulted and validated, becomes an object;
//! the object and its observed children become a plan; the plan is applied as
//! Jobs; a Job's agent leaves an outcome; outcomes become status.

pub mod admission;
pub mod agent;
pub mod api;
pub mod cli;
#[cfg(test)]
mod conformance;
pub mod contract;
pub mod controller;
pub mod digest;
pub mod drivers;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod names;
pub mod plan;
pub mod serve;
pub mod telemetry;
pub mod text;
pub mod yaml;
