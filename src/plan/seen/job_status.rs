//! The state of a Job: one verdict from the Job and its pods.
//!
//! An agent's outcome is its container's termination message. A Job that ended without a readable one is an
//! infrastructure failure, never a success. The reasons why a pod does not start are distinguished, so that status can
//! say what to do.

mod pod_status;
pub mod reasons;

use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobStatus};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::contract::{Asked, Class, Failure, Outcome, Part, TASK_ENV};
use crate::names::{AGENT_CONTAINER, annotation, label, reason, volume};
use crate::plan::seen::job_status::pod_status::{death, held, is_dead, is_starting, lingers, phase, terminated};

/// A Job of a run, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSeen {
    /// Its name.
    pub name: String,
    /// Its uid: only this Job is stopped, not another Job that has its name by now.
    pub uid: Option<String>,
    /// Key of the step within the run.
    pub key: String,
    /// Attempt at the step, from 1.
    pub attempt: i32,
    /// It is being deleted; its pods may still run.
    pub deleting: bool,
    /// It was told to stop more than [`STOP_PATIENCE`] ago. Its node does not answer, so it is not known whether it
    /// runs.
    pub given_up: bool,
    /// It has no pod yet, or a pod that its node is starting.
    pub starts: bool,
    /// Hash of the default settings that it was created with, which its session does not contain; `None` if an older
    /// operator created it.
    pub defaults: Option<String>,
    /// It could not start for [`PLACE_PATIENCE`], so it holds no slot of its Repository.
    pub is_stuck: bool,
    /// Address of its running pod, where progress can be asked for.
    pub address: Option<String>,
    /// Its agent has ended, but a container that was added to its pod still runs and holds the volumes.
    pub lingers: bool,
    /// State of the Job.
    pub state: JobState,
    /// The parts of the run that it is for. For Jobs from the watch caches, only the parts of a preflight are known,
    /// see [`crate::plan::seen::compact`].
    pub parts: Vec<Part>,
    /// Claims that it writes to.
    pub writes: Vec<String>,
    /// It was never created: the API server has rejected it, or an object that it needs. If the API server has failed,
    /// this is not known.
    pub is_unmade: bool,
}

/// State of a Job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// The Job is not over. `held` says what keeps its pod from running.
    Active {
        /// Why it does not run yet; `None` when it runs or is just starting.
        held: Option<Failure>,
    },
    /// The agent left an outcome.
    Done(Box<Outcome>),
    /// The Job ended without a readable outcome.
    Lost(Failure),
}

impl JobSeen {
    /// Whether it has not started, for a reason that other settings could change.
    pub fn waits_to_start(&self) -> bool {
        let why = match &self.state {
            JobState::Active { held: Some(failure) } => failure.reason.as_str(),
            _ => return false,
        };
        [reason::POD_NOT_CREATED, reason::UNSCHEDULABLE, reason::IMAGE_UNAVAILABLE, reason::CONTAINER_NOT_CREATED]
            .contains(&why)
    }

    /// Whether a pod of it may still run. A Job that is given up does not count.
    pub fn is_active(&self) -> bool {
        !self.given_up && (self.deleting || matches!(self.state, JobState::Active { .. }))
    }

    /// When to check a Job again that is not over, if no watch event comes before: a time limit passes, or a node stops
    /// responding, without an event.
    pub fn next_look(&self) -> Duration {
        match self.state {
            JobState::Active { held: None } if self.starts => FIRST_LOOK,
            _ => Duration::from_mins(1),
        }
    }
}

/// A Job gets its pod within a second; after this time something rejects the pod.
const POD_PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// After this time a new Job has its pod, or it is known that the Job gets none.
pub const FIRST_LOOK: Duration = Duration::from_secs(12);

/// A cluster that adds a node for a pod takes about three minutes, and a volume or an image about as long. A Job that
/// still does not start after this time waits for a user to act, and gives up its slot of the Repository.
pub const PLACE_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Reads every Job, and every pod whose Job is gone. A Job that a user deletes may leave a pod that is still ending, or
/// still running: until the pod is over it stands for its Job, so that no second Job writes beside it.
pub fn see_all(jobs: &[&Job], pods: &[&Pod], now: Timestamp) -> Vec<JobSeen> {
    let has_job = |pod: &Pod| jobs.iter().any(|j| is_of(pod, j));
    let orphans = pods.iter().filter(|p| !has_job(p)).map(|p| see_orphan(p, now));
    jobs.iter().map(|j| see(j, pods, now)).chain(orphans).collect()
}

fn see_orphan(pod: &Pod, now: Timestamp) -> JobSeen {
    let note = |key: &str| pod.annotations().get(key).cloned();
    let job = pod.owner_references().iter().find(|o| o.kind == "Job");
    let message = outcome_text(&[pod]);
    JobSeen {
        name: job.map_or_else(|| pod.name_any(), |o| o.name.clone()),
        uid: job.map(|o| o.uid.clone()),
        key: note(annotation::STEP_KEY).unwrap_or_default(),
        attempt: note(annotation::ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(1),
        deleting: false,
        given_up: pod.metadata.deletion_timestamp.as_ref().is_some_and(|at| now.duration_since(at.0) > STOP_PATIENCE),
        starts: is_starting(pod),
        defaults: None,
        is_stuck: false,
        lingers: lingers(pod),
        address: (phase(pod) == "Running").then(|| pod.status.as_ref()?.pod_ip.clone()).flatten(),
        state: match (message.and_then(read), death(pod)) {
            (Some(outcome), _) => JobState::Done(Box::new(outcome)),
            (None, Some(failure)) => JobState::Lost(failure),
            (None, None) => JobState::Active { held: held(pod, now) },
        },
        parts: pod.spec.as_ref().map(parts).unwrap_or_default(),
        writes: writes(pod, pod.spec.as_ref()),
        is_unmade: false,
    }
}

fn outcome_text<'p>(pods: &[&'p Pod]) -> Option<&'p str> {
    pods.iter().find_map(|p| terminated(p)?.message.as_deref().filter(|m| !m.trim().is_empty()))
}

/// A pod has 20 seconds to end, and a node that answers confirms it within seconds; a node counts as gone after 40
/// seconds without a message. This is twice that time. A run that is being torn down waits no longer than this for a
/// Job: its node may never come back.
pub const STOP_PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// Reads one Job and those of `pods` that are its own.
pub fn see(job: &Job, pods: &[&Pod], now: Timestamp) -> JobSeen {
    let own: Vec<&Pod> = pods.iter().copied().filter(|p| is_of(p, job)).collect();
    let note = |key: &str| job.annotations().get(key).cloned();
    let stopped = job.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    let address = own.iter().find(|p| phase(p) == "Running").and_then(|p| p.status.as_ref()?.pod_ip.clone());
    let mut state = state(job, &own, now);
    let is_stuck = gives_place_up(job, &mut state, now);
    JobSeen {
        name: job.name_any(),
        uid: job.uid(),
        key: note(annotation::STEP_KEY).unwrap_or_default(),
        attempt: note(annotation::ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(1),
        deleting: stopped.is_some(),
        given_up: stopped.is_some_and(|at| now.duration_since(at) > STOP_PATIENCE),
        starts: own.iter().all(|p| is_starting(p)),
        defaults: note(annotation::DEFAULTS),
        is_stuck,
        lingers: own.iter().any(|p| lingers(p)),
        address,
        state,
        parts: job.spec.as_ref().and_then(|s| s.template.spec.as_ref()).map(parts).unwrap_or_default(),
        writes: writes(job, job.spec.as_ref().and_then(|s| s.template.spec.as_ref())),
        is_unmade: false,
    }
}

/// Whether a Job that does not start has given up its slot; its status then says so. Otherwise other Jobs would wait
/// for the slot in vain, until the deadline of this Job. A pod on a node that stopped responding may still work.
fn gives_place_up(job: &Job, state: &mut JobState, now: Timestamp) -> bool {
    let JobState::Active { held: Some(why) } = state else { return false };
    let age = job.creation_timestamp().map(|t| now.duration_since(t.0));
    // A Repository's own Jobs take no slot.
    let has_place = job.labels().get(label::SESSION_KIND).is_none_or(|kind| kind != "Repository");
    let stuck = has_place && why.reason != reason::NODE_LOST && age.is_some_and(|age| age > PLACE_PATIENCE);
    if stuck {
        let text = format!("{} It holds no slot of the Repository until it starts.", why.message);
        *why = Failure::new(why.class, &why.reason, text);
    }
    stuck
}

/// Whether a pod was created for a Job. An owner is in the same namespace: a reference to an owner in another namespace
/// is a forgery.
pub fn is_of(pod: &Pod, job: &Job) -> bool {
    let controls = |uid: &String| pod.owner_references().iter().any(|o| &o.uid == uid && o.controller == Some(true));
    job.metadata.uid.as_ref().is_some_and(controls) && pod.metadata.namespace == job.metadata.namespace
}

/// The outcome in a termination message.
fn read(message: &str) -> Option<Outcome> {
    Outcome::decode(message).ok().map(reasons::known)
}

/// Whether the object belongs to a preflight, which finds out what there is to restore and only reads. If a preflight
/// fails, its hosts are known only from its task.
pub fn is_preflight(labelled: &impl kube::ResourceExt) -> bool {
    labelled.labels().get(label::STEP).is_some_and(|s| s == "preflight")
}

/// Claims of the target that a restore mounts.
fn writes(labelled: &impl kube::ResourceExt, pod: Option<&PodSpec>) -> Vec<String> {
    let is_restore = labelled.labels().get(label::STEP).is_some_and(|s| s == "restore");
    pod.filter(|_| is_restore).map(claims).unwrap_or_default()
}

/// Claims of the target that a Job works on, and whether it only reads them.
pub fn uses(job: &Job) -> (Vec<String>, bool) {
    let step = job.labels().get(label::STEP).map(String::as_str);
    let pod = job.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    let works = matches!(step, Some("restore" | "backup"));
    (pod.filter(|_| works).map(claims).unwrap_or_default(), step == Some("backup"))
}

/// Claims that a Job mounts to work on, without a repository's own claim.
pub fn claims(pod: &PodSpec) -> Vec<String> {
    let volumes = pod.volumes.iter().flatten();
    let of_target = volumes.filter(|v| v.name != volume::REPOSITORY);
    of_target.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect()
}

fn parts(pod: &PodSpec) -> Vec<Part> {
    let asked = task_text(&pod.containers).and_then(|text| Asked::decode(text).ok());
    asked.map(|a| a.parts).unwrap_or_default()
}

/// The task that the agent in a Job's pod gets.
pub fn task_text(containers: &[Container]) -> Option<&str> {
    containers
        .iter()
        .find(|c| c.name == AGENT_CONTAINER)?
        .env
        .as_ref()?
        .iter()
        .find(|e| e.name == TASK_ENV)?
        .value
        .as_deref()
}

/// The end of a Job.
struct End<'j> {
    failed: bool,
    why: &'j str,
}

/// What the Job controller reports about the end of a Job.
fn end_of(status: &JobStatus) -> Option<End<'_>> {
    let mut conditions = status.conditions.iter().flatten().filter(|c| c.status == "True");
    let condition = conditions.find(|c| c.type_ == "Failed" || c.type_ == "Complete");
    let said = condition.map(|c| End { failed: c.type_ == "Failed", why: c.reason.as_deref().unwrap_or(&c.type_) });
    said.or_else(|| counted(status))
}

/// The same, from the counters of the Job. A pod is counted once it has ended and is released, and the operator's Jobs
/// have one pod only. The Job controller withholds the condition as long as it waits for the watch event of a pod that
/// it has created. If it missed that event while the API server was down, it does not check again, and the Job would
/// wait until its deadline.
fn counted(status: &JobStatus) -> Option<End<'_>> {
    let alive = status.active.unwrap_or(0) > 0 || status.terminating.unwrap_or(0) > 0;
    match (status.failed.unwrap_or(0), status.succeeded.unwrap_or(0)) {
        _ if alive => None,
        (1.., _) => Some(End { failed: true, why: "its pod failed" }),
        (_, 1..) => Some(End { failed: false, why: "its pod succeeded" }),
        _ => None,
    }
}

/// The step that a Job is an attempt at, and the number of the attempt.
pub fn attempt_of(job: &Job) -> Option<(String, i32)> {
    let note = |key: &str| job.annotations().get(key);
    Some((note(annotation::STEP_KEY)?.clone(), note(annotation::ATTEMPT)?.parse().ok()?))
}

/// Whether the Job controller reports that a Job has ended.
pub fn is_over(job: &Job) -> bool {
    ended(job).is_some()
}

/// Whether the Job controller reports a Job as complete; then none of its pods is left.
pub fn is_complete(job: &Job) -> bool {
    ended(job).is_some_and(|end| !end.failed)
}

fn ended(job: &Job) -> Option<End<'_>> {
    end_of(job.status.as_ref()?)
}

fn state(job: &Job, pods: &[&Pod], now: Timestamp) -> JobState {
    let message = outcome_text(pods);
    if let Some(outcome) = message.and_then(read) {
        return JobState::Done(Box::new(outcome));
    }
    let ended = ended(job);
    let died = pods.iter().find_map(|p| death(p));
    // Before Kubernetes 1.31 a Job was marked as failed while its pod was still ending.
    let ended = ended.filter(|_| pods.iter().all(|p| is_dead(p)));
    match (ended, died) {
        (_, Some(failure)) => JobState::Lost(failure),
        (Some(end), None) => JobState::Lost(without_result(job, pods, &end, message)),
        (None, None) if pods.is_empty() => JobState::Active { held: podless(job, now) },
        (None, None) => {
            let held = pods.iter().find_map(|p| held(p, now));
            match held {
                // A failure that waiting cannot fix ends the attempt; the caller then stops the Job.
                Some(failure) if failure.class == Class::Invalid => JobState::Lost(failure),
                held => JobState::Active { held },
            }
        }
    }
}

/// Why a Job that is over has no outcome. A pod that failed by itself is never removed: if a failed Job has no pod
/// left, the pod was deleted, and what the cluster recorded about that was deleted with it.
fn without_result(job: &Job, pods: &[&Pod], end: &End<'_>, message: Option<&str>) -> Failure {
    let (name, why) = (job.name_any(), end.why);
    if pods.is_empty() && end.failed {
        let text = format!(
            "Job {name} ended ({why}) and its pod no longer exists: it was drained or deleted before its result was read. It is retried until the deadline."
        );
        return Failure::new(Class::Transient, reason::DISRUPTED, text);
    }
    let unreadable = message.map(|_| " that this version can read").unwrap_or_default();
    let text = format!("Job {name} ended ({why}) and its pod has no result{unreadable}.");
    Failure::new(Class::Transient, reason::OUTCOME_LOST, text)
}

/// Why a Job has no pod. Only events contain the rejection itself.
fn podless(job: &Job, now: Timestamp) -> Option<Failure> {
    // Its pod is gone already.
    if job.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let age = now.duration_since(job.creation_timestamp()?.0);
    let name = job.name_any();
    (age > POD_PATIENCE).then(|| {
        Failure::new(
            Class::Waiting,
            reason::POD_NOT_CREATED,
            format!(
                "The pod of Job {name} is not created. Most likely a ResourceQuota (set resources in runtimeSettings or in the annotation of the namespace) or the Pod Security level of the namespace rejects it, or its ServiceAccount does not exist: see kubectl -n {} describe job {name}.",
                job.namespace().unwrap_or_default()
            ),
        )
    })
}

/// The pod of a Job.
pub fn pod_of(job: &Job) -> Option<&PodSpec> {
    job.spec.as_ref()?.template.spec.as_ref()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests;
