//! Why a pod ended without an outcome, and why a pod does not start to run.
//!
//! The class of a failure decides about a retry. What the cluster does to pods is retried. What a pod does to itself is
//! retried a few times. What no retry can fix is not retried. The messages are written for the reader of a status: what
//! happened to which pod, and what to do.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::contract::{Class, Failure};
use crate::names::{AGENT_CONTAINER, reason, volume};
use crate::text::sentence;

/// If a pod should have been gone for this long, its node does not answer: a kubelet removes a pod within seconds.
const GONE_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// A container is created within seconds of its volumes; attaching cloud volumes takes up to about a minute.
const START_PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// Phase of a pod; empty when it has none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// What the kubelet reports about the agent's container. Policies and service meshes add other containers to every pod:
/// whether and how such a container ends says nothing about the agent.
fn agent(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.iter().flatten().find(|c| c.name == AGENT_CONTAINER)
}

fn init_containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|s| s.init_container_statuses.iter().flatten())
}

fn condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_)
}

/// How a container ended.
fn end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

/// How the agent ended.
pub fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    end(agent(pod)?)
}

/// Whether the kubelet reports that all of the pod has ended.
fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Failed" | "Succeeded")
}

/// Whether the agent of the pod no longer runs.
pub fn is_dead(pod: &Pod) -> bool {
    is_over(pod) || terminated(pod).is_some()
}

/// Text about an init container: the operator creates Jobs without one.
const NOT_OURS: &str = "A policy or webhook of the cluster added it; the agent starts after it has ended.";

/// Whether the agent has ended, but a container that was added to the pod still runs and holds its volumes. Without
/// such a container, the kubelet is about to report the pod as ended.
pub fn lingers(pod: &Pod) -> bool {
    let mut others =
        pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).filter(|c| c.name != AGENT_CONTAINER);
    !is_over(pod) && terminated(pod).is_some() && others.any(|c| end(c).is_none())
}

/// Why a pod that is over left no outcome; `None` while it is not over.
pub fn death(pod: &Pod) -> Option<Failure> {
    let status = pod.status.as_ref().filter(|_| is_dead(pod))?;
    let name = pod.name_any();
    if status.reason.as_deref() == Some("Evicted") {
        return Some(evicted(&name, status.message.as_deref().unwrap_or_default()));
    }
    let end = terminated(pod);
    if end.and_then(|t| t.reason.as_deref()) == Some("OOMKilled") {
        let mut failure = Failure::new(
            Class::Transient,
            reason::OOM_KILLED,
            format!("Pod {name} exceeded its memory limit. Raise runtimeSettings.container.resources.limits.memory."),
        );
        failure.exit_code = end.map(|t| t.exit_code);
        return Some(failure);
    }
    // Kubernetes, "Pod disruption conditions".
    if let Some(why) = condition(pod, "DisruptionTarget").filter(|c| c.status == "True") {
        let (what, detail) = (why.reason.as_deref().unwrap_or_default(), why.message.as_deref().unwrap_or_default());
        let text =
            format!("Pod {name} was removed by the cluster ({what}): {detail} It is retried until the deadline.");
        return Some(Failure::new(Class::Transient, reason::DISRUPTED, text));
    }
    // A pod that is told to stop before its agent can notice it leaves no message.
    if pod.metadata.deletion_timestamp.is_some() {
        let text =
            format!("Pod {name} or its Job was deleted before it had a result. It is retried until the deadline.");
        return Some(Failure::new(Class::Transient, reason::DISRUPTED, text));
    }
    if let Some(failure) = end.is_none().then(|| init_containers(pod).find_map(|c| init_failed(&name, c))).flatten() {
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

/// An init container that was added to the pod, and that must succeed before the agent starts.
fn init_failed(pod: &str, container: &ContainerStatus) -> Option<Failure> {
    let end = end(container).filter(|e| e.exit_code != 0)?;
    let name = &container.name;
    let why = end.reason.as_deref().unwrap_or("Error");
    let said = end.message.as_deref().map(|m| format!(": {}", m.trim())).unwrap_or_default();
    let text = format!(
        "Init container {name} of pod {pod} ended with exit code {} ({why}){said}. {NOT_OURS} See kubectl logs {pod} -c {name}.",
        end.exit_code
    );
    let mut failure = Failure::new(Class::Transient, reason::INIT_CONTAINER_FAILED, text);
    failure.exit_code = Some(end.exit_code);
    Some(failure)
}

/// Eviction by the kubelet: the node ran short, or the pod exceeded a limit of its own.
fn evicted(name: &str, why: &str) -> Failure {
    if why.contains("EmptyDir") && why.contains(volume::WORK) {
        let text = format!(
            "The scratch volume of pod {name} is too small: {why} Raise tempDir.sizeLimit, or set tempDir.disableCaching: true."
        );
        return Failure::new(Class::Invalid, reason::TEMP_DIR_FULL, text);
    }
    let text = format!(
        "Pod {name} was evicted: {why} Set requests in runtimeSettings.container.resources, or raise the limit."
    );
    Failure::new(Class::Transient, reason::EVICTED, text)
}

/// What keeps a pod from running, or from being known to run.
pub fn held(pod: &Pod, now: Timestamp) -> Option<Failure> {
    let name = pod.name_any();
    for container in agent(pod).into_iter().chain(init_containers(pod)) {
        let Some(waiting) = container.state.as_ref().and_then(|s| s.waiting.as_ref()) else { continue };
        let why = waiting.reason.as_deref().unwrap_or_default();
        let detail = waiting.message.as_deref().unwrap_or_default();
        let image = &container.image;
        match why {
            "InvalidImageName" => {
                let text = format!(
                    "{image:?} is not a valid image name ({detail}). Correct the image of Jobs (jobs.image of the chart, LIFEBOAT_JOB_IMAGE)."
                );
                return Some(Failure::new(Class::Invalid, reason::IMAGE_INVALID, text));
            }
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "ImageInspectError" | "RegistryUnavailable" => {
                let text = format!(
                    "Image {image} of pod {name} cannot be pulled ({why}): {detail} Load it, or set runtimeSettings.pod.imagePullSecrets."
                );
                return Some(Failure::new(Class::Waiting, reason::IMAGE_UNAVAILABLE, text));
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                let text = format!(
                    "The container of pod {name} cannot be started ({why}): {detail} Check runtimeSettings and the objects that they name."
                );
                return Some(Failure::new(Class::Waiting, reason::CONTAINER_NOT_CREATED, text));
            }
            // An init container with `restartPolicy: Always` that must be up before the agent starts.
            "CrashLoopBackOff" => {
                let last = container.last_state.as_ref().and_then(|s| s.terminated.as_ref());
                let code = last.map(|t| format!(" It last ended with exit code {}", t.exit_code)).unwrap_or_default();
                let why = last.and_then(|t| t.reason.as_deref()).map(|r| format!(" ({r})")).unwrap_or_default();
                let (init, stop) = (&container.name, if code.is_empty() { "" } else { "." });
                let text = format!(
                    "Init container {init} of pod {name} fails repeatedly.{code}{why}{stop} {NOT_OURS} See kubectl logs {name} -c {init} --previous."
                );
                return Some(Failure::new(Class::Waiting, reason::INIT_CONTAINER_FAILED, text));
            }
            _ => {}
        }
    }
    // The scheduler's own errors, such as a conflict with another writer, usually disappear at its next attempt.
    let lasts = |c: &PodCondition| {
        let since = c.last_transition_time.as_ref();
        c.reason.as_deref() != Some("SchedulerError") || since.is_some_and(|t| now.duration_since(t.0) > START_PATIENCE)
    };
    if let Some(unscheduled) = condition(pod, "PodScheduled").filter(|c| c.status == "False" && lasts(c)) {
        let detail = sentence(unscheduled.message.as_deref().unwrap_or_default());
        let text = format!("Pod {name} cannot be scheduled: {detail} It waits until the deadline.");
        return Some(Failure::new(Class::Waiting, reason::UNSCHEDULABLE, text));
    }
    if is_stuck(pod, now) {
        if let Some(init) = endless(pod) {
            let text = format!(
                "Init container {init} of pod {name} has run for minutes and not ended. {NOT_OURS} It waits until the deadline. See kubectl logs {name} -c {init}."
            );
            return Some(Failure::new(Class::Waiting, reason::CONTAINER_NOT_CREATED, text));
        }
        let text = format!(
            "The container of pod {name} was not created within two minutes: most likely a volume cannot be attached or mounted, or pulling its image takes long. It waits until the deadline. See kubectl describe pod {name}."
        );
        return Some(Failure::new(Class::Waiting, reason::CONTAINER_NOT_CREATED, text));
    }
    is_lost(pod, now).then(|| {
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        let text = format!(
            "Node {node} of pod {name} does not respond. The pod may still write, so no other Job is started. If the node is permanently lost, delete it (kubectl delete node {node}) or taint it with node.kubernetes.io/out-of-service."
        );
        Failure::new(Class::Waiting, reason::NODE_LOST, text)
    })
}

/// An init container that keeps the agent waiting.
fn endless(pod: &Pod) -> Option<&str> {
    let specs = || pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
    // A sidecar keeps running beside the agent; only its start is waited for.
    let sidecar = |name: &str| specs().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"));
    let runs = |c: &&ContainerStatus| c.state.as_ref().is_some_and(|s| s.running.is_some());
    let found = init_containers(pod).find(|c| runs(c) && !(sidecar(&c.name) && c.started == Some(true)));
    found.map(|c| c.name.as_str())
}

/// Whether the pod has a node whose kubelet has not started it.
pub fn is_starting(pod: &Pod) -> bool {
    phase(pod) == "Pending" && condition(pod, "PodScheduled").is_some_and(|c| c.status == "True")
}

/// A kubelet that cannot mount a volume reports it in events only, and the container waits like a container that is
/// being created.
fn is_stuck(pod: &Pod, now: Timestamp) -> bool {
    let since = condition(pod, "PodScheduled").and_then(|c| c.last_transition_time.as_ref());
    let state = agent(pod).and_then(|c| c.state.as_ref());
    let is_made = state.is_some_and(|s| s.running.is_some() || s.terminated.is_some());
    is_starting(pod) && !is_made && since.is_some_and(|t| now.duration_since(t.0) > START_PATIENCE)
}

/// The node controller marks a pod as not ready if its kubelet stops responding, and keeps what the kubelet last
/// reported about its containers. A pod that should be gone but is not has no kubelet that ends it.
fn is_lost(pod: &Pod, now: Timestamp) -> bool {
    let is = |type_: &str, value: &str| condition(pod, type_).is_some_and(|c| c.status == value);
    let gated = condition(pod, "Ready").and_then(|c| c.reason.as_deref()) == Some("ReadinessGatesNotReady");
    let silent = phase(pod) == "Running" && is("ContainersReady", "True") && is("Ready", "False") && !gated;
    // The deletion timestamp is the time when the pod must have ended, including its grace period.
    let overdue = pod.metadata.deletion_timestamp.as_ref().is_some_and(|t| now.duration_since(t.0) > GONE_PATIENCE);
    silent || overdue
}
