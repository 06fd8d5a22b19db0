//! Inputs of a Job besides its task: those that all Jobs of a run share, and those of a single Job.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Volume, VolumeMount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::api::common::EmptyDirSettings;
use crate::api::runtime::RuntimeSettings;
use crate::api::volume::PvcTemplate;
use crate::names::child_name;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::target::Reach;
use crate::plan::setup::Setup;

/// What is the same for all Jobs of a run.
#[derive(Clone, Debug)]
pub struct JobFrame {
    /// Image of the agent.
    pub image: String,
    /// Session that owns the Job.
    pub owner: OwnerReference,
    /// Namespace of the session.
    pub namespace: String,
    /// Labels of the session, which its Jobs get too.
    pub labels: BTreeMap<String, String>,
    /// `stash-backup` or `stash-restore`.
    pub component: &'static str,
    /// Repository that the Job works on, by namespace and name.
    pub repository: String,
    /// ServiceAccount of a grant that the Jobs need; an account that the user names takes precedence.
    pub account: Option<String>,
    /// Default settings, for fields that the settings of a Job do not set.
    pub defaults: RuntimeSettings,
}

impl JobFrame {
    /// The frame for the Jobs of `id` on a repository; `account` is a ServiceAccount created for them.
    pub fn of(
        setup: &Setup,
        id: &Identity,
        component: &'static str,
        repository: &str,
        account: Option<String>,
        defaults: RuntimeSettings,
    ) -> Self {
        Self {
            image: setup.image.clone(),
            owner: id.owner(),
            namespace: id.namespace.clone(),
            labels: id.labels.clone(),
            component,
            repository: repository.to_owned(),
            account,
            defaults,
        }
    }
}

/// What the pod of a Job needs for its work. The system that does the work defines it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// It reads or writes the user's files as their owner would.
    pub files: bool,
    /// It writes files of its own to one of `volumes`, as root: another user may own the folder.
    pub own_files: bool,
    /// The target's volumes are mounted below [`RESTORE_ROOT`], and are written to. Otherwise they are mounted where
    /// the user says, and only read.
    ///
    /// [`RESTORE_ROOT`]: crate::contract::RESTORE_ROOT
    pub writes: bool,
    /// Password and credentials, below [`SECRET_DIR`](crate::contract::SECRET_DIR).
    pub secret: Option<NeededSecret>,
    /// Volumes of its own, each with its mount.
    pub volumes: Vec<(Volume, VolumeMount)>,
    /// Its image, if that is not the agent's own: it has the agent and further programs.
    pub image: Option<String>,
}

/// How a Job gets its credentials.
#[derive(Clone, Debug, PartialEq)]
pub enum NeededSecret {
    /// The Secret of this name, in the Job's namespace, is mounted.
    Mounted(String),
    /// The agent reads it from another namespace, with its grant, and keeps it in memory.
    Read,
}

/// What is particular to one Job.
#[derive(Clone, Debug, Default)]
pub struct JobParts<'a> {
    /// Key of the step within the run.
    pub key: String,
    /// Attempt, from 1.
    pub attempt: i32,
    /// Number of earlier attempts whose pod died by itself, see [`retry::deaths`].
    ///
    /// [`retry::deaths`]: crate::plan::work::retry::deaths
    pub deaths: i32,
    /// Settings of the pod.
    pub runtime: Option<&'a RuntimeSettings>,
    /// Scratch volume.
    pub temp_dir: Option<&'a EmptyDirSettings>,
    /// Claim for cache and temporary files.
    pub interim: Option<&'a PvcTemplate>,
    /// What its work needs.
    pub needs: Needs,
    /// Files may belong to the user that the Job runs as, so it runs as an ordinary user.
    pub unowned: bool,
    /// Volumes of the target.
    pub reach: Reach,
    /// Seconds until the run's deadline.
    pub seconds_left: i64,
}

/// Name of the Job of an attempt at a step. The same step of the same run has the same
/// name, so creating it twice is AlreadyExists.
pub fn job_name(frame: &JobFrame, verb: &str, key: &str, attempt: i32) -> String {
    job_name_of(frame.component, &frame.owner.name, &frame.owner.uid, verb, key, attempt)
}

/// The same, from the owner's name and uid.
pub fn job_name_of(component: &str, owner: &str, uid: &str, verb: &str, key: &str, attempt: i32) -> String {
    child_name(&format!("{component}-{owner}-{verb}"), &[uid, key, &attempt.to_string()])
}
