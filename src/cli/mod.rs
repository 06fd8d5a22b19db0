//! What people run by hand.

pub mod crds;
