//! The Job of a step: one pod, one container, no Kubernetes credentials but those of a grant.
//!
//! What the user's runtimeSettings say wins, field by field, over the defaults of the namespace and of the chart
//! and over what is set here, except for what the step cannot work without (its mounts and command).

mod env;
mod interim;

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
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

pub use self::env::check_task;
use self::env::variables;
pub use self::interim::interim_claim;
use self::interim::interim_name;
use super::access::Access;
use super::hosts::normal_path;
use super::job_defaults;
use super::observed::Setup;
use super::run::Identity;
use super::target::{Reach, claim_volume};
use crate::api::common::EmptyDirSettings;
use crate::api::runtime::RuntimeSettings;
use crate::api::to_json;
use crate::api::volume::PvcTemplate;
use crate::contract::restic::{INTERIM_DIR, LOCAL_REPOSITORY_DIR, RESTORE_ROOT, SECRET_DIR, Step};
use crate::contract::{PROGRESS_PORT, Task, WORK_DIR};
use crate::names::{annotation, child_name, hash_of, is_tracker, label};

/// Unprivileged user of the image, for steps that touch no files of the user's.
const NOBODY: i64 = 65532;
/// What root keeps in order to read any file, and to restore it with owner and mode.
/// All of these are allowed by the `baseline` Pod Security Standard.
pub(super) const FILE_CAPABILITIES: [&str; 5] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETFCAP"];
/// Volume names of ours; a prefix keeps them apart from the user's.
const SECRET_VOLUME: &str = "lifeboat-repository-secret";
/// Volume of cache and temporary files; the kubelet names it when it is full.
pub const WORK_VOLUME: &str = "lifeboat-work";
const ROOT_VOLUME: &str = "lifeboat-restore-root";
/// Volume of a repository that lives on one.
pub const REPOSITORY_VOLUME: &str = "lifeboat-repository";
const INTERIM_VOLUME: &str = "stash-interim-volume";
const TOKEN_VOLUME: &str = "lifeboat-token";
/// The one container of a pod.
pub const CONTAINER: &str = "agent";
/// Where every client in a pod looks for its token.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Seconds for which a token is good: the least that Kubernetes gives. The kubelet renews it while the pod runs.
const TOKEN_SECONDS: i64 = 600;
/// Room for a Secret that the agent reads: twice the most that a Secret may hold (1 MiB).
const SECRET_ROOM: &str = "2Mi";
/// Seconds a pod gets to end its data mover and leave an outcome.
const GRACE_SECONDS: i64 = 20;
/// Seconds past the run's deadline after which a Job ends by itself. The plan ends it in time, and says what it waited for:
/// a Job that is faster takes its pod away, and the reason with it. This is for a time without an operator.
const OVERTIME_SECONDS: i64 = 30;

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
    /// Secret with the repository's password and credentials: mounted, unless the task tells the agent to read it.
    pub secret: String,
    /// ServiceAccount of a grant that the Jobs need; one that the user names goes before it.
    pub account: Option<String>,
    /// Volume of a repository that lives on one, and the folder in it.
    pub local_repository: Option<(Volume, Option<String>)>,
    /// Settings where those of a Job name none.
    pub defaults: RuntimeSettings,
}

impl JobFrame {
    /// Of the Jobs of `id` on the repository of `access`; `account` is a ServiceAccount made for them.
    pub fn of(
        setup: &Setup,
        id: &Identity,
        component: &'static str,
        access: &Access,
        account: Option<String>,
        defaults: RuntimeSettings,
    ) -> Self {
        Self {
            image: setup.image.clone(),
            owner: id.owner(),
            namespace: id.namespace.clone(),
            labels: id.labels.clone(),
            component,
            repository: access.display.clone(),
            secret: access.secret.clone(),
            account,
            local_repository: access.local.clone(),
            defaults,
        }
    }
}

/// What is particular to one Job.
#[derive(Clone, Debug, Default)]
pub struct JobParts<'a> {
    /// Key of the step within the run.
    pub key: String,
    /// Attempt, from 1.
    pub attempt: i32,
    /// How many attempts before it died of themselves, see [`retry::deaths`].
    ///
    /// [`retry::deaths`]: super::retry::deaths
    pub deaths: i32,
    /// Settings of the pod.
    pub runtime: Option<&'a RuntimeSettings>,
    /// Scratch volume.
    pub temp_dir: Option<&'a EmptyDirSettings>,
    /// Claim for cache and temporary files.
    pub interim: Option<&'a PvcTemplate>,
    /// Files may belong to whom the Job runs as, so it runs as an ordinary user.
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

/// The same, of the owner's name and uid.
pub fn job_name_of(component: &str, owner: &str, uid: &str, verb: &str, key: &str, attempt: i32) -> String {
    child_name(&format!("{component}-{owner}-{verb}"), &[uid, key, &attempt.to_string()])
}

/// Hostname of the pod of an attempt: that of the attempt before, if that one died of itself, else one of its own.
///
/// restic writes it into its locks, and calls those of its own host stale whose process is gone. That is right only
/// where nothing else of this name can run: a kubelet has seen the end of a pod that died of itself, but one that was
/// taken away may run on, on a node that is cut off.
fn hostname(frame: &JobFrame, verb: &str, parts: &JobParts<'_>) -> String {
    // Every end of another kind makes the difference grow, so no earlier name comes back.
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
    // Not of the pod: a Service, or a workload that is restored, could take it for one of its own.
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
            // The plan decides about a further attempt, with a name of its own: the Job never does.
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

/// Tells settings of Jobs apart.
pub fn defaults_hash(defaults: &RuntimeSettings) -> String {
    hash_of(&[&to_json(defaults).to_string()])
}

/// The pod of a Job.
pub fn pod_of(job: &Job) -> Option<&PodSpec> {
    job.spec.as_ref()?.template.spec.as_ref()
}

/// The pod of a step as far as [`pod_security`] judges it, without what the user may have set at length. A look asks for
/// that of each host.
///
/// [`pod_security`]: super::pod_security
pub fn guarded_pod(frame: &JobFrame, task: &Task, parts: &JobParts<'_>) -> PodSpec {
    let (pod_security, security) = security(parts.runtime, touches_files(frame, task, parts));
    PodSpec {
        security_context: Some(pod_security),
        containers: vec![Container {
            name: CONTAINER.into(),
            security_context: Some(security),
            ..Container::default()
        }],
        volumes: Some(volumes(frame, task, parts).0),
        ..PodSpec::default()
    }
}

fn pod(frame: &JobFrame, task: &Task, parts: &JobParts<'_>) -> PodSpec {
    let settings = parts.runtime.and_then(|r| r.pod.as_deref().cloned()).unwrap_or_default();
    let (pod_security, security) = security(parts.runtime, touches_files(frame, task, parts));
    let (volumes, mounts) = volumes(frame, task, parts);
    let account = job_defaults::named_account(&settings).map(str::to_owned).or_else(|| frame.account.clone());
    let mut tolerations = settings.tolerations;
    tolerations.extend(parts.reach.tolerations.iter().cloned());
    PodSpec {
        hostname: Some(hostname(frame, &task.verb, parts)),
        restart_policy: Some("Never".into()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        // A grant's token is a volume of its own: short-lived, and gone with the pod.
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

fn touches_files(frame: &JobFrame, task: &Task, parts: &JobParts<'_>) -> bool {
    needs_files(task) && !parts.unowned || frame.local_repository.is_some()
}

fn step(task: &Task) -> Option<&Step> {
    task.work.restic().map(|work| &work.step)
}

/// Steps that read or write the user's files as their owner would.
fn needs_files(task: &Task) -> bool {
    matches!(step(task), Some(Step::Restore(_) | Step::Backup(_)))
}

/// Who the pod runs as: what the user says, field by field, and what fits it where the user says nothing.
/// No fsGroup of ours: it would change the group of the user's files.
fn security(runtime: Option<&RuntimeSettings>, files: bool) -> (PodSecurityContext, SecurityContext) {
    let pod = runtime.and_then(|r| r.pod.as_ref()?.security_context.clone()).unwrap_or_default();
    let container = runtime.and_then(|r| r.container.as_ref()?.security_context.clone()).unwrap_or_default();
    let chosen = container.run_as_user.or(pod.run_as_user);
    let root = files && container.run_as_non_root.or(pod.run_as_non_root) != Some(true);
    let user = chosen.unwrap_or(if root { 0 } else { NOBODY });
    // A group of ours goes with a user of ours only.
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
            // The API server refuses the one beside the other.
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
        name: CONTAINER.into(),
        image: Some(frame.image.clone()),
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

fn volumes(frame: &JobFrame, task: &Task, parts: &JobParts<'_>) -> (Vec<Volume>, Vec<VolumeMount>) {
    let at = |name: &str, path: &str, read_only| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(read_only),
        ..VolumeMount::default()
    };
    let temp = parts.temp_dir.cloned().unwrap_or_default();
    let scratch = EmptyDirVolumeSource { medium: temp.medium, size_limit: temp.size_limit };
    let reads = task.work.restic().is_some_and(|w| w.repository.secret.is_some());
    let mut volumes = vec![
        if reads { kept_secret() } else { mounted_secret(&frame.secret) },
        Volume { name: WORK_VOLUME.into(), empty_dir: Some(scratch), ..Volume::default() },
    ];
    let mut mounts = vec![at(SECRET_VOLUME, SECRET_DIR, !reads), at(WORK_VOLUME, WORK_DIR, false)];
    if frame.account.is_some() {
        volumes.push(token_volume());
        mounts.push(at(TOKEN_VOLUME, TOKEN_DIR, true));
    }
    if let Some((volume, sub_path)) = &frame.local_repository {
        volumes.push(Volume { name: REPOSITORY_VOLUME.into(), ..volume.clone() });
        mounts.push(VolumeMount { sub_path: sub_path.clone(), ..at(REPOSITORY_VOLUME, LOCAL_REPOSITORY_DIR, false) });
    }
    if let Some(template) = parts.interim {
        volumes.push(claim_volume(INTERIM_VOLUME, &interim_name(frame, template, &parts.key)));
        mounts.push(at(INTERIM_VOLUME, INTERIM_DIR, false));
    }
    let restores = matches!(step(task), Some(Step::Restore(_)));
    if restores {
        // Parents of the mount points are made here and nowhere else.
        volumes.push(Volume {
            name: ROOT_VOLUME.into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
        mounts.push(at(ROOT_VOLUME, RESTORE_ROOT, false));
    }
    volumes.extend(parts.reach.volumes.iter().cloned());
    mounts.extend(parts.reach.mounts.iter().map(|m| {
        let path = normal_path(&m.mount_path);
        VolumeMount {
            mount_path: if restores { format!("{RESTORE_ROOT}{path}") } else { path },
            // A backup never writes to what it reads.
            read_only: Some(!restores || m.read_only == Some(true)),
            recursive_read_only: None,
            ..m.clone()
        }
    }));
    (volumes, mounts)
}

fn mounted_secret(name: &str) -> Volume {
    Volume {
        name: SECRET_VOLUME.into(),
        // World-readable in a pod of one container: without an fsGroup no other mode serves every user the pod may run as.
        secret: Some(SecretVolumeSource {
            secret_name: Some(name.to_owned()),
            default_mode: Some(0o444),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// Room for a Secret that the agent reads: in memory as a mounted one, never on the node's disk.
fn kept_secret() -> Volume {
    let room = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(Quantity(SECRET_ROOM.into())) };
    Volume { name: SECRET_VOLUME.into(), empty_dir: Some(room), ..Volume::default() }
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
        name: TOKEN_VOLUME.into(),
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
