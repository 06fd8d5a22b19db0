//! What became of a Job: from the Job and its pods to one verdict.
//!
//! An agent's outcome is its container's termination message. A Job that ended
//! without a readable one is an infrastructure failure, never a success. Why a
//! pod does not start is told apart, so that status can say what to do.

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
    /// Its uid: what is stopped is this one, and no other that has come to its name.
    pub uid: Option<String>,
    /// Key of the step within the run.
    pub key: String,
    /// Attempt at the step, from 1.
    pub attempt: i32,
    /// It is being deleted; its pods may still run.
    pub deleting: bool,
    /// It was told to stop more than [`STOP_PATIENCE`] ago. Its node does not answer, and nobody can say whether it runs.
    pub given_up: bool,
    /// It has no pod yet, or one that its node is starting.
    pub starts: bool,
    /// Hash of the settings that it was made with, of others than its session's; none where an older operator made it.
    pub defaults: Option<String>,
    /// It could not start for [`PLACE_PATIENCE`], so it holds no place on its Repository.
    pub is_stuck: bool,
    /// Address of its running pod, where progress can be asked for.
    pub address: Option<String>,
    /// Its agent has ended, and a container that somebody added to its pod runs on with the volumes.
    pub lingers: bool,
    /// What became of it.
    pub state: JobState,
    /// The parts of the run that it is for. Of watched ones only those of a preflight are known, see [`crate::plan::seen::compact`].
    pub parts: Vec<Part>,
    /// Claims that it writes to.
    pub writes: Vec<String>,
    /// It was never made: the API server has refused it, or what it needs. Of a server that has failed this is not known.
    pub is_unmade: bool,
}

/// What became of a Job.
#[derive(Clone, Debug, PartialEq)]
pub enum JobState {
    /// Not over. `held` says what keeps its pod from running.
    Active {
        /// Why it does not run yet; `None` when it runs or is just starting.
        held: Option<Failure>,
    },
    /// Its agent left an outcome.
    Done(Box<Outcome>),
    /// It ended without an outcome that can be read.
    Lost(Failure),
}

impl JobSeen {
    /// Whether it has not begun, because of something that other settings could change.
    pub fn waits_to_start(&self) -> bool {
        let why = match &self.state {
            JobState::Active { held: Some(failure) } => failure.reason.as_str(),
            _ => return false,
        };
        [reason::POD_NOT_CREATED, reason::UNSCHEDULABLE, reason::IMAGE_UNAVAILABLE, reason::CONTAINER_NOT_CREATED]
            .contains(&why)
    }

    /// Whether something of it may still run, as far as that can be waited for.
    pub fn is_active(&self) -> bool {
        !self.given_up && (self.deleting || matches!(self.state, JobState::Active { .. }))
    }

    /// When to look again at one that works, if no watch tells of it before: patience runs out, and a node falls
    /// silent, without a word.
    pub fn next_look(&self) -> Duration {
        match self.state {
            JobState::Active { held: None } if self.starts => FIRST_LOOK,
            _ => Duration::from_mins(1),
        }
    }
}

/// A Job gets its pod within a second; after this long something refuses the pod.
const POD_PATIENCE: SignedDuration = SignedDuration::from_secs(10);
/// By then a Job that was just made has its pod, or it is known that it gets none.
pub const FIRST_LOOK: Duration = Duration::from_secs(12);

/// A cluster that adds a node for a pod takes some three minutes, and a volume or an image about as long; after this a
/// Job that still does not start waits for somebody to act, and gives its place on the Repository up.
pub const PLACE_PATIENCE: SignedDuration = SignedDuration::from_mins(5);

/// Reads every Job, and every pod whose Job is gone. A Job that somebody deletes may leave a pod that still
/// ends, or runs on: until it is over it stands for its Job, so that no second one writes beside it.
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

/// A pod has 20 seconds to end, and a node that answers confirms it within seconds; it counts as gone after 40 seconds
/// without a word. Twice that. Whoever leaves a run does not wait for a Job any longer: the node may never come back.
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

/// Whether a Job that does not start has given its place up; then its status says so. Others would wait for nothing, as
/// long as its deadline lets it stand. A pod on a node that fell silent may be at work.
fn gives_place_up(job: &Job, state: &mut JobState, now: Timestamp) -> bool {
    let JobState::Active { held: Some(why) } = state else { return false };
    let age = job.creation_timestamp().map(|t| now.duration_since(t.0));
    // A Repository's own Jobs take no place.
    let has_place = job.labels().get(label::SESSION_KIND).is_none_or(|kind| kind != "Repository");
    let stuck = has_place && why.reason != reason::NODE_LOST && age.is_some_and(|age| age > PLACE_PATIENCE);
    if stuck {
        let text = format!("{} It holds no slot of the Repository until it starts.", why.message);
        *why = Failure::new(why.class, &why.reason, text);
    }
    stuck
}

/// Whether a pod was made for a Job. An owner is of the same namespace: a reference to one of another is a forgery.
pub fn is_of(pod: &Pod, job: &Job) -> bool {
    let controls = |uid: &String| pod.owner_references().iter().any(|o| &o.uid == uid && o.controller == Some(true));
    job.metadata.uid.as_ref().is_some_and(controls) && pod.metadata.namespace == job.metadata.namespace
}

/// The outcome in a termination message.
fn read(message: &str) -> Option<Outcome> {
    Outcome::decode(message).ok().map(reasons::known)
}

/// Whether it finds out what there is to restore; it only reads. When it fails, its hosts stand in its task only.
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

/// Claims that a Job mounts to work on; a repository's own is not among them.
pub fn claims(pod: &PodSpec) -> Vec<String> {
    let volumes = pod.volumes.iter().flatten();
    let of_target = volumes.filter(|v| v.name != volume::REPOSITORY);
    of_target.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect()
}

fn parts(pod: &PodSpec) -> Vec<Part> {
    let asked = task_text(&pod.containers).and_then(|text| Asked::decode(text).ok());
    asked.map(|a| a.parts).unwrap_or_default()
}

/// What the agent in a Job's pod is told.
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

/// What a Job's controller says of its end.
fn end_of(status: &JobStatus) -> Option<End<'_>> {
    let mut conditions = status.conditions.iter().flatten().filter(|c| c.status == "True");
    let condition = conditions.find(|c| c.type_ == "Failed" || c.type_ == "Complete");
    let said = condition.map(|c| End { failed: c.type_ == "Failed", why: c.reason.as_deref().unwrap_or(&c.type_) });
    said.or_else(|| counted(status))
}

/// The same, from its counters. A pod is counted once it has ended and is released, and a Job of ours has one pod only.
/// The controller withholds the condition as long as it waits to hear of a pod that it has created, and if it missed that
/// while the API server was down, it does not look again: the Job would wait until its deadline.
fn counted(status: &JobStatus) -> Option<End<'_>> {
    let alive = status.active.unwrap_or(0) > 0 || status.terminating.unwrap_or(0) > 0;
    match (status.failed.unwrap_or(0), status.succeeded.unwrap_or(0)) {
        _ if alive => None,
        (1.., _) => Some(End { failed: true, why: "its pod failed" }),
        (_, 1..) => Some(End { failed: false, why: "its pod succeeded" }),
        _ => None,
    }
}

/// The step that a Job is an attempt at, and which.
pub fn attempt_of(job: &Job) -> Option<(String, i32)> {
    let note = |key: &str| job.annotations().get(key);
    Some((note(annotation::STEP_KEY)?.clone(), note(annotation::ATTEMPT)?.parse().ok()?))
}

/// Whether its controller calls a Job ended.
pub fn is_over(job: &Job) -> bool {
    ended(job).is_some()
}

/// Whether its controller calls a Job done; then none of its pods is left.
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
    // Before Kubernetes 1.31 a Job was called failed while its pod was still ending.
    let ended = ended.filter(|_| pods.iter().all(|p| is_dead(p)));
    match (ended, died) {
        (_, Some(failure)) => JobState::Lost(failure),
        (Some(end), None) => JobState::Lost(without_result(job, pods, &end, message)),
        (None, None) if pods.is_empty() => JobState::Active { held: podless(job, now) },
        (None, None) => {
            let held = pods.iter().find_map(|p| held(p, now));
            match held {
                // No wait heals it, so it is over; whoever reads that stops the Job.
                Some(failure) if failure.class == Class::Invalid => JobState::Lost(failure),
                held => JobState::Active { held },
            }
        }
    }
}

/// Why a Job that is over has no outcome. Nobody removes a pod that failed by itself: when a failed Job has none left,
/// it was deleted, and what the cluster noted about that went with it.
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

/// What keeps a Job without a pod. The refusal itself stands only in events.
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
