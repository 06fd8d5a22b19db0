//! What any system may need to know about a Job: the user that it runs as, and where its Secret is.

use serde::{Deserialize, Serialize};

/// A user without the right to change the owner of files.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Runner {
    /// User id.
    pub uid: u32,
    /// Group ids.
    pub gids: Vec<u32>,
}

/// A Secret in another namespace than the Job's. The Job has a token that may read only this Secret.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct SecretPlace {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}
