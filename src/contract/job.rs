//! What any system may have to know of a Job: whom it runs as, and where its Secret is.

use serde::{Deserialize, Serialize};

/// A user without the right to give files away.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Runner {
    /// User id.
    pub uid: u32,
    /// Group ids.
    pub gids: Vec<u32>,
}

/// A Secret in another namespace than the Job's. The Job has a token that may read this one and no other.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SecretPlace {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}
