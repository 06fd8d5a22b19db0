//! A second system, which exists in tests only: shelves whose items are put back on request.

use serde::{Deserialize, Serialize};

/// What a Job does with a shelf.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Work {
    /// Address of the system.
    pub endpoint: String,
    /// The shelf.
    pub shelf: String,
    /// What is put back; `None` to find out what there is.
    pub act: Option<Act>,
}

/// What is put back.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Act {
    /// Edition of the shelf, as it was pinned.
    pub edition: String,
    /// How many items that is.
    pub items: u64,
    /// Id of the request, the same for every attempt.
    pub request: String,
    /// An earlier attempt may have made the request: look it up first.
    pub look_up: bool,
}

/// What the look found. Later steps use this and nothing else.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Pin {
    /// Edition of the shelf.
    pub edition: String,
}

/// The type of what is counted.
pub const ITEMS: &str = "items";
