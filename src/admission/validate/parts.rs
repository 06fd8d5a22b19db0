//! One part of a run: a member of a batch, or a session that is a batch of one.
//!
//! The session and the batch of a backup, and of a restore, have the same fields at different paths; their rules are
//! here, once. Expects the object in its one form (`admission::default`): rules that are still next to a target
//! contradict those of the target.

use crate::admission::error::{Errors, shorten};
use crate::admission::validate::common::Direction;
use crate::admission::validate::folders::Folders;
use crate::admission::validate::rules::Scope;
use crate::admission::validate::target::{is_clean_path, not_a_path, say_mounts};
use crate::admission::validate::{application, common, extraneous, rules, runtime, target, templates};
use crate::api::common::{Driver, EmptyDirSettings, Quiesce, Rule, TaskRef};
use crate::api::runtime::RuntimeSettings;
use crate::api::target::{BackupTarget, RestoreTarget};
use crate::api::volume::PvcTemplate;
use crate::plan::run::hosts::{HostSet, TargetKind};
use crate::plan::systems::restic::args::Command;

/// Longest text of rules in a message, in bytes: two such texts and the rest of the message fit into one message.
const RULES_LENGTH: usize = 160;

/// The fields that backups and restores share.
pub struct Part<'a> {
    /// Path of the session's spec or of the member.
    pub at: &'a str,
    /// Namespace of the object, if known.
    pub namespace: Option<&'a str>,
    /// Driver of the run.
    pub driver: Driver,
    /// Its task.
    pub task: Option<&'a TaskRef>,
    /// Settings of its pods.
    pub runtime: Option<&'a RuntimeSettings>,
    /// Its scratch volume.
    pub temp_dir: Option<&'a EmptyDirSettings>,
    /// Its PVC for dumps.
    pub interim: Option<&'a PvcTemplate>,
    /// Some hook is set.
    pub has_hooks: bool,
}

fn shared(errors: &mut Errors, part: &Part, target: TargetKind, direction: Direction) {
    let at = part.at;
    match part.task {
        Some(task) if target == TargetKind::AppBinding => {
            application::task(errors, &format!("{at}.task"), task, direction);
        }
        task => common::task(errors, &format!("{at}.task"), task, target, direction),
    }
    runtime::settings(errors, &format!("{at}.runtimeSettings"), part.runtime);
    runtime::temp_dir(errors, &format!("{at}.tempDir"), part.temp_dir);
    common::interim_volume(errors, &format!("{at}.interimVolumeTemplate"), part.interim);
    common::hooks(errors, &format!("{at}.hooks"), part.has_hooks);
}

/// A part of a restore; `beside` are the rules next to the target.
pub fn restore(errors: &mut Errors, part: &Part, target: Option<&RestoreTarget>, beside: &[Rule]) {
    let target_at = format!("{}.target", part.at);
    shared(errors, part, TargetKind::of(target.and_then(|t| t.ref_.as_ref())), Direction::Restore);
    let Some(target) = target else {
        errors.invalid(target_at, "is missing; write a target with a ref to what is restored, and rules");
        return;
    };
    let at = target_at.as_str();
    let has_templates = !target.volume_claim_templates.is_empty();
    // Volume snapshots have their own templates; PVCs for restic are checked here.
    let is_made = has_templates && part.driver == Driver::Restic;
    if is_made {
        templates::validate(errors, at, target, part.namespace);
    } else if target.replicas.is_some() && part.driver == Driver::Restic {
        errors.invalid(
            format!("{at}.replicas"),
            "is allowed only with volumeClaimTemplates; the replicas of a workload are read from the workload",
        );
    }
    let seen = if is_made && target.ref_.is_none() {
        target::Seen { kind: TargetKind::Nothing, is_supported: true }
    } else {
        let is_elsewhere = has_templates || common::has_foreign_task(part.task);
        target::reference(errors, at, target.ref_.as_ref(), part.namespace, is_elsewhere)
    };
    target::alias(errors, at, target.alias.as_deref());
    let mounts = target::mounts(errors, at, &seen, &target.volume_mounts, true);
    target::args(errors, at, Command::Restore, &target.args);
    let cannot = match seen.kind {
        TargetKind::Claim => "a PersistentVolumeClaim; name the workload that mounts it as the target, or",
        TargetKind::DaemonSet => "a DaemonSet, which runs on every node; stop what writes there by other means, or",
        TargetKind::Nothing => "PVCs from templates, which no workload mounts;",
        _ => "",
    };
    if !cannot.is_empty() && target.quiesce == Some(Quiesce::Auto) {
        let text = format!("is Auto, but nothing is scaled for {cannot} remove quiesce");
        errors.not_supported(format!("{at}.quiesce"), text);
    }
    if let Some(after) = target.after_failure {
        let field = format!("{at}.afterFailure");
        if !cannot.is_empty() {
            let text = format!("is {after:?}, but nothing is scaled for {cannot} remove afterFailure");
            errors.not_supported(field, text);
        } else if target.quiesce == Some(Quiesce::Never) {
            errors.invalid(
                field,
                format!("is {after:?}, but quiesce is Never, so nothing is scaled; remove one of them"),
            );
        }
    }

    if seen.kind == TargetKind::AppBinding {
        application::restore(errors, at, target);
    } else {
        extraneous::target(errors, at, target, seen.kind);
    }

    if !beside.is_empty() && !target.rules.is_empty() {
        let say = |rules: &[Rule]| shorten(serde_json::to_string(rules).unwrap_or_default(), RULES_LENGTH);
        errors.invalid(
            format!("{}.rules", part.at),
            format!(
                "says {}, but {at}.rules says {}; keep the rules below the target",
                say(beside),
                say(&target.rules)
            ),
        );
        return;
    }
    // A snapshot of a volume is named by its template; restic's rules do not apply to it.
    if part.driver == Driver::VolumeSnapshotter && target.rules.is_empty() {
        return;
    }
    let hosts = HostSet::of_restore(target);
    let known = if seen.kind == TargetKind::Nothing && !is_made { HostSet::Nodes(None) } else { hosts };
    rules::validate(errors, &format!("{at}.rules"), &target.rules, &Scope { hosts: &known, mounts: mounts.as_ref() });
}

/// A part of a backup.
pub fn backup(errors: &mut Errors, part: &Part, target: Option<&BackupTarget>) {
    let target_at = format!("{}.target", part.at);
    shared(errors, part, TargetKind::of(target.and_then(|t| t.ref_.as_ref())), Direction::Backup);
    let Some(target) = target else {
        // A task of an application may need no target, and is already rejected by its name.
        if !common::has_foreign_task(part.task) {
            errors.invalid(target_at, "is missing; write a target with a ref to what is backed up");
        }
        return;
    };
    let at = target_at.as_str();
    if target.replicas.is_some() {
        errors.not_supported(
            format!("{at}.replicas"),
            "is only for driver VolumeSnapshotter, which is not supported yet",
        );
    }
    if target.snapshot_class_name.as_ref().is_some_and(|s| !s.is_empty()) {
        errors.not_supported(
            format!("{at}.snapshotClassName"),
            "is only for driver VolumeSnapshotter, which is not supported yet",
        );
    }
    let seen = target::reference(errors, at, target.ref_.as_ref(), part.namespace, common::has_foreign_task(part.task));
    target::alias(errors, at, target.alias.as_deref());
    // Volumes are named only for files; a snapshot of a volume needs no mount.
    let judged = part.driver == Driver::Restic;
    let seen = target::Seen { is_supported: seen.is_supported && judged, ..seen };
    let mounts = target::mounts(errors, at, &seen, &target.volume_mounts, false);
    target::args(errors, at, Command::Backup, &target.args);
    if seen.kind == TargetKind::AppBinding {
        return application::backup(errors, at, target);
    }
    paths(errors, at, target, mounts.as_ref());
}

/// Without paths, all mounted volumes are backed up.
fn paths(errors: &mut Errors, at: &str, target: &BackupTarget, mounts: Option<&Folders<()>>) {
    for (i, path) in target.paths.iter().enumerate() {
        let at = format!("{at}.paths[{i}]");
        if !is_clean_path(path) {
            errors.invalid(at, not_a_path(path, "/data"));
        } else if let Some(mounts) = mounts.filter(|mounts| mounts.around(path).is_none()) {
            errors.invalid(
                at,
                format!(
                    "{path:?} lies outside every volume mount of the target ({}), so it cannot be backed up; back up a \
                     path below a mount",
                    say_mounts(mounts)
                ),
            );
        }
    }
    target::patterns(errors, &format!("{at}.exclude"), &target.exclude, "*.tmp");
}
