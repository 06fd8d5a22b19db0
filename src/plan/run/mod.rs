//! What every kind of run shares: hosts, conditions, limits of time and size.

pub mod conditions;
pub mod duration;
pub mod hosts;
pub mod limits;
pub mod missing;
pub mod selection;
pub mod size;
