//! Commands for users.

pub mod crds;
