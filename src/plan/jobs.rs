//! What became of a Job: from the Job and its pods to one verdict.
//!
//! An agent's outcome is its container's termination message. A Job that ended
//! without a readable one is an infrastructure failure, never a success. Why a
//! pod does not start is told apart, so that status can say what to do.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::contract::{Class, Failure, Outcome, TASK_ENV, Task};
use crate::names::{annotation, reason};

/// A Job of a run, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSeen {
    /// Its name.
    pub name: String,
    /// Key of the step within the run.
    pub key: String,
    /// Attempt at the step, from 1.
    pub attempt: i32,
    /// It is being deleted; its pods may still run.
    pub deleting: bool,
    /// It was told to stop more than [`STOP_PATIENCE`] ago. Its node does not answer, and nobody can say whether it runs.
    pub given_up: bool,
    /// Address of its running pod, where progress can be asked for.
    pub address: Option<String>,
    /// What became of it.
    pub state: JobState,
    /// What it was asked to do.
    pub task: Option<Task>,
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
    /// Whether something of it may still run, as far as that can be waited for.
    pub fn is_active(&self) -> bool {
        !self.given_up && (self.deleting || matches!(self.state, JobState::Active { .. }))
    }
}

/// A Job gets its pod within a second; after this long something refuses the pod.
const POD_PATIENCE: SignedDuration = SignedDuration::from_secs(15);

/// A pod has 20 seconds to end, and a node that answers confirms it within seconds; it counts as gone after 40 seconds
/// without a word. Twice that. Whoever leaves a run does not wait for a Job any longer: the node may never come back.
pub const STOP_PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// Reads one Job and those of `pods` that are its own.
pub fn see(job: &Job, pods: &[&Pod], now: Timestamp) -> JobSeen {
    let uid = job.uid().unwrap_or_default();
    let own: Vec<&Pod> = pods.iter().copied().filter(|p| p.owner_references().iter().any(|o| o.uid == uid)).collect();
    let note = |key: &str| job.annotations().get(key).cloned();
    let stopped = job.metadata.deletion_timestamp.as_ref().map(|t| t.0);
    let address = own.iter().find(|p| phase(p) == "Running").and_then(|p| p.status.as_ref()?.pod_ip.clone());
    JobSeen {
        name: job.name_any(),
        key: note(annotation::STEP_KEY).unwrap_or_default(),
        attempt: note(annotation::ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(1),
        deleting: stopped.is_some(),
        given_up: stopped.is_some_and(|at| now.duration_since(at) > STOP_PATIENCE),
        address,
        state: state(job, &own, now),
        task: task(job),
    }
}

fn task(job: &Job) -> Option<Task> {
    let pod = job.spec.as_ref()?.template.spec.as_ref()?;
    let env = pod.containers.first()?.env.as_ref()?.iter().find(|e| e.name == TASK_ENV)?;
    Task::decode(env.value.as_deref()?).ok()
}

fn state(job: &Job, pods: &[&Pod], now: Timestamp) -> JobState {
    let message = pods.iter().find_map(|p| terminated(p)?.message.as_deref().filter(|m| !m.trim().is_empty()));
    if let Some(outcome) = message.and_then(|m| Outcome::decode(m).ok()) {
        return JobState::Done(Box::new(outcome));
    }
    let ended = job
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten())
        .find(|c| c.status == "True" && (c.type_ == "Failed" || c.type_ == "Complete"));
    let died = pods.iter().find_map(|p| death(p));
    // Before Kubernetes 1.31 a Job was called failed while its pod was still ending.
    let ended = ended.filter(|_| pods.iter().all(|p| is_dead(p)));
    match (ended, died) {
        (_, Some(failure)) => JobState::Lost(failure),
        (Some(condition), None) => JobState::Lost(Failure::new(
            Class::Transient,
            reason::OUTCOME_LOST,
            format!(
                "Job {} ended ({}) and its pod left no result{}.",
                job.name_any(),
                condition.reason.as_deref().unwrap_or(&condition.type_),
                message.map(|_| " that this version can read").unwrap_or_default()
            ),
        )),
        (None, None) if pods.is_empty() => JobState::Active { held: podless(job, now) },
        (None, None) => JobState::Active { held: pods.iter().find_map(|p| held(p)) },
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten())
}

fn terminated(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::ContainerStateTerminated> {
    containers(pod).find_map(|c| c.state.as_ref()?.terminated.as_ref())
}

fn is_dead(pod: &Pod) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded") || terminated(pod).is_some()
}

/// Why a pod that is over left no outcome.
fn death(pod: &Pod) -> Option<Failure> {
    let status = pod.status.as_ref().filter(|_| is_dead(pod))?;
    let name = pod.name_any();
    if status.reason.as_deref() == Some("Evicted") {
        let why = status.message.clone().unwrap_or_default();
        return Some(Failure::new(
            Class::Transient,
            reason::EVICTED,
            format!(
                "Pod {name} was evicted: {why} Give it resource requests under runtimeSettings.container.resources."
            ),
        ));
    }
    let end = terminated(pod);
    if end.and_then(|t| t.reason.as_deref()) == Some("OOMKilled") {
        let mut failure = Failure::new(
            Class::Transient,
            reason::OOM_KILLED,
            format!(
                "Pod {name} used more memory than its limit and was killed. Raise runtimeSettings.container.resources.limits.memory."
            ),
        );
        failure.exit_code = end.map(|t| t.exit_code);
        return Some(failure);
    }
    let code = end.map(|t| format!(" with exit code {}", t.exit_code)).unwrap_or_default();
    let why = end.and_then(|t| t.reason.clone()).or_else(|| status.reason.clone()).unwrap_or_default();
    Some(Failure::new(
        Class::Transient,
        reason::OUTCOME_LOST,
        format!("Pod {name} ended{code} ({why}) without a result. See kubectl logs {name}."),
    ))
}

/// What keeps a Job without a pod. The refusal itself stands only in events.
fn podless(job: &Job, now: Timestamp) -> Option<Failure> {
    let age = now.duration_since(job.creation_timestamp()?.0);
    let name = job.name_any();
    (age > POD_PATIENCE).then(|| {
        Failure::new(
            Class::Waiting,
            reason::POD_NOT_CREATED,
            format!(
                "Job {name} gets no pod. Most likely a quota or the Pod Security Standard of the namespace refuses it: see kubectl describe job {name}."
            ),
        )
    })
}

/// What keeps a pod from running.
fn held(pod: &Pod) -> Option<Failure> {
    let name = pod.name_any();
    for container in containers(pod) {
        let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) else { continue };
        let why = waiting.reason.as_deref().unwrap_or_default();
        let detail = waiting.message.as_deref().unwrap_or_default();
        match why {
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
                return Some(Failure::new(
                    Class::Waiting,
                    reason::IMAGE_UNAVAILABLE,
                    format!("Image {} of pod {name} cannot be had ({why}): {detail}", container.image),
                ));
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                return Some(Failure::new(
                    Class::Waiting,
                    reason::CONTAINER_NOT_CREATED,
                    format!("The container of pod {name} cannot be started ({why}): {detail}"),
                ));
            }
            _ => {}
        }
    }
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    for condition in conditions {
        if condition.type_ == "PodScheduled" && condition.status == "False" {
            return Some(Failure::new(
                Class::Waiting,
                reason::UNSCHEDULABLE,
                format!("No node takes pod {name}: {}", condition.message.as_deref().unwrap_or_default()),
            ));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use super::*;
    use crate::plan::contract::{Answer, VERSION};
    use serde_json::{Value, json};

    fn job(conditions: Value) -> Job {
        serde_json::from_value(json!({
            "metadata": { "name": "j", "uid": "u", "annotations": { annotation::STEP_KEY: "restore/0/app", annotation::ATTEMPT: "2" } },
            "status": { "conditions": conditions }
        }))
        .unwrap()
    }

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p", "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u" }] },
            "status": status
        }))
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_job_that_gets_no_pod_says_so_after_a_while() {
        let mut job = job(json!([]));
        job.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100)));
        assert_eq!(see(&job, &[], at(110)).state, JobState::Active { held: None });
        let JobState::Active { held: Some(failure) } = see(&job, &[], at(116)).state else { panic!("must be held") };
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Waiting, reason::POD_NOT_CREATED));
    }

    fn failed() -> Value {
        json!([{ "type": "Failed", "status": "True", "reason": "BackoffLimitExceeded" }])
    }

    fn container(state: Value) -> Value {
        json!([{ "name": "agent", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state }])
    }

    #[test]
    fn an_outcome_is_believed_before_the_job_says_that_it_ended() {
        let outcome = Outcome {
            version: VERSION,
            run: "r".into(),
            answer: Some(Answer::Prepared { created: true }),
            ..Outcome::default()
        };
        let p = pod(
            json!({ "phase": "Running", "containerStatuses": container(json!({ "terminated": { "exitCode": 0, "message": outcome.encode() } })) }),
        );
        let seen = see(&job(json!([])), &[&p], at(0));
        assert_eq!(seen.state, JobState::Done(Box::new(outcome)));
        assert_eq!((seen.key.as_str(), seen.attempt), ("restore/0/app", 2));
    }

    #[test]
    fn a_job_that_completed_without_an_outcome_is_lost_not_done() {
        for conditions in [failed(), json!([{ "type": "Complete", "status": "True" }])] {
            let JobState::Lost(failure) = see(&job(conditions), &[], at(0)).state else { panic!("must be lost") };
            assert_eq!((failure.class, failure.reason.as_str()), (Class::Transient, reason::OUTCOME_LOST));
        }
    }

    #[test]
    fn deaths_have_their_own_reasons() {
        let oom = container(json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }));
        let cases = [
            (json!({ "phase": "Failed", "containerStatuses": oom }), reason::OOM_KILLED),
            (json!({ "phase": "Failed", "reason": "Evicted", "message": "disk." }), reason::EVICTED),
            (json!({ "phase": "Failed" }), reason::OUTCOME_LOST),
        ];
        for (status, expected) in cases {
            let p = pod(status);
            let JobState::Lost(failure) = see(&job(json!([])), &[&p], at(0)).state else { panic!("must be lost") };
            assert_eq!(failure.reason, expected);
        }
    }

    #[test]
    fn a_pod_that_cannot_start_is_active_and_says_why() {
        let cases = [
            (
                json!({ "phase": "Pending", "containerStatuses": container(json!({ "waiting": { "reason": "ErrImageNeverPull" } })) }),
                reason::IMAGE_UNAVAILABLE,
            ),
            (
                json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "message": "0/1 nodes" }] }),
                reason::UNSCHEDULABLE,
            ),
            (
                json!({ "phase": "Pending", "containerStatuses": container(json!({ "waiting": { "reason": "CreateContainerConfigError" } })) }),
                reason::CONTAINER_NOT_CREATED,
            ),
        ];
        for (status, expected) in cases {
            let p = pod(status);
            let JobState::Active { held: Some(failure) } = see(&job(json!([])), &[&p], at(0)).state else {
                panic!("must be held")
            };
            assert_eq!(failure.reason, expected);
        }
        assert_eq!(see(&job(json!([])), &[], at(0)).state, JobState::Active { held: None });
    }
}
