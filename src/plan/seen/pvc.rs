//! Claims that a restore creates from its templates: the claims that are needed, and the session that created an
//! existing one.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::names::{annotation, label};

/// A claim that must exist.
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

/// The session that created a claim, according to the claim's annotations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// Session, as `RestoreSession/name`.
    pub session: String,
    /// Its uid.
    pub uid: String,
    /// Hash of the template that it was created from.
    pub template: String,
}

impl Made {
    /// Reads it from a claim; `None` if no restore created the claim.
    pub fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        let note = |key: &str| claim.metadata.annotations.as_ref()?.get(key).cloned();
        let mark = |key: &str| claim.metadata.labels.as_ref()?.get(key).cloned();
        let session = format!("{}/{}", mark(label::SESSION_KIND)?, note(annotation::SESSION_NAME)?);
        Some(Self { session, uid: mark(label::SESSION_UID)?, template: note(annotation::TEMPLATE)? })
    }
}
