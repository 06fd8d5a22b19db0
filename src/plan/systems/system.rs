//! The interface of a system to a restore: how a member is looked at, pinned, restored and judged.
//!
//! A run handles members, parts and Jobs, and does not depend on a particular system. Every method is a pure function
//! of its arguments.

use k8s_openapi::jiff::Timestamp;

use crate::api::common::Rule;
use crate::api::restore_batch::RestoreMember;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::contract::{Class, Failure, Found, Outcome, Part, Runner, Work};
use crate::names::reason;
use crate::plan::run::selection::Selection;
use crate::plan::seen::target::Target;
use crate::plan::setup::AddonImages;
/// How Jobs reach the Repository of a session. The type belongs to restic, but other systems may keep their data in a
/// Repository too.
pub use crate::plan::systems::restic::backend::Access;
use crate::plan::work::job_spec::frame::Needs;

/// What a Job is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It finds out what there is to do, and changes nothing.
    Look,
    /// It does the work.
    Act,
}

/// A part whose restore is still to be pinned.
pub struct Open<'a> {
    /// The part.
    pub part: Part,
    /// Its target.
    pub target: &'a RestoreTarget,
    /// Its rule; `None` for a part outside of the cluster.
    pub rule: Option<&'a Rule>,
    /// Where its volumes are mounted.
    pub mounts: Vec<String>,
    /// User that its restore will run as, if every file must belong to that user.
    pub runner: Option<Runner>,
    /// Its restore can create no device files.
    pub no_devices: bool,
}

/// A Job that is to be created.
pub struct Needing<'a> {
    /// Its member.
    pub member: &'a RestoreMember,
    /// The target of the member.
    pub target: &'a RestoreTarget,
    /// The target as it was found; `None` for a target outside of the cluster.
    pub seen: Option<&'a Target>,
    /// Namespace of the Job.
    pub namespace: &'a str,
    /// How it reaches the Repository; `None` for a system that uses no Repository.
    pub access: Option<&'a Access>,
    /// Images with the clients of applications.
    pub addons: &'a AddonImages,
    /// What it is for.
    pub role: Role,
}

/// The context of looks, besides the parts.
pub struct Looking<'a> {
    /// How Jobs reach the Repository; `None` for a system that uses no Repository.
    pub access: Option<&'a Access>,
    /// Which backup the session restores, where a rule does not say so.
    pub selection: &'a Selection,
    /// When the run began.
    pub began: Timestamp,
    /// All members of the run.
    pub members: &'a [RestoreMember],
    /// The members whose data comes from the same place, with the state of each part.
    pub parts: Vec<(&'a RestoreTarget, &'a [HostRestoreStats])>,
}

/// A part that is to be restored.
pub struct Acting<'a> {
    /// Id of the run.
    pub run: &'a str,
    /// How Jobs reach the Repository; `None` for a system that uses no Repository.
    pub access: Option<&'a Access>,
    /// Its state, with what was pinned for it.
    pub host: &'a HostRestoreStats,
    /// Its member.
    pub member: &'a RestoreMember,
    /// Its target.
    pub target: &'a RestoreTarget,
    /// The target as it was found; `None` for a target outside of the cluster.
    pub seen: Option<&'a Target>,
    /// Namespace of the run.
    pub namespace: &'a str,
    /// Its rule; `None` for a part outside of the cluster.
    pub rule: Option<&'a Rule>,
    /// Where its volumes are mounted.
    pub mounts: Vec<String>,
    /// An earlier Job may have done the work, or a part of it: the existing state is looked up first, and nothing is
    /// done twice.
    pub may_have_acted: bool,
}

/// A system that restores.
pub trait System: Sync {
    /// Whether the data comes from the Repository of the session.
    fn uses_repository(&self) -> bool;

    /// Key of the slots of which each of its Jobs takes one, if that is not the Repository: the system that the Jobs
    /// connect to.
    fn slot(&self, target: &RestoreTarget) -> Option<String>;

    /// The parts of a member outside of the cluster; `None` if its target is in the cluster: then the parts are the
    /// hosts of the target.
    fn parts(&self, target: &RestoreTarget) -> Option<Vec<String>>;

    /// Whether a member whose target was found can be restored.
    ///
    /// # Errors
    /// It cannot; nothing was changed.
    fn check(&self, _: &Target, _: &RestoreMember, _namespace: &str) -> Result<(), Failure> {
        Ok(())
    }

    /// A part as its look sees it. Parts of systems with the same driver are looked at together.
    fn opened<'a>(&self, open: Open<'a>) -> Open<'a> {
        open
    }

    /// The work of the looks before anything is changed, one Job each, and the parts that each is for.
    fn look(&self, open: Vec<Open<'_>>, about: &Looking<'_>) -> Vec<(Vec<Part>, Work)>;

    /// Pins what was found for a part. Later steps use this and nothing else.
    ///
    /// # Errors
    /// The answer cannot be read, or there is nothing to restore.
    fn pin(&self, host: &mut HostRestoreStats, found: &Found, rule: Option<&Rule>) -> Result<(), Failure>;

    /// Whether a part with this failure has nothing to restore.
    fn has_nothing(&self, failure: &Failure) -> bool;

    /// The restore of a part as it is pinned; `None` if it cannot be requested now.
    fn act(&self, acting: Acting<'_>) -> Option<Work>;

    /// What the pod of such a Job needs.
    fn needs(&self, asking: Needing<'_>) -> Needs;

    /// Records what a Job reports as done. Returns the number of entries that it reports as deleted.
    fn note(&self, host: &mut HostRestoreStats, outcome: &Outcome) -> Option<u64>;

    /// Why a Job has not restored its part. Success is computed from tallies, never from an exit code alone.
    fn verdict(&self, outcome: &Outcome, target: &RestoreTarget) -> Option<Failure>;

    /// Whether another attempt would not finish what one attempt has begun.
    fn runs_once(&self, target: &RestoreTarget) -> bool;

    /// Why a restore that [`runs_once`](Self::runs_once) is not retried.
    fn half_done(&self, why: &str) -> Failure {
        let text = format!(
            "{why} It may be done in part, and is not tried again. Look at what is there before you create another one."
        );
        Failure::new(Class::Data, reason::INCOMPLETE, text)
    }

    /// Whether a restore that succeeds has written, or compared, all that the target had in its backup.
    fn restores_all(&self, target: &RestoreTarget) -> bool;
}
