//! What a system is to a restore: how a member is looked at, pinned, restored and judged.
//!
//! A run knows members, parts and Jobs, and no system by its name. Every answer here is a pure function of what it is
//! given.

use k8s_openapi::jiff::Timestamp;

use crate::api::common::Rule;
use crate::api::restore_batch::RestoreMember;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::contract::{Class, Failure, Found, Outcome, Part, Runner, Work};
use crate::names::reason;
use crate::plan::run::selection::Selection;
/// How Jobs reach the Repository of a session. It is restic's, and others may keep their data in one.
pub use crate::plan::systems::restic::backend::Access;
use crate::plan::work::job_spec::frame::Needs;

/// What a Job is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It finds out what there is to do, and changes nothing.
    Look,
    /// It does it.
    Act,
}

/// A part whose restore is still to be pinned.
pub struct Open<'a> {
    /// The part.
    pub part: Part,
    /// Its target.
    pub target: &'a RestoreTarget,
    /// Its rule; none of a part that is outside of the cluster.
    pub rule: Option<&'a Rule>,
    /// Where its volumes are mounted.
    pub mounts: Vec<String>,
    /// Whom its restore will run as, where every file must be theirs.
    pub runner: Option<Runner>,
    /// Its restore can make no device files.
    pub no_devices: bool,
}

/// What looks are about, besides the parts.
pub struct Looking<'a> {
    /// How Jobs reach the Repository; of a system that uses none, none.
    pub access: Option<&'a Access>,
    /// Which backup the session restores, where a rule does not say so.
    pub selection: &'a Selection,
    /// When the run began.
    pub began: Timestamp,
    /// All members of the run.
    pub members: &'a [RestoreMember],
    /// The members of this system: how far each part is.
    pub parts: Vec<(&'a RestoreTarget, &'a [HostRestoreStats])>,
}

/// A part that is to be restored.
pub struct Acting<'a> {
    /// Id of the run.
    pub run: &'a str,
    /// How Jobs reach the Repository; of a system that uses none, none.
    pub access: Option<&'a Access>,
    /// How it stands: what was pinned for it.
    pub host: &'a HostRestoreStats,
    /// Its member.
    pub member: &'a RestoreMember,
    /// Its target.
    pub target: &'a RestoreTarget,
    /// Its rule; none of a part that is outside of the cluster.
    pub rule: Option<&'a Rule>,
    /// Where its volumes are mounted.
    pub mounts: Vec<String>,
    /// An earlier Job may have done it, or a part of it: what is there is looked up first, and nothing is done twice.
    pub may_have_acted: bool,
}

/// A system that restores.
pub trait System: Sync {
    /// Whether the data comes from the Repository of the session.
    fn uses_repository(&self) -> bool;

    /// Key of the slots that its Jobs take one of each, where it is not the Repository: what they connect to.
    fn slot(&self, target: &RestoreTarget) -> Option<String>;

    /// The parts of a member that is outside of the cluster; none where its target is in the cluster: then they are the
    /// hosts of that.
    fn parts(&self, target: &RestoreTarget) -> Option<Vec<String>>;

    /// What is asked before anything is touched, a Job each, and for which parts.
    fn look(&self, open: Vec<Open<'_>>, about: &Looking<'_>) -> Vec<(Vec<Part>, Work)>;

    /// Pins what was found for a part: what is done later is done with this and nothing else.
    ///
    /// # Errors
    /// The answer cannot be read, or there is nothing to restore.
    fn pin(&self, host: &mut HostRestoreStats, found: &Found, rule: Option<&Rule>) -> Result<(), Failure>;

    /// Whether a part that failed so has nothing to restore.
    fn has_nothing(&self, failure: &Failure) -> bool;

    /// The restore of a part as it is pinned; none where it cannot be asked for now.
    fn act(&self, acting: Acting<'_>) -> Option<Work>;

    /// What the pod of such a Job needs.
    fn needs(&self, target: &RestoreTarget, access: Option<&Access>, role: Role) -> Needs;

    /// Takes down what a Job says that it has done. The entries that it says it has deleted.
    fn note(&self, host: &mut HostRestoreStats, outcome: &Outcome) -> Option<u64>;

    /// Why a Job has not restored its part. Success is computed from tallies, never from an exit code alone.
    fn verdict(&self, outcome: &Outcome, target: &RestoreTarget) -> Option<Failure>;

    /// Whether what one attempt has begun, another one would not finish.
    fn runs_once(&self, target: &RestoreTarget) -> bool;

    /// Why a restore that [`runs_once`](Self::runs_once) is not tried again.
    fn half_done(&self, why: &str) -> Failure {
        let text = format!(
            "{why} It may be done in part, and is not tried again. Look at what is there before you create another one."
        );
        Failure::new(Class::Data, reason::INCOMPLETE, text)
    }

    /// Whether a restore that succeeds has written, or compared, all that the target had in its backup.
    fn restores_all(&self, target: &RestoreTarget) -> bool;
}
