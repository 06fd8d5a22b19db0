//! The members of a RestoreBatch that names a BackupBatch instead of writing them down.
//!
//! Turned around once, when the run begins: what was backed up becomes what is
//! restored. Knows nothing of whether the result makes sense; that is admission's,
//! which judges it as if a user had written it.

use super::contract::{Class, Failure};
use crate::api::BackupBatch;
use crate::api::backup_batch::BackupMember;
use crate::api::common::{RepositoryRef, Rule, TargetRef, TaskRef};
use crate::api::restore_batch::{Adopted, BackupBatchRef, RestoreMember};
use crate::api::target::{BackupTarget, RestoreTarget};
use crate::names::reason;

/// How messages name the BackupBatch of a reference in this namespace.
pub fn display(reference: &BackupBatchRef, namespace: &str) -> String {
    format!("BackupBatch {}/{}", reference.namespace.as_deref().unwrap_or(namespace), reference.name)
}

/// Repository and members that a restore in `namespace` takes from a BackupBatch. `repository` is the restore's own.
///
/// # Errors
/// The reference names an alias that no member has.
pub fn adopt(
    batch: &BackupBatch,
    reference: &BackupBatchRef,
    repository: Option<&RepositoryRef>,
    namespace: &str,
) -> Result<Adopted, Failure> {
    let all: Vec<RestoreMember> =
        batch.spec.members.iter().map(|m| member(m, batch.spec.runtime_settings.as_ref())).collect();
    let alias = |m: &RestoreMember| m.target.as_ref().and_then(|t| t.alias.clone()).unwrap_or_default();
    let members = if reference.members.is_empty() {
        all
    } else {
        let find = |(i, wanted): (usize, &String)| {
            all.iter().find(|m| alias(m) == *wanted).cloned().ok_or_else(|| {
                let there: Vec<String> = all.iter().map(alias).collect();
                let text = format!(
                    "spec.backupBatch.members[{i}]: {} has no member with the alias {wanted:?}; it has {}.",
                    display(reference, namespace),
                    there.join(", ")
                );
                Failure::new(Class::Invalid, reason::INVALID, text)
            })
        };
        reference.members.iter().enumerate().map(find).collect::<Result<_, _>>()?
    };
    // Where the BackupBatch says no namespace it means its own, which may not be ours.
    let home = reference.namespace.clone().filter(|n| n != namespace);
    let theirs = batch.spec.repository.clone();
    let theirs = theirs.map(|r| RepositoryRef { namespace: r.namespace.or(home), ..r });
    Ok(Adopted { repository: repository.cloned().or(theirs), members })
}

fn member(member: &BackupMember, of_all: Option<&crate::api::runtime::RuntimeSettings>) -> RestoreMember {
    RestoreMember {
        target: member.target.as_ref().map(target),
        task: member.task.as_ref().and_then(task),
        runtime_settings: member.runtime_settings.as_ref().or(of_all).cloned(),
        temp_dir: member.temp_dir.clone(),
        ..RestoreMember::default()
    }
}

/// Arguments and excludes are of the backup: what it left out is in no snapshot.
fn target(target: &BackupTarget) -> RestoreTarget {
    // Without paths, each volume was backed up as a whole: the set of one run.
    let rule = if target.paths.is_empty() {
        Rule { snapshots: vec!["latest".to_owned()], ..Rule::default() }
    } else {
        Rule { paths: target.paths.clone(), ..Rule::default() }
    };
    RestoreTarget {
        alias: target.alias.clone(),
        ref_: target.ref_.clone().map(|r| TargetRef { namespace: None, ..r }),
        volume_mounts: target.volume_mounts.clone(),
        rules: vec![rule],
        ..RestoreTarget::default()
    }
}

/// The task of the other direction, as tasks are named: `pvc-backup` and `pvc-restore`. Parameters of a backup are none
/// of a restore.
fn task(task: &TaskRef) -> Option<TaskRef> {
    let name = task.name.as_ref().filter(|n| !n.is_empty())?;
    Some(TaskRef { name: Some(name.replacen("backup", "restore", 1)), params: vec![] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn batch() -> BackupBatch {
        let target = |alias: &str, kind: &str| {
            json!({ "alias": alias, "ref": { "kind": kind, "name": alias, "namespace": "prod" },
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }], "args": ["--one-file-system"] })
        };
        let mut db = target("db", "StatefulSet");
        db["paths"] = json!(["/data/a", "/data/b"]);
        let spec = json!({ "repository": { "name": "repo" }, "runtimeSettings": { "pod": { "nodeName": "all" } },
            "retentionPolicy": { "name": "r", "prune": false }, "members": [
                { "target": db, "runtimeSettings": { "pod": { "nodeName": "own" } }, "tempDir": { "medium": "Memory" } },
                { "target": target("cache", "PersistentVolumeClaim"),
                  "task": { "name": "pvc-backup", "params": [{ "name": "x", "value": "y" }] } },
            ] });
        serde_json::from_value(json!({ "metadata": { "name": "shop", "namespace": "prod" }, "spec": spec })).unwrap()
    }

    fn reference(namespace: Option<&str>, members: &[&str]) -> BackupBatchRef {
        BackupBatchRef {
            name: "shop".into(),
            namespace: namespace.map(Into::into),
            members: members.iter().map(|m| (*m).to_owned()).collect(),
        }
    }

    /// Proves: defect 16.
    #[test]
    fn what_was_backed_up_is_what_is_restored() {
        let adopted = adopt(&batch(), &reference(None, &[]), None, "prod").unwrap();
        assert_eq!(adopted.repository, Some(RepositoryRef { name: "repo".into(), namespace: None }));
        let mounts = json!([{ "name": "data", "mountPath": "/data" }]);
        let expected = json!([
            { "target": { "alias": "db", "ref": { "kind": "StatefulSet", "name": "db" }, "volumeMounts": mounts,
                "rules": [{ "paths": ["/data/a", "/data/b"] }] },
              "runtimeSettings": { "pod": { "nodeName": "own" } }, "tempDir": { "medium": "Memory" } },
            { "target": { "alias": "cache", "ref": { "kind": "PersistentVolumeClaim", "name": "cache" },
                "volumeMounts": mounts, "rules": [{ "snapshots": ["latest"] }] },
              "task": { "name": "pvc-restore" }, "runtimeSettings": { "pod": { "nodeName": "all" } } },
        ]);
        let expected: Vec<RestoreMember> = serde_json::from_value(expected).unwrap();
        assert_eq!(adopted.members, expected);
    }

    #[test]
    fn members_come_in_the_order_in_which_they_are_named() {
        let aliases = |named: &[&str]| {
            let members = adopt(&batch(), &reference(None, named), None, "prod").unwrap().members;
            members.into_iter().filter_map(|m| m.target?.alias).collect::<Vec<_>>()
        };
        assert_eq!(aliases(&["cache", "db"]), ["cache", "db"]);
        assert_eq!(aliases(&["cache"]), ["cache"]);
        let wrong = adopt(&batch(), &reference(None, &["db", "web"]), None, "prod").unwrap_err();
        let text = "spec.backupBatch.members[1]: BackupBatch prod/shop has no member with the alias \"web\"; it has db, cache.";
        assert_eq!(wrong.message, text);
    }

    #[test]
    fn from_another_namespace_the_repository_stays_where_it_is() {
        let adopted = adopt(&batch(), &reference(Some("prod"), &[]), None, "test").unwrap();
        assert_eq!(adopted.repository.unwrap().namespace.as_deref(), Some("prod"));
        let own = RepositoryRef { name: "own".into(), namespace: None };
        let adopted = adopt(&batch(), &reference(Some("prod"), &[]), Some(&own), "test").unwrap();
        assert_eq!(adopted.repository, Some(own));
    }
}
