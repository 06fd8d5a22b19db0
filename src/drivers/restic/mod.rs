//! restic, run as a child process.
//!
//! One function a step: [`preflight`], [`restore`], [`prepare`], [`backup`],
//! [`maintain`]; [`list`], [`probe`] and [`wipe`] for a Repository. Each turns what restic printed into counts and a classified
//! failure; none believes an exit code alone. The room never removes a lock that
//! a live command holds, never passes a secret in argv or environment, and never
//! starts a command without a bound.

mod args;
mod backup;
mod blocking;
mod bucket;
mod checks;
mod count;
mod error;
mod extraneous;
mod flush;
mod forget;
mod keep;
mod links;
mod maintain;
mod obstacles;
pub(crate) mod output;
mod parents;
mod paths;
mod pattern;
mod place;
mod planned;
mod preflight;
mod recount;
mod refusal;
pub(crate) mod repository;
mod restore;
mod run;
mod secrets;
pub(crate) mod select;
pub(crate) mod snapshot;
pub mod tuning;
mod wipe;

pub use backup::backup;
pub use maintain::maintain;
pub use preflight::{list, preflight, prepare, probe};
pub use repository::{Places, Repository};
pub use restore::restore;
pub use run::Control;
pub use wipe::wipe;
