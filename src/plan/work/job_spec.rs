//! The Job of a step: one pod, one container, no Kubernetes credentials but those of a grant.
//!
//! The user's runtimeSettings take precedence, field by field, over the defaults of the namespace and of the chart and
//! over what is set here, except for what the step cannot work without (its mounts and command).

pub mod env;
pub mod frame;
pub mod interim;

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapProjection, Container, ContainerPort, DownwardAPIProjection,
    DownwardAPIVolumeFile, EmptyDirVolumeSource, KeyToPath, NodeAffinity, NodeSelector, NodeSelectorRequirement,
    NodeSelectorTerm, ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, ProjectedVolumeSource,
    SeccompProfile, SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::runtime::RuntimeSettings;
use crate::contract::{INTERIM_DIR, PROGRESS_PORT, RESTORE_ROOT, SECRET_DIR, Task, WORK_DIR};
use crate::names::{AGENT_CONTAINER, annotation, is_tracker, label, volume};
use crate::plan::run::hosts::normal_path;
use crate::plan::seen::target::claim_volume;
use crate::plan::work::job_defaults;
use crate::plan::work::job_defaults::defaults_hash;
use crate::plan::work::job_spec::env::variables;
use crate::plan::work::job_spec::frame::{JobFrame, JobParts, NeededSecret, job_name};
use crate::plan::work::job_spec::interim::interim_name;

/// Unprivileged user of the image, for steps that touch no files of the user's.
const NOBODY: i64 = 65532;
/// Capabilities that root keeps in order to read any file, and to restore it with owner and mode. All of these are
/// allowed by the `baseline` Pod Security Standard.
pub(super) const FILE_CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"];
/// Where every client in a pod looks for its token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Lifetime of a token in seconds: the shortest that Kubernetes allows. The kubelet renews the token while the pod
/// runs.
const TOKEN_SECONDS: i64 = 600;
/// Size limit of the volume for a Secret that the agent reads: twice the maximum size of a Secret (1 MiB).
const SECRET_ROOM: &str = "2Mi";
/// Seconds a pod gets to end its data mover and leave an outcome.
const GRACE_SECONDS: i64 = 20;
/// Seconds past the run's deadline after which a Job ends by itself. The plan ends the Job in time, and reports what it
/// waited for. A Job that ends earlier removes its pod, and the reason is lost. This limit is for a time without an
/// operator.
const OVERTIME_SECONDS: i64 = 30;

/// Hostname of the pod of an attempt: that of the previous attempt if its pod died by itself, otherwise a new one.
///
/// restic writes the hostname into its locks. It treats a lock of its own host as stale if the process is gone. That is
/// correct only if nothing else with this hostname can run: a kubelet has seen the end of a pod that died by itself,
/// but a pod that was taken away may still run on a node that is cut off.
fn hostname(frame: &JobFrame, verb: &str, parts: &JobParts<'_>) -> String {
    // Every other kind of end increases the difference, so no earlier name is reused.
    job_name(frame, verb, &parts.key, parts.attempt.saturating_sub(parts.deaths))
}

/// Builds the Job of a step.
#[allow(clippy::needless_pass_by_value, reason = "parts are made for one Job")]
pub fn job(frame: &JobFrame, task: &Task, parts: JobParts<'_>) -> Job {
    let settings = job_defaults::over(parts.runtime, &frame.defaults);
    let parts = JobParts { runtime: Some(&settings), ..parts };
    let verb = task.verb.as_str();
    let labels: BTreeMap<String, String> = [
        (label::MANAGED_BY, label::MANAGED_BY_VALUE),
        (label::COMPONENT, frame.component),
        (label::SESSION_KIND, &frame.owner.kind),
        (label::SESSION_UID, &frame.owner.uid),
        (label::STEP, verb),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    // The pod does not get these labels: a Service, or a workload that is restored, could select the pod as one of its
    // own.
    let mut job_labels = frame.labels.clone();
    job_labels.extend(labels.clone());
    let notes: BTreeMap<String, String> = [
        (annotation::SESSION_NAME, frame.owner.name.clone()),
        (annotation::REPOSITORY, frame.repository.clone()),
        (annotation::STEP_KEY, parts.key.clone()),
        (annotation::ATTEMPT, parts.attempt.to_string()),
        (annotation::DEFAULTS, defaults_hash(&frame.defaults)),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    let pod_settings = parts.runtime.and_then(|r| r.pod.as_deref());
    let mut pod_labels = pod_settings.map(|p| p.pod_labels.clone()).unwrap_or_default();
    pod_labels.retain(|key, _| !is_tracker(key));
    pod_labels.extend(labels);
    let mut pod_notes = pod_settings.map(|p| p.pod_annotations.clone()).unwrap_or_default();
    pod_notes.retain(|key, _| !is_tracker(key));
    pod_notes.extend(notes.clone());
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(frame, verb, &parts.key, parts.attempt)),
            namespace: Some(frame.namespace.clone()),
            labels: Some(job_labels),
            annotations: Some(notes),
            owner_references: Some(vec![frame.owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            // Only the plan decides about a further attempt, which gets a name of its own. The Job never does.
            backoff_limit: Some(0),
            active_deadline_seconds: Some(parts.seconds_left.max(1).saturating_add(OVERTIME_SECONDS)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels),
                    annotations: Some(pod_notes),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(frame, task, &parts)),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The pod of a step as far as [`pod_security`] checks it, without the user's settings that may be long. A reconcile
/// needs it for each host.
///
/// [`pod_security`]: crate::plan::work::pod_security
pub fn guarded_pod(frame: &JobFrame, parts: &JobParts<'_>) -> PodSpec {
    let (pod_security, security) = security(parts.runtime, touches_files(parts));
    PodSpec {
        security_context: Some(pod_security),
        containers: vec![Container {
            name: AGENT_CONTAINER.into(),
            security_context: Some(security),
            ..Container::default()
        }],
        volumes: Some(volumes(frame, parts).0),
        ..PodSpec::default()
    }
}

fn pod(frame: &JobFrame, task: &Task, parts: &JobParts<'_>) -> PodSpec {
    let settings = parts.runtime.and_then(|r| r.pod.as_deref().cloned()).unwrap_or_default();
    let (pod_security, security) = security(parts.runtime, touches_files(parts));
    let (volumes, mounts) = volumes(frame, parts);
    let account = job_defaults::named_account(&settings).map(str::to_owned).or_else(|| frame.account.clone());
    let mut tolerations = settings.tolerations;
    tolerations.extend(parts.reach.tolerations.iter().cloned());
    PodSpec {
        hostname: Some(hostname(frame, &task.verb, parts)),
        restart_policy: Some("Never".into()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        // The token of a grant is a separate volume: it is short-lived, and gone with the pod.
        automount_service_account_token: Some(settings.automount_service_account_token.unwrap_or(false)),
        enable_service_links: Some(settings.enable_service_links.unwrap_or(false)),
        service_account_name: account,
        node_selector: Some(settings.node_selector).filter(|s| !s.is_empty()),
        node_name: settings.node_name,
        affinity: affinity(settings.affinity, parts.reach.node.as_deref()),
        tolerations: Some(tolerations).filter(|t| !t.is_empty()),
        image_pull_secrets: Some(settings.image_pull_secrets).filter(|s| !s.is_empty()),
        scheduler_name: settings.scheduler_name,
        priority_class_name: settings.priority_class_name,
        priority: settings.priority,
        readiness_gates: Some(settings.readiness_gates).filter(|g| !g.is_empty()),
        runtime_class_name: settings.runtime_class_name,
        topology_spread_constraints: Some(settings.topology_spread_constraints).filter(|t| !t.is_empty()),
        security_context: Some(pod_security),
        containers: vec![container(frame, task, parts, security, mounts)],
        volumes: Some(volumes),
        ..PodSpec::default()
    }
}

fn touches_files(parts: &JobParts<'_>) -> bool {
    parts.needs.files && !parts.unowned || parts.needs.own_files
}

/// User and rights of the pod: the user's settings, field by field, and suitable values where there are none. The
/// operator sets no fsGroup: it would change the group of the user's files.
fn security(runtime: Option<&RuntimeSettings>, files: bool) -> (PodSecurityContext, SecurityContext) {
    let pod = runtime.and_then(|r| r.pod.as_ref()?.security_context.clone()).unwrap_or_default();
    let container = runtime.and_then(|r| r.container.as_ref()?.security_context.clone()).unwrap_or_default();
    let chosen = container.run_as_user.or(pod.run_as_user);
    let root = files && container.run_as_non_root.or(pod.run_as_non_root) != Some(true);
    let user = chosen.unwrap_or(if root { 0 } else { NOBODY });
    // The operator sets a group only together with a user of its own.
    let group = chosen.is_none().then_some(user);
    let privileged = container.privileged == Some(true);
    let capabilities = Capabilities {
        drop: Some(vec!["ALL".into()]),
        add: (files && user == 0).then(|| FILE_CAPABILITIES.map(str::to_owned).to_vec()),
    };
    (
        PodSecurityContext {
            run_as_non_root: Some(pod.run_as_non_root.unwrap_or(user != 0)),
            run_as_user: Some(pod.run_as_user.unwrap_or(user)),
            run_as_group: pod.run_as_group.or(group),
            seccomp_profile: pod
                .seccomp_profile
                .clone()
                .or(Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None })),
            ..pod
        },
        SecurityContext {
            // The API server rejects `allowPrivilegeEscalation: false` together with `privileged: true`.
            allow_privilege_escalation: container.allow_privilege_escalation.or((!privileged).then_some(false)),
            read_only_root_filesystem: container.read_only_root_filesystem.or(Some(true)),
            capabilities: container.capabilities.clone().or(Some(capabilities)),
            ..container
        },
    )
}

fn container(
    frame: &JobFrame,
    task: &Task,
    parts: &JobParts<'_>,
    security: SecurityContext,
    mounts: Vec<VolumeMount>,
) -> Container {
    let settings = parts.runtime.and_then(|r| r.container.as_deref().cloned()).unwrap_or_default();
    let mut told = task.clone();
    told.attempt = parts.attempt;
    told.after_death = parts.deaths > 0;
    let env = variables(settings.env, &told);
    Container {
        name: AGENT_CONTAINER.into(),
        image: Some(parts.needs.image.as_ref().unwrap_or(&frame.image).clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        command: Some(vec!["/usr/local/bin/lifeboat".into(), "agent".into()]),
        env: Some(env),
        env_from: Some(settings.env_from).filter(|e| !e.is_empty()),
        resources: settings.resources,
        liveness_probe: settings.liveness_probe,
        readiness_probe: settings.readiness_probe,
        lifecycle: settings.lifecycle,
        ports: Some(vec![ContainerPort {
            name: Some("progress".into()),
            container_port: i32::from(PROGRESS_PORT),
            ..ContainerPort::default()
        }]),
        security_context: Some(security),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

fn volumes(frame: &JobFrame, parts: &JobParts<'_>) -> (Vec<Volume>, Vec<VolumeMount>) {
    let at = |name: &str, path: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    let temp = parts.temp_dir.cloned().unwrap_or_default();
    let scratch = EmptyDirVolumeSource { medium: temp.medium, size_limit: temp.size_limit };
    let needs = &parts.needs;
    let (mut volumes, mut mounts) = (vec![], vec![]);
    match &needs.secret {
        Some(NeededSecret::Mounted(name)) => {
            volumes.push(mounted_secret(name));
            mounts.push(at(volume::SECRET, SECRET_DIR, true));
        }
        Some(NeededSecret::Read) => {
            volumes.push(kept_secret());
            mounts.push(at(volume::SECRET, SECRET_DIR, false));
        }
        None => {}
    }
    volumes.push(Volume { name: volume::WORK.into(), empty_dir: Some(scratch), ..Volume::default() });
    mounts.push(at(volume::WORK, WORK_DIR, false));
    if frame.account.is_some() {
        volumes.push(token_volume());
        mounts.push(at(volume::TOKEN, TOKEN_DIR, true));
    }
    for (volume, mount) in &needs.volumes {
        volumes.push(volume.clone());
        mounts.push(mount.clone());
    }
    if let Some(template) = parts.interim {
        volumes.push(claim_volume(volume::INTERIM, &interim_name(frame, template, &parts.key)));
        mounts.push(at(volume::INTERIM, INTERIM_DIR, false));
    }
    if needs.writes {
        // Parent folders of the mount points are created in this volume and nowhere else.
        volumes.push(Volume {
            name: volume::RESTORE_ROOT.into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
        mounts.push(at(volume::RESTORE_ROOT, RESTORE_ROOT, false));
    }
    volumes.extend(parts.reach.volumes.iter().cloned());
    mounts.extend(parts.reach.mounts.iter().map(|m| {
        let path = normal_path(&m.mount_path);
        VolumeMount {
            mount_path: if needs.writes { format!("{RESTORE_ROOT}{path}") } else { path },
            // A backup never writes to what it reads.
            read_only: Some(!needs.writes || m.read_only == Some(true)),
            recursive_read_only: None,
            ..m.clone()
        }
    }));
    (volumes, mounts)
}

fn mounted_secret(name: &str) -> Volume {
    Volume {
        name: volume::SECRET.into(),
        // The files are world-readable, in a pod of one container: without an fsGroup no other mode works for every
        // user that the pod may run as.
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.to_owned()),
            default_mode: Some(0o444),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Volume for a Secret that the agent reads: in memory like a mounted Secret, never on the node's disk.
fn kept_secret() -> Volume {
    let room = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(Quantity(SECRET_ROOM.into())) };
    Volume { name: volume::SECRET.into(), empty_dir: Some(room), ..Volume::default() }
}

/// What a client inside a pod needs: a token, the API server's CA and the namespace.
fn token_volume() -> Volume {
    let item = |key: &str| KeyToPath { key: key.into(), path: key.into(), mode: None };
    let token =
        ServiceAccountTokenProjection { path: "token".into(), expiration_seconds: Some(TOKEN_SECONDS), audience: None };
    let namespace = DownwardAPIVolumeFile {
        path: "namespace".into(),
        field_ref: Some(ObjectFieldSelector { field_path: "metadata.namespace".into(), api_version: None }),
        ..DownwardAPIVolumeFile::default()
    };
    let ca = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![item("ca.crt")]),
        ..ConfigMapProjection::default()
    };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(ca), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    Volume {
        name: volume::TOKEN.into(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: Some(0o444) }),
        ..Volume::default()
    }
}

/// The user's affinity, and the node where a running pod holds the volume.
fn affinity(user: Option<Affinity>, node: Option<&str>) -> Option<Affinity> {
    let Some(node) = node else { return user };
    let pin = NodeSelectorRequirement {
        key: "metadata.name".into(),
        operator: "In".into(),
        values: Some(vec![node.to_owned()]),
    };
    let mut affinity = user.unwrap_or_default();
    let on_nodes = affinity.node_affinity.get_or_insert_with(NodeAffinity::default);
    let required = on_nodes
        .required_during_scheduling_ignored_during_execution
        .get_or_insert_with(|| NodeSelector { node_selector_terms: vec![NodeSelectorTerm::default()] });
    for term in &mut required.node_selector_terms {
        term.match_fields.get_or_insert_with(Vec::new).push(pin.clone());
    }
    Some(affinity)
}

#[cfg(test)]
mod tests;
