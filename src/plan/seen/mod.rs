//! Facts found in the cluster: what a decision may depend on.
//!
//! The controller's reads fill these types. This module neither reads nor decides.

pub mod compact;
pub mod identity;
pub mod job_status;
pub mod ownership;
pub mod progress;
pub mod pvc;
pub mod repository;
pub mod surroundings;
pub mod target;

/// Something that was looked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen<T> {
    /// It is not there.
    Missing,
    /// It could not be looked up; why.
    Unknown(String),
    /// It is there.
    Found(T),
}

/// Why an object is not valid, as admission says it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// `Invalid` or `NotSupported`.
    pub reason: String,
    /// Fields and what is wrong with them.
    pub message: String,
}
