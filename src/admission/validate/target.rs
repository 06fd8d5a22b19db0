//! Targets of backups and restores, and their mounts.
//!
//! Rules for both backups and restores. A path must not leave a mount, and a mount must not hide files of the agent.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::VolumeMount;

use crate::admission::error::{Errors, say_list};
use crate::admission::validate::common::name;
use crate::admission::validate::folders::Folders;
use crate::api::common::TargetRef;
use crate::names::PVC_MOUNT;
use crate::plan::run::hosts::{HostSet, TargetKind, is_within, normal_path};
use crate::plan::systems::restic::args::Command;
use crate::plan::systems::restic::{args, pattern};

/// Folders that the agent's image needs; a mount on one of them, or on a parent folder, hides it.
const NEEDED: [&str; 11] = [
    "/usr/bin",
    "/usr/lib",
    "/usr/lib64",
    "/usr/sbin",
    "/usr/local/bin",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/etc/ssl",
    "/etc/passwd",
];
/// Folders of the agent or the kernel: mounts within them are not allowed either.
const OWN: [&str; 7] = ["/lifeboat", "/etc/lifeboat", "/proc", "/sys", "/dev", "/var/run/secrets", "/run/secrets"];

/// Result of the check of a target's reference.
pub struct Seen {
    /// Kind of the target.
    pub kind: TargetKind,
    /// Kind, group and reference are valid, so that other fields can be checked.
    pub is_supported: bool,
}

/// Kinds that a target can have.
const KINDS: [&str; 8] = [
    "AppBinding",
    "PersistentVolumeClaim",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "ReplicaSet",
    "ReplicationController",
    "DeploymentConfig",
];

/// The reference of a target at `at`. `namespace` is the namespace of the object, if known.
/// With `is_elsewhere`, another message already rejects a target without a reference.
pub fn reference(
    errors: &mut Errors,
    at: &str,
    target: Option<&TargetRef>,
    namespace: Option<&str>,
    is_elsewhere: bool,
) -> Seen {
    let kind = TargetKind::of(target);
    let at = format!("{at}.ref");
    let possible = "possible are PersistentVolumeClaim, Deployment, StatefulSet, DaemonSet, ReplicaSet, \
                    ReplicationController, OpenShift's DeploymentConfig and AppBinding";
    let Some(target) = target else {
        if !is_elsewhere {
            errors.invalid(at, format!("is missing; write kind and name of the target ({possible})"));
        }
        return Seen { kind, is_supported: false };
    };
    let Some(kind_name) = target.kind.as_deref().filter(|k| !k.is_empty()) else {
        errors.invalid(format!("{at}.kind"), format!("is missing; {possible}"));
        return Seen { kind, is_supported: false };
    };
    name(errors, &format!("{at}.name"), target.name.as_deref().unwrap_or_default(), "the target");
    let group = target.api_version.as_deref().map(|v| v.rsplit_once('/').map_or("", |(group, _)| group));
    let is_supported = match kind {
        TargetKind::Claim | TargetKind::ReplicationController => group.is_none_or(str::is_empty),
        // The second group is the name that OpenShift 3 used.
        TargetKind::DeploymentConfig => group.is_none_or(|g| matches!(g, "apps.openshift.io" | "")),
        // Whatever its apiVersion says: the KEP writes apps/v1.
        TargetKind::AppBinding => true,
        kind if kind.is_workload() => group.is_none_or(|g| matches!(g, "apps" | "extensions")),
        _ => false,
    };
    let theirs = target.api_version.as_deref().unwrap_or_default();
    if let Some(right) = right_version(kind).filter(|_| !is_supported && is_of_kubernetes(theirs)) {
        errors.invalid(
            format!("{at}.apiVersion"),
            format!("is {theirs:?}, but {kind_name} is a kind of {right}; write apiVersion: {right}"),
        );
    } else if !is_supported {
        let group = group.filter(|g| !g.is_empty()).map(|g| format!(" of {g}")).unwrap_or_default();
        let (at, right) = (format!("{at}.kind"), KINDS.iter().find(|k| k.eq_ignore_ascii_case(kind_name)));
        match right {
            Some(right) if *right != kind_name => errors.invalid(at, format!("is {kind_name:?}; write {right}")),
            _ => errors.not_supported(at, format!("{kind_name}{group} is not supported yet; {possible}")),
        }
    }
    if let (Some(theirs), Some(ours)) = (target.namespace.as_deref().filter(|n| !n.is_empty()), namespace)
        && theirs != ours
    {
        let text = format!(
            "is {theirs:?}, but the object is in {ours:?}; create it in {theirs:?}, with repository.namespace naming \
             where the Repository is"
        );
        // Stash has this for applications; a pod can never mount volumes of another namespace.
        if is_supported && kind != TargetKind::AppBinding {
            errors.invalid(format!("{at}.namespace"), text);
        } else {
            errors.not_supported(format!("{at}.namespace"), text);
        }
    }
    Seen { kind, is_supported }
}

/// The apiVersion of a kind of Kubernetes.
fn right_version(kind: TargetKind) -> Option<&'static str> {
    match kind {
        TargetKind::Claim | TargetKind::ReplicationController => Some("v1"),
        TargetKind::Deployment | TargetKind::StatefulSet | TargetKind::DaemonSet | TargetKind::ReplicaSet => {
            Some("apps/v1")
        }
        _ => None,
    }
}

/// Whether a version belongs to a group of Kubernetes itself. In another group, the kind may belong to another product.
fn is_of_kubernetes(version: &str) -> bool {
    let group = version.rsplit_once('/').map_or("", |(group, _)| group);
    !group.contains('.') || group.ends_with(".k8s.io")
}

/// The alias of a target.
pub fn alias(errors: &mut Errors, at: &str, alias: Option<&str>) {
    let at = format!("{at}.alias");
    match alias {
        Some("") => errors.invalid(at, "is empty; write the alias of the backup, or remove the field"),
        Some(a) if a.len() > 253 => errors.invalid(at, format!("has {} characters; 253 are possible", a.len())),
        Some(a) if a.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '/' | ',')) => {
            errors.invalid(at, format!("{a:?} holds a blank, a slash or a comma; write a plain word such as app"));
        }
        None | Some(_) => {}
    }
}

/// The mounts of a target. Returns their mount paths; `None` if they are not known.
pub fn mounts(
    errors: &mut Errors,
    at: &str,
    seen: &Seen,
    mounts: &[VolumeMount],
    is_written: bool,
) -> Option<Folders<()>> {
    let at = format!("{at}.volumeMounts");
    let mut paths = HashSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = format!("{at}[{i}]");
        one_mount(errors, &at, mount, is_written);
        if !paths.insert(normal_path(&mount.mount_path)) {
            errors.invalid(
                format!("{at}.mountPath"),
                format!("{:?} is mounted twice; give each volume its own path", mount.mount_path),
            );
        }
    }
    if !seen.is_supported {
        return None;
    }
    match (seen.kind, mounts.len()) {
        (TargetKind::AppBinding, 0) => return None,
        (TargetKind::AppBinding, _) => {
            errors.invalid(at, "name volumes, and an AppBinding has none; remove them");
            return None;
        }
        (TargetKind::Claim, 0) => return Some(Folders::new([(PVC_MOUNT.to_owned(), ())])),
        (TargetKind::Claim, 1) => {}
        (TargetKind::Claim, n) => {
            errors
                .invalid(at, format!("has {n} mounts; a PersistentVolumeClaim is one volume, keep one mount or none"));
        }
        (_, 0) => {
            errors.invalid(
                at,
                "is empty; name the volumes of the workload (as in its pod template) and where they are mounted",
            );
            return None;
        }
        _ => {}
    }
    Some(Folders::new(paths.into_iter().map(|path| (path, ()))))
}

fn one_mount(errors: &mut Errors, at: &str, mount: &VolumeMount, is_written: bool) {
    let path = &mount.mount_path;
    let field = format!("{at}.mountPath");
    if !is_clean_path(path) || path.contains(':') {
        errors.invalid(field, not_a_path(path, "/data"));
    } else if NEEDED.iter().chain(&OWN).any(|own| is_within(own, path)) || OWN.iter().any(|own| is_within(path, own)) {
        errors.invalid(field, format!("{path:?} would hide folders that the Job needs; use another mount path"));
    }
    if mount.name.is_empty() {
        errors.invalid(format!("{at}.name"), "is empty; write the name of the volume");
    }
    if mount.sub_path_expr.as_ref().is_some_and(|e| !e.is_empty()) {
        errors.not_supported(format!("{at}.subPathExpr"), "is not supported yet; write subPath");
    }
    if mount.sub_path.as_deref().is_some_and(|s| !is_clean_sub_path(s)) {
        errors.invalid(format!("{at}.subPath"), "must be a path within the volume: relative, and without ..");
    }
    if is_written && mount.read_only == Some(true) {
        errors.invalid(format!("{at}.readOnly"), "is true, but a restore writes to the volume; remove it");
    }
    if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
        errors.not_supported(format!("{at}.mountPropagation"), "is not supported yet; remove the field");
    }
    if mount.recursive_read_only.as_deref().is_some_and(|p| p != "Disabled") {
        errors.not_supported(format!("{at}.recursiveReadOnly"), "is not supported yet; remove the field");
    }
}

/// Further arguments of restic.
pub fn args(errors: &mut Errors, at: &str, command: Command, args: &[String]) {
    if let Err(wrong) = args::parse(command, args) {
        for (i, text) in wrong {
            errors.invalid(format!("{at}.args[{i}]"), text);
        }
    }
}

/// Patterns of restic, in a list at `at`; `example` is a valid pattern.
pub fn patterns(errors: &mut Errors, at: &str, patterns: &[String], example: &str) {
    for (i, pattern) in patterns.iter().enumerate() {
        if pattern.trim().is_empty() {
            errors.invalid(format!("{at}[{i}]"), format!("is empty; write a pattern such as {example}"));
        } else if let Err(text) = pattern::check(pattern) {
            errors.invalid(format!("{at}[{i}]"), text);
        }
    }
}

/// Whether a path is absolute and without `..`: `/data/../etc` would pass as a path below `/data`.
pub fn is_clean_path(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|p| p == "..") && !path.chars().any(char::is_control)
}

/// The error of a path that is not clean; `example` is a clean one.
pub fn not_a_path(path: &str, example: &str) -> String {
    let wrong = if !path.starts_with('/') {
        "is not an absolute path"
    } else if path.split('/').any(|p| p == "..") {
        "contains \"..\""
    } else if path.contains(char::is_control) {
        "contains a control character"
    } else {
        "contains \":\""
    };
    format!("{path:?} {wrong}; write an absolute path such as {example}")
}

/// A subPath, as Kubernetes allows it.
pub fn is_clean_sub_path(path: &str) -> bool {
    !path.starts_with('/') && !path.split('/').any(|p| p == "..") && !path.chars().any(char::is_control)
}

/// Hosts of a target in words.
pub fn say_hosts(hosts: &HostSet) -> String {
    match hosts {
        HostSet::One(host) => format!("the host {host}"),
        HostSet::Ordinals(prefix) => format!("the hosts {prefix}-0, {prefix}-1 and so on"),
        HostSet::Nodes(Some(alias)) => format!("the hosts {alias}-<node>"),
        HostSet::Nodes(None) => "the names of the nodes as hosts".to_owned(),
    }
}

/// Mount points in words.
pub fn say_mounts(mounts: &Folders<()>) -> String {
    say_list(mounts.paths())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_folders_are_among_its_own() {
        use crate::contract::restic::LOCAL_REPOSITORY_DIR;
        use crate::contract::{OUTCOME_FILE, WORK_DIR};
        use crate::contract::{RESTORE_ROOT, SECRET_DIR};
        for folder in [LOCAL_REPOSITORY_DIR, OUTCOME_FILE, RESTORE_ROOT, SECRET_DIR, WORK_DIR] {
            assert!(OWN.iter().any(|own| is_within(folder, own)), "{folder}");
        }
    }

    #[test]
    fn a_mount_may_not_hide_what_the_job_needs() {
        for path in [
            "/",
            "/usr",
            "/bin/",
            "/etc",
            "/etc/ssl",
            "/etc/lifeboat/repository",
            "/lifeboat/work",
            "/proc/1",
            "/run/secrets/mine",
            "//dev",
            "/x/../etc",
            "data",
            "/a:b",
        ] {
            let mut errors = Errors::default();
            one_mount(
                &mut errors,
                "m",
                &VolumeMount { name: "v".into(), mount_path: path.into(), ..Default::default() },
                true,
            );
            assert_eq!(errors.into_vec().len(), 1, "{path}");
        }
        for path in ["/data", "/etc/mysql/conf.d", "/usr/share/elasticsearch/data", "/var/www/html", "/lifeboats"] {
            let mut errors = Errors::default();
            one_mount(
                &mut errors,
                "m",
                &VolumeMount { name: "v".into(), mount_path: path.into(), ..Default::default() },
                true,
            );
            assert_eq!(errors.into_vec(), [], "{path}");
        }
    }
}
