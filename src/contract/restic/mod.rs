//! restic: what a Job is asked to do with a repository, and what it answers.
//!
//! Nothing here is secret. Credentials reach the agent as files below [`SECRET_DIR`](super::SECRET_DIR). Where the backend Secret is in
//! another namespace, the agent puts them there itself, see [`SecretPlace`](super::SecretPlace).

mod answer;
mod arguments;
mod compact;
mod counts;
pub mod pattern;
mod retention;
mod snapshot;
mod work;

pub use crate::contract::restic::answer::{Absent, Answer, RepositoryFacts};
pub use crate::contract::restic::arguments::{keeps_what_is_there, reads_what_is_there};
pub use crate::contract::restic::compact::{Detail, MOST_PATHS, MOST_PINS, Pins, Saved, SnapshotMade, unpack_made};
pub use crate::contract::restic::counts::{Counts, Restored};
pub use crate::contract::restic::retention::Retention;
pub use crate::contract::restic::snapshot::{
    INCOMPLETE_TAG, Listed, PATHS_TAG_PREFIX, PinnedSnapshot, RUN_TAG_PREFIX, SESSION_TAG_PREFIX,
};
pub use crate::contract::restic::work::{
    Backup, Companion, HostQuery, LOCAL_REPOSITORY_DIR, List, Maintain, Own, PASSWORD_KEY, Preflight, Prepare, Probe,
    RepositoryAccess, Restore, Settings, Step, Wipe, Work,
};
