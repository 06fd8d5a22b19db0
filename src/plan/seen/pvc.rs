//! Claims that a restore makes from its templates: those that are wanted, and who made one that is there.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::names::{annotation, label};

/// A claim that is to be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Name of the volume, as the target's mounts name it.
    pub volume: String,
    /// Replica that it is for.
    pub ordinal: i32,
    /// The claim.
    pub claim: PersistentVolumeClaim,
}

/// Who made a claim, as its annotations say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// Session, as `RestoreSession/name`.
    pub session: String,
    /// Its uid.
    pub uid: String,
    /// Hash of what it was made from.
    pub template: String,
}

impl Made {
    /// Read from a claim; `None` where no restore made it.
    pub fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        let note = |key: &str| claim.metadata.annotations.as_ref()?.get(key).cloned();
        let mark = |key: &str| claim.metadata.labels.as_ref()?.get(key).cloned();
        let session = format!("{}/{}", mark(label::SESSION_KIND)?, note(annotation::SESSION_NAME)?);
        Some(Self { session, uid: mark(label::SESSION_UID)?, template: note(annotation::TEMPLATE)? })
    }
}
