//! Admission: what a written object means, and whether it makes sense.
//!
//! [`default`] brings the dialects of the API into one form; [`validate`] says
//! what is wrong, per field; both refuse an object beyond its [`bounds`] before they look into it. Both are pure and work from JSON, and the
//! controller calls the same two doors, so an object is judged alike with and
//! without the webhook. [`review`] answers the API server's questions,
//! [`server`] carries them over TLS with the certificates of [`certs`]. Nothing
//! here reads the cluster: whether a named object exists is the controller's.

pub mod bounds;
pub mod certs;
pub mod default;
pub mod elsewhere;
pub mod notice;
pub mod review;
pub mod rights;
pub mod seal;
pub mod server;
pub mod validate;

pub use default::default;
pub use elsewhere::{Elsewhere, Owners};
pub use rights::Gate;
pub use validate::{FieldError, Reason, check, message, object_reason};

/// Kinds that have defaults or rules, with the plural their webhook paths may use.
pub const KINDS: [(&str, &str); 9] = [
    ("BackupBatch", "backupbatches"),
    ("BackupBlueprint", "backupblueprints"),
    ("BackupConfiguration", "backupconfigurations"),
    ("BackupSession", "backupsessions"),
    ("Function", "functions"),
    ("Repository", "repositories"),
    ("RestoreBatch", "restorebatches"),
    ("RestoreSession", "restoresessions"),
    ("Task", "tasks"),
];

/// The kind that a webhook path names: by its plural, or by itself in any case.
pub fn kind_of(segment: &str) -> Option<&'static str> {
    let segment = segment.to_ascii_lowercase();
    KINDS.iter().find(|(kind, plural)| *plural == segment || kind.eq_ignore_ascii_case(&segment)).map(|(kind, _)| *kind)
}
