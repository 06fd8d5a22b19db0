use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::contract::VERSION;
use crate::contract::restic::Answer;
use crate::plan::seen::compact::Kept;
use crate::plan::seen::job_status::*;

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
    // A stopped Job has lost its pod, and gets no other.
    job.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(110)));
    assert_eq!(see(&job, &[], at(111)).state, JobState::Active { held: None });
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
        (seen.is_stuck, held.map(|f| f.message.contains("holds no slot")))
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
        answer: Some(Answer::Prepared { created: true }.into()),
        ..Outcome::default()
    };
    let p = pod(
        json!({ "phase": "Running", "containerStatuses": container(json!({ "terminated": { "exitCode": 0, "message": outcome.encode() } })) }),
    );
    let seen = see(&job(json!([])), &[&p], at(0));
    assert_eq!(seen.state, JobState::Done(Box::new(outcome)));
    assert_eq!((seen.key.as_str(), seen.attempt), ("restore/0/app", 2));
}

/// A Job as Kubernetes 1.36.3 left it: its pod was deleted after the API server had been unreachable, was counted, and
/// the Job was never marked as failed.
#[test]
fn a_job_whose_pod_was_counted_is_over_without_a_condition() {
    let counted = |status: Value| {
        let mut job = job(json!([]));
        job.metadata.creation_timestamp = Some(Time(at(100)));
        let mut status = status;
        status["uncountedTerminatedPods"] = json!({});
        job.status = Some(serde_json::from_value(status).unwrap());
        // As the watch caches it.
        serde_json::from_value::<Kept<Job>>(json!(job)).unwrap().open()
    };
    let failed = counted(json!({ "failed": 1, "ready": 0, "terminating": 0 }));
    let JobState::Lost(failure) = see(&failed, &[], at(400)).state else { panic!("it waits for nobody") };
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Transient, reason::DISRUPTED));
    assert!(is_over(&failed) && !is_complete(&failed));
    let succeeded = counted(json!({ "succeeded": 1 }));
    let JobState::Lost(failure) = see(&succeeded, &[], at(400)).state else { panic!("it waits for nobody") };
    assert_eq!(failure.reason, reason::OUTCOME_LOST);
    assert!(is_complete(&succeeded));
    for runs in [
        json!({ "failed": 1, "active": 1 }),
        json!({ "failed": 1, "terminating": 1 }),
        json!({ "active": 1 }),
        json!({}),
    ] {
        let job = counted(runs.clone());
        assert!(matches!(see(&job, &[], at(400)).state, JobState::Active { .. }) && !is_over(&job), "{runs}");
    }
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
    let target = |why: &str| json!([{ "type": "DisruptionTarget", "status": "True", "reason": why, "message": "x." }]);
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
        (json!({ "phase": "Failed", "conditions": target("DeletionByPodGC") }), reason::DISRUPTED, Class::Transient),
        (json!({ "phase": "Failed" }), reason::OUTCOME_LOST, Class::Transient),
    ];
    for (status, expected, class) in cases {
        let p = pod(status);
        let JobState::Lost(failure) = see(&job(json!([])), &[&p], at(0)).state else { panic!("must be lost") };
        assert_eq!((failure.reason.as_str(), failure.class), (expected, class));
    }
}

/// The restore did not cause this, and it does not count against the three attempts of the restore.
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
    // The pod can be gone before the operator sees it.
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
    let outcome = Outcome { version: VERSION, answer: Some(Answer::Probed.into()), ..Outcome::default() };
    let seen = |phase: &str, containers: &[(&str, Value)]| {
        let p = pod(json!({ "phase": phase, "containerStatuses": statuses(containers) }));
        let seen = see(&job(json!([])), &[&p], at(0));
        (seen.state, seen.lingers)
    };
    for code in [0, 1, 137] {
        // The termination message may be anything.
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
    // After the end of the last container, before the kubelet reports that the pod is over.
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

/// Cases similar to R28: init containers that end in other ways, or never.
#[test]
fn an_init_container_that_keeps_the_agent_waiting_is_named() {
    let waiting = json!({ "waiting": { "reason": "PodInitializing" } });
    for (end, said) in [
        (json!({ "exitCode": 137, "reason": "OOMKilled" }), "exit code 137 (OOMKilled)"),
        (json!({ "exitCode": 143 }), "exit code 143 (Error)"),
        (
            json!({ "exitCode": 128, "reason": "StartError", "message": "no such file" }),
            "128 (StartError): no such file.",
        ),
    ] {
        let all =
            statuses(&[("first", json!({ "terminated": { "exitCode": 0 } })), ("vault", json!({ "terminated": end }))]);
        let agent = statuses(&[("agent", waiting.clone())]);
        let p = pod(json!({ "phase": "Failed", "initContainerStatuses": all, "containerStatuses": agent }));
        let JobState::Lost(failure) = see(&job(failed()), &[&p], at(0)).state else { panic!("must be lost") };
        assert_eq!((failure.reason.as_str(), failure.class), (reason::INIT_CONTAINER_FAILED, Class::Transient));
        assert!(
            failure.message.contains("Init container vault of pod p") && failure.message.contains(said),
            "{failure:?}"
        );
    }
    let held = |state: Value, last: Value, policy: &str, started: bool, now| {
        let status = json!([{ "name": "mesh", "image": "i", "imageID": "", "ready": false, "restartCount": 1,
            "state": state, "lastState": last, "started": started }]);
        let scheduled = json!([{ "type": "PodScheduled", "status": "True", "lastTransitionTime": Time(at(1000)) }]);
        let mut p = pod(json!({ "phase": "Pending", "conditions": scheduled, "initContainerStatuses": status,
            "containerStatuses": statuses(&[("agent", waiting.clone())]) }));
        let spec = json!({ "containers": [{ "name": "agent" }], "initContainers": [{ "name": "mesh", "restartPolicy": policy }] });
        p.spec = serde_json::from_value(spec).unwrap();
        p.labels_mut().insert(label::SESSION_KIND.into(), "RestoreSession".into());
        // As the watch caches it.
        let p = Kept::from(p).open();
        match see(&job(json!([])), &[&p], at(now)).state {
            JobState::Active { held } => held.map(|f| (f.class, f.reason, f.message)),
            other => panic!("{other:?}"),
        }
    };
    let again = json!({ "waiting": { "reason": "CrashLoopBackOff" } });
    let ended = json!({ "terminated": { "exitCode": 1, "reason": "Error" } });
    for (last, said) in [(ended, "It last ended with exit code 1 (Error)."), (json!({}), "repeatedly. A policy")] {
        let (class, why, text) = held(again.clone(), last, "Always", false, 1000).unwrap();
        assert_eq!((class, why.as_str()), (Class::Waiting, reason::INIT_CONTAINER_FAILED));
        assert!(text.contains("Init container mesh of pod p") && text.contains(said), "{text}");
    }
    let runs = json!({ "running": { "startedAt": Time(at(1000)) } });
    for (policy, started) in [("", true), ("", false), ("Always", false)] {
        assert_eq!(held(runs.clone(), json!({}), policy, started, 1100), None, "it may just take a while");
        let (class, why, text) = held(runs.clone(), json!({}), policy, started, 2000).unwrap();
        assert_eq!((class, why.as_str()), (Class::Waiting, reason::CONTAINER_NOT_CREATED));
        assert!(text.contains("Init container mesh of pod p has run for minutes"), "{text}");
    }
    let (.., text) = held(runs, json!({}), "Always", true, 2000).unwrap();
    assert!(text.contains("a volume cannot be attached"), "a sidecar that is up keeps nobody: {text}");
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
    // A conflict of the scheduler with another writer disappears at its next attempt.
    let conflict = json!([{ "type": "PodScheduled", "status": "False", "reason": "SchedulerError", "message": "a conflict",
        "lastTransitionTime": Time(at(1000)) }]);
    let p = pod(json!({ "phase": "Pending", "conditions": conflict }));
    assert_eq!(see(&job(json!([])), &[&p], at(1120)).state, JobState::Active { held: None });
    let JobState::Active { held: Some(failure) } = see(&job(json!([])), &[&p], at(1121)).state else {
        panic!("must be held")
    };
    assert!(failure.message.contains("a conflict. It waits"), "{}", failure.message);
    // A volume that cannot be mounted is reported in events only.
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
    // A pod that the scheduler has not processed: the watch reports when it is.
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
