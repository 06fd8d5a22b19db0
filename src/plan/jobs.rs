//! What became of a Job: from the Job and its pods to one verdict.
//!
//! An agent's outcome is its container's termination message. A Job that ended
//! without a readable one is an infrastructure failure, never a success. Why a
//! pod does not start is told apart, so that status can say what to do.

mod pods;
mod reasons;

use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use self::pods::{death, held, is_dead, is_starting, lingers, phase, terminated};
use super::contract::{Class, Failure, Outcome, TASK_ENV, Task};
use super::objects::{CONTAINER, REPOSITORY_VOLUME};
use crate::names::{annotation, label, reason};

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
    /// It could not start for [`PLACE_PATIENCE`], so it holds no place on its Repository.
    pub is_stuck: bool,
    /// Address of its running pod, where progress can be asked for.
    pub address: Option<String>,
    /// Its agent has ended, and a container that somebody added to its pod runs on with the volumes.
    pub lingers: bool,
    /// What became of it.
    pub state: JobState,
    /// What it was asked to do. Of watched ones only that of a preflight is known, see [`super::kept`].
    pub task: Option<Task>,
    /// Claims that it writes to.
    pub writes: Vec<String>,
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
        is_stuck: false,
        lingers: lingers(pod),
        address: (phase(pod) == "Running").then(|| pod.status.as_ref()?.pod_ip.clone()).flatten(),
        state: match (message.and_then(read), death(pod)) {
            (Some(outcome), _) => JobState::Done(Box::new(outcome)),
            (None, Some(failure)) => JobState::Lost(failure),
            (None, None) => JobState::Active { held: held(pod, now) },
        },
        task: pod.spec.as_ref().and_then(task),
        writes: writes(pod, pod.spec.as_ref()),
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
        is_stuck,
        lingers: own.iter().any(|p| lingers(p)),
        address,
        state,
        task: job.spec.as_ref().and_then(|s| task(s.template.spec.as_ref()?)),
        writes: writes(job, job.spec.as_ref().and_then(|s| s.template.spec.as_ref())),
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
        let text =
            format!("{} It holds no place on the Repository meanwhile, and takes one when it starts.", why.message);
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
    let of_target = volumes.filter(|v| v.name != REPOSITORY_VOLUME);
    of_target.filter_map(|v| Some(v.persistent_volume_claim.as_ref()?.claim_name.clone())).collect()
}

fn task(pod: &PodSpec) -> Option<Task> {
    Task::decode(task_text(&pod.containers)?).ok()
}

/// What the agent in a Job's pod is told.
pub fn task_text(containers: &[Container]) -> Option<&str> {
    containers.iter().find(|c| c.name == CONTAINER)?.env.as_ref()?.iter().find(|e| e.name == TASK_ENV)?.value.as_deref()
}

/// What a Job's controller says of its end.
fn end_of(conditions: &[JobCondition]) -> Option<&JobCondition> {
    conditions.iter().find(|c| c.status == "True" && (c.type_ == "Failed" || c.type_ == "Complete"))
}

/// Whether its controller calls a Job ended.
pub fn is_over(job: &Job) -> bool {
    ended(job).is_some()
}

/// Whether its controller calls a Job done; then none of its pods is left.
pub fn is_complete(job: &Job) -> bool {
    ended(job).is_some_and(|c| c.type_ == "Complete")
}

fn ended(job: &Job) -> Option<&JobCondition> {
    end_of(job.status.as_ref()?.conditions.as_deref()?)
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
        (Some(condition), None) => JobState::Lost(without_result(job, pods, condition, message)),
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
fn without_result(job: &Job, pods: &[&Pod], end: &JobCondition, message: Option<&str>) -> Failure {
    let (name, why) = (job.name_any(), end.reason.as_deref().unwrap_or(&end.type_));
    if pods.is_empty() && end.type_ == "Failed" {
        let text = format!(
            "Job {name} ended ({why}) and its pod is gone: it was drained or deleted before its result was read. Lifeboat tries again within the deadline."
        );
        return Failure::new(Class::Transient, reason::DISRUPTED, text);
    }
    let unreadable = message.map(|_| " that this version can read").unwrap_or_default();
    let text = format!("Job {name} ended ({why}) and its pod left no result{unreadable}.");
    Failure::new(Class::Transient, reason::OUTCOME_LOST, text)
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

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "json! makes values")]
mod tests {
    use super::*;
    use crate::plan::contract::{Answer, VERSION};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
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
            "metadata": { "name": "p", "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u", "controller": true }] },
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
        let JobState::Active { held: Some(failure) } = see(&job, &[], at(111)).state else { panic!("must be held") };
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Waiting, reason::POD_NOT_CREATED));
    }

    #[test]
    fn a_job_that_cannot_start_for_minutes_gives_its_place_up_and_says_so() {
        let mut job = job(json!([]));
        job.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(100)));
        let no_node = json!({ "phase": "Pending",
            "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes." }] });
        let silent = json!({ "phase": "Running", "conditions": [{ "type": "ContainersReady", "status": "True" },
            { "type": "Ready", "status": "False", "reason": "x" }] });
        let runs = json!({ "phase": "Running" });
        let judge = |job: &Job, pods: &[Value], second: i64| {
            let pods: Vec<Pod> = pods.iter().map(|status| pod(status.clone())).collect();
            let seen = see(job, &pods.iter().collect::<Vec<_>>(), at(second));
            let JobState::Active { held } = seen.state else { panic!("must be active") };
            (seen.is_stuck, held.map(|f| f.message.contains("holds no place")))
        };
        for (pods, second, expected) in [
            (vec![no_node.clone()], 400, (false, Some(false))),
            (vec![no_node.clone()], 401, (true, Some(true))),
            (vec![], 401, (true, Some(true))),
            (vec![silent], 4000, (false, Some(false))),
            (vec![runs], 4000, (false, None)),
        ] {
            assert_eq!(judge(&job, &pods, second), expected, "{pods:?} at {second}");
        }
        job.labels_mut().insert(label::SESSION_KIND.into(), "Repository".into());
        assert_eq!(judge(&job, &[no_node], 401), (false, Some(false)), "a probe takes no place");
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
        let silent = pod(
            json!({ "phase": "Succeeded", "containerStatuses": container(json!({ "terminated": { "exitCode": 0 } })) }),
        );
        for pods in [vec![], vec![&silent]] {
            let complete = job(json!([{ "type": "Complete", "status": "True" }]));
            let JobState::Lost(failure) = see(&complete, &pods, at(0)).state else { panic!("must be lost") };
            assert_eq!((failure.class, failure.reason.as_str()), (Class::Transient, reason::OUTCOME_LOST));
        }
    }

    /// Proves: defect 9, C05, invented 11.
    #[test]
    fn deaths_have_their_own_reasons() {
        let oom = container(json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }));
        let target =
            |why: &str| json!([{ "type": "DisruptionTarget", "status": "True", "reason": why, "message": "x." }]);
        let cases = [
            (json!({ "phase": "Failed", "containerStatuses": oom }), reason::OOM_KILLED, Class::Transient),
            (json!({ "phase": "Failed", "reason": "Evicted", "message": "disk." }), reason::EVICTED, Class::Transient),
            (
                json!({ "phase": "Failed", "reason": "Evicted",
                    "message": "Usage of EmptyDir volume \"lifeboat-work\" exceeds the limit \"1Mi\". " }),
                reason::TEMP_DIR_FULL,
                Class::Invalid,
            ),
            (
                json!({ "phase": "Failed", "conditions": target("PreemptionByScheduler") }),
                reason::DISRUPTED,
                Class::Transient,
            ),
            (
                json!({ "phase": "Failed", "conditions": target("DeletionByPodGC") }),
                reason::DISRUPTED,
                Class::Transient,
            ),
            (json!({ "phase": "Failed" }), reason::OUTCOME_LOST, Class::Transient),
        ];
        for (status, expected, class) in cases {
            let p = pod(status);
            let JobState::Lost(failure) = see(&job(json!([])), &[&p], at(0)).state else { panic!("must be lost") };
            assert_eq!((failure.reason.as_str(), failure.class), (expected, class));
        }
    }

    /// It is not the restore's own doing, and takes nothing off its three tries.
    ///
    /// Proves: C05.
    #[test]
    fn a_pod_that_is_deleted_before_it_can_answer_was_taken_away() {
        let ended = container(json!({ "terminated": { "exitCode": 143, "reason": "Error" } }));
        let mut p = pod(json!({ "phase": "Running", "containerStatuses": ended }));
        let reason_of = |p: &Pod| match see(&job(json!([])), &[p], at(0)).state {
            JobState::Lost(failure) => failure.reason,
            other => panic!("must be lost: {other:?}"),
        };
        assert_eq!(reason_of(&p), reason::OUTCOME_LOST);
        p.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(0)));
        assert_eq!(reason_of(&p), reason::DISRUPTED);
        // It can be gone altogether before anybody looks.
        let JobState::Lost(failure) = see(&job(failed()), &[], at(0)).state else { panic!("must be lost") };
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Transient, reason::DISRUPTED));
        assert!(failure.message.contains("BackoffLimitExceeded"), "{}", failure.message);
    }

    fn statuses(all: &[(&str, Value)]) -> Value {
        let one = |(name, state): &(&str, Value)| json!({ "name": name, "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        all.iter().map(one).collect()
    }

    /// Closes: R04, R03 of the reports.
    #[test]
    fn the_end_of_a_container_that_somebody_added_is_not_the_agents() {
        let (runs, ended) = (
            json!({ "running": {} }),
            |code: i32, message: &str| json!({ "terminated": { "exitCode": code, "message": message } }),
        );
        let outcome = Outcome { version: VERSION, answer: Some(Answer::Probed), ..Outcome::default() };
        let seen = |phase: &str, containers: &[(&str, Value)]| {
            let p = pod(json!({ "phase": phase, "containerStatuses": statuses(containers) }));
            let seen = see(&job(json!([])), &[&p], at(0));
            (seen.state, seen.lingers)
        };
        for code in [0, 1, 137] {
            // Whatever it writes as its last words.
            for words in ["", "bye", &outcome.encode()] {
                let added = ("proxy", ended(code, words));
                let (state, lingers) = seen("Running", &[added.clone(), ("agent", runs.clone())]);
                assert_eq!((state, lingers), (JobState::Active { held: None }, false), "{code} {words}");
                let (state, _) = seen("Running", &[added, ("agent", ended(0, &outcome.encode()))]);
                assert_eq!(state, JobState::Done(Box::new(outcome.clone())));
            }
        }
        let (state, lingers) = seen("Running", &[("agent", ended(0, &outcome.encode())), ("proxy", runs.clone())]);
        assert_eq!((state, lingers), (JobState::Done(Box::new(outcome.clone())), true));
        // Between the end of the last container and the kubelet's word that the pod is over.
        for added in [vec![], vec![("proxy", ended(0, ""))]] {
            let all = [added, vec![("agent", ended(0, &outcome.encode()))]].concat();
            assert_eq!(seen("Running", &all), (JobState::Done(Box::new(outcome.clone())), false));
        }
        let (state, lingers) = seen("Succeeded", &[("agent", ended(0, &outcome.encode())), ("proxy", ended(0, ""))]);
        assert_eq!((state, lingers), (JobState::Done(Box::new(outcome)), false));
        let pull = json!({ "waiting": { "reason": "ImagePullBackOff" } });
        let (state, _) = seen("Pending", &[("proxy", pull), ("agent", runs)]);
        assert_eq!(state, JobState::Active { held: None }, "the agent runs without it");
    }

    /// Closes: R28 of the reports.
    #[test]
    fn an_init_container_that_fails_is_named() {
        let ended = json!({ "terminated": { "exitCode": 2, "reason": "Error", "message": "no licence\n" } });
        let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
        let p = pod(
            json!({ "phase": "Failed", "initContainerStatuses": statuses(&[("good", json!({ "terminated": { "exitCode": 0 } })), ("vault", ended)]),
            "containerStatuses": statuses(&[("agent", waiting.clone())]) }),
        );
        let JobState::Lost(failure) = see(&job(failed()), &[&p], at(0)).state else { panic!("must be lost") };
        assert_eq!((failure.reason.as_str(), failure.exit_code), (reason::INIT_CONTAINER_FAILED, Some(2)));
        for part in ["Init container vault of pod p", "exit code 2 (Error): no licence.", "kubectl logs p -c vault"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        let pull = json!({ "waiting": { "reason": "ErrImagePull", "message": "no such image." } });
        let p = pod(
            json!({ "phase": "Pending", "initContainerStatuses": statuses(&[("vault", pull)]), "containerStatuses": statuses(&[("agent", waiting)]) }),
        );
        let JobState::Active { held: Some(failure) } = see(&job(json!([])), &[&p], at(0)).state else {
            panic!("must be held")
        };
        assert_eq!(failure.reason, reason::IMAGE_UNAVAILABLE);
    }

    /// Proves: defect 9, C07.
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
        // A volume that cannot be mounted stands in events only.
        let scheduled = json!([{ "type": "PodScheduled", "status": "True", "lastTransitionTime": Time(at(1000)) }]);
        let making = container(json!({ "waiting": { "reason": "ContainerCreating" } }));
        for statuses in [Value::Null, making] {
            let p = pod(json!({ "phase": "Pending", "conditions": scheduled, "containerStatuses": statuses }));
            let seen = see(&job(json!([])), &[&p], at(1120));
            assert_eq!(seen.state, JobState::Active { held: None }, "it may just be starting");
            assert_eq!(seen.next_look(), FIRST_LOOK, "nothing else wakes us");
            let JobState::Active { held: Some(failure) } = see(&job(json!([])), &[&p], at(1121)).state else {
                panic!("must be held")
            };
            assert_eq!((failure.class, failure.reason.as_str()), (Class::Waiting, reason::CONTAINER_NOT_CREATED));
            assert!(failure.message.contains("kubectl describe pod p"), "{}", failure.message);
        }
        let seen = see(&job(json!([])), &[], at(0));
        assert_eq!((&seen.state, seen.next_look()), (&JobState::Active { held: None }, FIRST_LOOK));
        // One that the scheduler has not looked at: a watch tells when it does.
        let seen = see(&job(json!([])), &[&pod(json!({ "phase": "Pending" }))], at(0));
        assert_eq!((&seen.state, seen.next_look()), (&JobState::Active { held: None }, Duration::from_mins(1)));
    }

    #[test]
    fn an_image_without_a_name_is_over_at_once() {
        let p = pod(
            json!({ "phase": "Pending", "containerStatuses": container(json!({ "waiting": { "reason": "InvalidImageName" } })) }),
        );
        let JobState::Lost(failure) = see(&job(json!([])), &[&p], at(0)).state else { panic!("must be over") };
        assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::IMAGE_INVALID));
    }

    /// Proves: C05.
    #[test]
    fn a_node_that_does_not_answer_is_told_from_a_container_that_is_not_ready() {
        let of = |containers: &str, ready: Value| {
            let mut ready_condition = json!({ "type": "Ready", "status": "False" });
            ready_condition["reason"] = ready;
            let conditions = json!([{ "type": "ContainersReady", "status": containers }, ready_condition]);
            pod(
                json!({ "phase": "Running", "conditions": conditions, "containerStatuses": container(json!({ "running": {} })) }),
            )
        };
        let held = |p: &Pod| match see(&job(json!([])), &[p], at(1000)).state {
            JobState::Active { held } => held.map(|f| f.reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(held(&of("True", Value::Null)).as_deref(), Some(reason::NODE_LOST));
        assert_eq!(held(&of("False", json!("ContainersNotReady"))), None);
        assert_eq!(held(&of("True", json!("ReadinessGatesNotReady"))), None);
        let mut overdue = pod(json!({ "phase": "Running" }));
        overdue.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(900)));
        assert_eq!(held(&overdue).as_deref(), Some(reason::NODE_LOST));
        overdue.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(990)));
        assert_eq!(held(&overdue), None);
    }

    /// Proves: defect 9.
    #[test]
    fn a_pod_whose_job_is_gone_stands_for_it() {
        let mut p = pod(json!({ "phase": "Running" }));
        p.metadata.annotations = Some(
            [
                (annotation::STEP_KEY.to_owned(), "restore/0/app".to_owned()),
                (annotation::ATTEMPT.to_owned(), "2".to_owned()),
            ]
            .into(),
        );
        let seen = see_all(&[], &[&p], at(0)).remove(0);
        assert_eq!((seen.name.as_str(), seen.key.as_str(), seen.attempt), ("j", "restore/0/app", 2));
        assert!(seen.is_active());
        assert_eq!(see_all(&[&job(json!([]))], &[&p], at(0)).len(), 1, "with its Job there it is no second one");
    }
}
