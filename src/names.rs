//! Names: groups, labels, finalizers, condition types, reasons and the names of children.
//!
//! Condition types and most reasons are those of Stash, because scripts read them. This module makes no decisions and
//! does no I/O.

use sha2::{Digest, Sha256};

use crate::digest::hex;

/// API group of the kinds that users write.
pub const GROUP: &str = "stash.appscode.com";
/// API group of Snapshot.
pub const SNAPSHOT_GROUP: &str = "repositories.stash.appscode.com";
/// Field manager of the Job that writes Snapshots.
pub const SNAPSHOT_MANAGER: &str = "lifeboat-list";
/// Field manager of everything the operator applies.
pub const MANAGER: &str = "lifeboat";
/// Finalizer on sessions, kept until no Job runs and every workload is scaled back; and on Repositories that are in
/// use, kept until no object uses them.
pub const FINALIZER: &str = "lifeboat.stash.appscode.com/run";
/// Finalizer that Stash set on sessions and backup configurations; removed when the object is deleted.
pub const FINALIZER_OF_STASH: &str = "stash.appscode.com";
/// Finalizer that Stash sets on a Repository; removed together with [`FINALIZER`].
pub const STASH_REPOSITORY_FINALIZER: &str = "stash";
/// Name of the operator: Deployment, reporter of events, component label.
pub const OPERATOR: &str = "lifeboat";
/// Name of the task that means "the files of this PVC", for backup.
pub const TASK_PVC_BACKUP: &str = "pvc-backup";
/// Name of the task that means "the files of this PVC", for restore.
pub const TASK_PVC_RESTORE: &str = "pvc-restore";
/// Mount path of a PVC whose target has no volume mounts (Stash's default).
pub const PVC_MOUNT: &str = "/stash-data";

/// Lifeboat's container in a Job's pod; it has only one.
pub const AGENT_CONTAINER: &str = "agent";

/// Volumes of a Job's pod; a prefix distinguishes them from volumes of the user.
pub mod volume {
    /// The repository's password and credentials.
    pub const SECRET: &str = "lifeboat-repository-secret";
    /// Cache and temporary files; the kubelet reports this name when the volume is full.
    pub const WORK: &str = "lifeboat-work";
    /// Volume in which the folders of a restore without mounts are created.
    pub const RESTORE_ROOT: &str = "lifeboat-restore-root";
    /// A repository that is on a volume.
    pub const REPOSITORY: &str = "lifeboat-repository";
    /// The PVC for cache and temporary files, with the name that Stash uses.
    pub const INTERIM: &str = "stash-interim-volume";
    /// Credentials of an application.
    pub const APPLICATION: &str = "lifeboat-application";
    /// Certificates of an application.
    pub const APPLICATION_TLS: &str = "lifeboat-application-tls";
    /// Beginning of the names of volumes with further credentials of an application.
    pub const APPLICATION_MORE: &str = "lifeboat-application-more";
    /// The token of a ServiceAccount that was created for the Job.
    pub const TOKEN: &str = "lifeboat-token";
}

/// Labels on everything the operator creates.
pub mod label {
    /// Standard label; [`MANAGED_BY_VALUE`].
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Stash's value, which users use in selectors.
    pub const MANAGED_BY_VALUE: &str = "stash.appscode.com";
    /// Standard label; `stash-backup` or `stash-restore`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// Component of backup Jobs.
    pub const COMPONENT_BACKUP: &str = "stash-backup";
    /// Component of restore Jobs.
    pub const COMPONENT_RESTORE: &str = "stash-restore";
    /// Component of Jobs on a repository that belong to no session.
    pub const COMPONENT_REPOSITORY: &str = "stash-repository";
    /// Kind of the session a Job or Pod belongs to.
    pub const SESSION_KIND: &str = "lifeboat.stash.appscode.com/session-kind";
    /// Uid of the session a Job or Pod belongs to.
    pub const SESSION_UID: &str = "lifeboat.stash.appscode.com/session-uid";
    /// Verb of the step: preflight, restore, prepare, backup, maintain.
    pub const STEP: &str = "lifeboat.stash.appscode.com/step";
    /// Kind of the invoker of a BackupSession.
    pub const INVOKER_TYPE: &str = "stash.appscode.com/invoker-type";
    /// Name of the invoker of a BackupSession.
    pub const INVOKER_NAME: &str = "stash.appscode.com/invoker-name";
    /// Kind of the target of a BackupSession; for a batch, the kind of its first member.
    pub const TARGET_KIND: &str = "stash.appscode.com/target-kind";
    /// Name of the target of a BackupSession.
    pub const TARGET_NAME: &str = "stash.appscode.com/target-name";
    /// Namespace of the target of a BackupSession.
    pub const TARGET_NAMESPACE: &str = "stash.appscode.com/target-namespace";
    /// On a Namespace, "true": fields that run code or add privileges are accepted there from any author.
    pub const ALLOW_CODE: &str = "lifeboat.stash.appscode.com/allow-code";
}

pub mod annotation;

/// Condition types.
pub mod condition {
    /// The Repository exists and may be used.
    pub const REPOSITORY_FOUND: &str = "RepositoryFound";
    /// The backend Secret exists and has the required keys.
    pub const BACKEND_SECRET_FOUND: &str = "BackendSecretFound";
    /// The object is valid.
    pub const VALIDATION_PASSED: &str = "ValidationPassed";
    /// The backup target exists.
    pub const BACKUP_TARGET_FOUND: &str = "BackupTargetFound";
    /// The restore target exists.
    pub const RESTORE_TARGET_FOUND: &str = "RestoreTargetFound";
    /// The repository was opened, or created.
    pub const BACKEND_REPOSITORY_INITIALIZED: &str = "BackendRepositoryInitialized";
    /// Retention was applied.
    pub const RETENTION_POLICY_APPLIED: &str = "RetentionPolicyApplied";
    /// The repository was checked.
    pub const REPOSITORY_INTEGRITY_VERIFIED: &str = "RepositoryIntegrityVerified";
    /// A backup was not started.
    pub const BACKUP_SKIPPED: &str = "BackupSkipped";
    /// The Jobs of a backup member exist.
    pub const BACKUP_EXECUTOR_ENSURED: &str = "BackupExecutorEnsured";
    /// The Jobs of a restore member exist.
    pub const RESTORE_EXECUTOR_ENSURED: &str = "RestoreExecutorEnsured";
    /// The first Job of a restore member was created.
    pub const RESTORE_JOB_CREATED: &str = "RestoreJobCreated";
    /// The run exceeded its deadline.
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    /// Extension: the run was canceled; False while it is being stopped.
    pub const CANCELED: &str = "Canceled";
    /// Extension: every host's snapshots are resolved and pinned in status.
    pub const SNAPSHOTS_PINNED: &str = "SnapshotsPinned";
    /// Extension: the workload is scaled to zero during the restore.
    pub const QUIESCED: &str = "Quiesced";
    /// Extension: the workload has its former replicas; set only if the API server rejected the scale.
    pub const SCALED_BACK: &str = "ScaledBack";
    /// Extension: the PVCs of the member's templates exist.
    pub const CLAIMS_CREATED: &str = "ClaimsCreated";
    /// Extension: more than one backup was due since the last that succeeded.
    pub const BACKUPS_LATE: &str = "BackupsLate";
    /// Extension: the Snapshots of a Repository match the snapshots in the repository.
    pub const SNAPSHOTS_SYNCED: &str = "SnapshotsSynced";
    /// Extension: the storage of a Repository answers.
    pub const REACHABLE: &str = "Reachable";
    /// kstatus: the spec is fully applied.
    pub const READY: &str = "Ready";
    /// kstatus: in progress.
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: failed, and not retried.
    pub const STALLED: &str = "Stalled";
}

pub mod reason;

/// Whether a tool (Argo CD, Flux, Helm, kubectl and similar) uses a label or annotation to track its objects. On an
/// object that the tool did not create, it would prune the object, or report a difference. This is the only list:
/// labels that are copied to a Job, a PVC, a session or a Snapshot are checked against it.
pub fn is_tracker(key: &str) -> bool {
    const KEYS: [&str; 5] = [
        "app.kubernetes.io/created-by",
        "app.kubernetes.io/instance",
        label::MANAGED_BY,
        "kubectl.kubernetes.io/last-applied-configuration",
        "config.kubernetes.io/owning-inventory",
    ];
    const GROUPS: [&str; 9] = [
        "applyset.kubernetes.io",
        "argocd.argoproj.io",
        "config.k8s.io",
        "toolkit.fluxcd.io",
        "meta.helm.sh",
        "helm.sh",
        "kapp.k14s.io",
        "fleet.cattle.io",
        "objectset.rio.cattle.io",
    ];
    let group = key.split('/').next().unwrap_or_default();
    KEYS.contains(&key) || GROUPS.iter().any(|g| group == *g || group.ends_with(&format!(".{g}")))
}

/// Maximum length of a child's name: the name of a Job is also a label value (63 characters).
const CHILD_NAME_MAX: usize = 63;
/// Hex digits of the hash in a child's name: 40 bits, one collision in a million at 1,400 children of one parent.
const CHILD_HASH_LEN: usize = 10;

/// Name of a child: readable prefix, then a hash over all `parts`. The same parts give the same name, so a second
/// creation fails with AlreadyExists and never creates a duplicate. A long name is cut, and its hash prevents
/// collisions.
pub fn child_name(prefix: &str, parts: &[&str]) -> String {
    let hash = hash_of(parts);
    let room = CHILD_NAME_MAX - CHILD_HASH_LEN - 1;
    let clean: String = prefix
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(room)
        .collect();
    format!("{}-{hash}", clean.trim_matches('-'))
}

/// Label value for any text: the text itself if it is a valid value, otherwise its valid characters and a hash.
pub fn label_value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: char| c.is_ascii_alphanumeric();
    let fine =
        text.len() <= CHILD_NAME_MAX && text.chars().all(plain) && text.starts_with(ends) && text.ends_with(ends);
    if fine {
        return text.to_owned();
    }
    let kept: String =
        text.chars().map(|c| if plain(c) { c } else { '-' }).take(CHILD_NAME_MAX - CHILD_HASH_LEN - 1).collect();
    let kept = kept.trim_matches(|c: char| !ends(c));
    let hash = hash_of(&[text]);
    if kept.is_empty() { hash } else { format!("{kept}-{hash}") }
}

/// Hash over parts, each length-delimited so that `["ab","c"]` and `["a","bc"]` differ.
pub fn hash_of(parts: &[&str]) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part.len().to_be_bytes());
        sha.update(part.as_bytes());
    }
    hex(&sha.finalize()[..CHILD_HASH_LEN / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_child_name_is_a_dns_label(prefix in ".{0,120}", a in ".{0,20}", b in ".{0,20}") {
            let name = child_name(&format!("x{prefix}"), &[&a, &b]);
            prop_assert!(name.len() <= 63);
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            prop_assert!(!name.starts_with('-') && !name.ends_with('-'));
        }
    }

    proptest! {
        #[test]
        fn a_label_value_is_one(text in ".{0,100}") {
            let value = label_value(&text);
            let ends = |c: char| c.is_ascii_alphanumeric();
            prop_assert!(value.len() <= 63 && value.starts_with(ends) && value.ends_with(ends));
            prop_assert!(value.chars().all(|c| ends(c) || "-_.".contains(c)));
        }
    }

    #[test]
    fn a_label_value_is_the_text_where_it_can_be() {
        assert_eq!(label_value("host-0.a_B"), "host-0.a_B");
        assert_ne!(label_value("a/b"), label_value("a:b"));
        assert!(label_value("a/b").starts_with("a-b-"));
    }

    #[test]
    fn parts_are_delimited() {
        assert_ne!(hash_of(&["ab", "c"]), hash_of(&["a", "bc"]));
        assert_eq!(child_name("stash-restore-Web.0", &["u"]), child_name("stash-restore-Web.0", &["u"]));
    }
}
