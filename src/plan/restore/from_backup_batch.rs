//! The members of a RestoreBatch that names a BackupBatch instead of listing members.
//!
//! The members are converted once, when the run begins: what was backed up becomes what is restored. This module does
//! not check whether the result makes sense. Admission checks it as if a user had written it.

use kube::ResourceExt as _;

use crate::api::BackupBatch;
use crate::api::backup_batch::BackupMember;
use crate::api::common::{RepositoryRef, Rule, TargetRef, TaskRef};
use crate::api::restore_batch::{Adopted, BackupBatchRef, RestoreMember};
use crate::api::target::{BackupTarget, RestoreTarget};
use crate::contract::{Class, Failure};
use crate::names::{annotation, reason};
use crate::plan::repository::preconditions;
use crate::plan::repository::preconditions::NoGround;
use crate::plan::repository::usage_policy::Verdict;

/// Namespace of a BackupBatch that an object of `namespace` names. An empty namespace counts as not set.
pub fn home<'a>(reference: &'a BackupBatchRef, namespace: &'a str) -> &'a str {
    reference.namespace.as_deref().filter(|n| !n.is_empty()).unwrap_or(namespace)
}

/// How messages name the BackupBatch of a reference in this namespace.
pub fn display(reference: &BackupBatchRef, namespace: &str) -> String {
    format!("BackupBatch {}/{}", home(reference, namespace), reference.name)
}

/// Whether a restore in `namespace` may take anything from the BackupBatch: from its own namespace always, from another
/// namespace only with the consent of that namespace. That namespace consents by an annotation, or by the usagePolicy
/// of a Repository of its own. A Repository of a third namespace consents only for itself. `verdict` is what the
/// usagePolicy of the Repository says, if it exists.
///
/// # Errors
/// It may not, or that is not known. A BackupBatch that does not exist gives the same message as one that may not be
/// used, so that users do not learn which it is.
pub fn consent(
    batch: Option<&BackupBatch>,
    reference: &BackupBatchRef,
    namespace: &str,
    verdict: Option<Verdict>,
) -> Result<(), NoGround> {
    let theirs = home(reference, namespace);
    if theirs == namespace {
        return Ok(());
    }
    let repository = batch.and_then(|b| repository(b, reference, namespace));
    let is_own = repository.is_some_and(|r| preconditions::home(&r, namespace) == theirs);
    match verdict.filter(|_| batch.is_some()) {
        Some(Verdict::Allowed) if is_own || batch.is_some_and(|b| is_named(b, namespace)) => Ok(()),
        Some(Verdict::Unknown(why)) => Err(NoGround::Waiting(why)),
        _ => {
            let text = format!(
                "spec.backupBatch: {} does not exist, or namespace {namespace} may not use it. Its owner can create it, allow the namespace with the annotation {}, and allow it in the usagePolicy of its Repository.",
                display(reference, namespace),
                annotation::RESTORE_FROM
            );
            Err(NoGround::Denied(Failure::new(Class::Invalid, reason::REPOSITORY_NOT_ALLOWED, text)))
        }
    }
}

/// Whether the annotation of a BackupBatch names a namespace.
fn is_named(batch: &BackupBatch, namespace: &str) -> bool {
    let all = batch.annotations().get(annotation::RESTORE_FROM);
    all.is_some_and(|all| all.split(',').map(str::trim).any(|n| n == namespace))
}

/// Repository and members that a restore in `namespace` takes from a BackupBatch.
///
/// # Errors
/// The reference names an alias that no member has.
pub fn adopt(batch: &BackupBatch, reference: &BackupBatchRef, namespace: &str) -> Result<Adopted, Failure> {
    let mut all: Vec<RestoreMember> =
        batch.spec.members.iter().map(|m| member(m, batch.spec.runtime_settings.as_ref())).collect();
    if home(reference, namespace) != namespace {
        // The settings may contain data that no other namespace may see, and would be used in Jobs of this namespace.
        all.iter_mut().for_each(|m| m.runtime_settings = None);
    }
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
    // If the BackupBatch sets no namespace, its own is meant, which may not be the one of the restore.
    Ok(Adopted { from: reference.clone(), repository: repository(batch, reference, namespace), members })
}

/// The Repository of a BackupBatch, as an object in `namespace` refers to it.
pub fn repository(batch: &BackupBatch, reference: &BackupBatchRef, namespace: &str) -> Option<RepositoryRef> {
    let named = batch.spec.repository.clone()?;
    let home = preconditions::home(&named, home(reference, namespace)).to_owned();
    let is_said = named.namespace.as_ref().is_some_and(|n| !n.is_empty());
    Some(RepositoryRef { namespace: Some(home).filter(|h| is_said || h != namespace), ..named })
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

/// Arguments and excludes apply only to the backup: what it left out is in no snapshot.
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

/// The restore task of a backup task, as tasks are named: `pvc-backup` and `pvc-restore`. Parameters of a backup do not
/// apply to a restore.
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
        let adopted = adopt(&batch(), &reference(None, &[]), "prod").unwrap();
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
            let members = adopt(&batch(), &reference(None, named), "prod").unwrap().members;
            members.into_iter().filter_map(|m| m.target?.alias).collect::<Vec<_>>()
        };
        assert_eq!(aliases(&["cache", "db"]), ["cache", "db"]);
        assert_eq!(aliases(&["cache"]), ["cache"]);
        let wrong = adopt(&batch(), &reference(None, &["db", "web"]), "prod").unwrap_err();
        let text = "spec.backupBatch.members[1]: BackupBatch prod/shop has no member with the alias \"web\"; it has db, cache.";
        assert_eq!(wrong.message, text);
    }

    #[test]
    fn who_may_not_use_the_repository_takes_nothing_from_the_batch() {
        let denied = || Some(Verdict::Denied("objects of namespace prod only".into()));
        let ask = |home: Option<&str>, verdict| consent(Some(&batch()), &reference(home, &[]), "test", verdict);
        for own in [None, Some("test"), Some("")] {
            assert_eq!(ask(own, denied()), Ok(()), "{own:?} is its own");
        }
        assert_eq!(ask(Some("prod"), Some(Verdict::Allowed)), Ok(()));
        let Err(NoGround::Denied(failure)) = ask(Some("prod"), denied()) else { panic!("must be denied") };
        assert_eq!(failure.reason, reason::REPOSITORY_NOT_ALLOWED);
        assert!(failure.message.contains("BackupBatch prod/shop") && !failure.message.contains("namespace prod only"));
        let away = ask(Some("prod"), Some(Verdict::Unknown("away".into())));
        assert_eq!(away, Err(NoGround::Waiting("away".into())));
        // A missing batch and a missing Repository are denied with the same message.
        let missing = consent(None, &reference(Some("prod"), &[]), "test", None);
        assert_eq!(
            (missing, ask(Some("prod"), None)),
            (Err(NoGround::Denied(failure.clone())), Err(NoGround::Denied(failure)))
        );
    }

    /// Closes: row 9 of the attacks by tenants.
    #[test]
    fn a_repository_of_a_third_namespace_is_no_consent_of_the_batchs_own() {
        let mut batch = batch();
        batch.spec.repository.as_mut().unwrap().namespace = Some("store".into());
        let ask =
            |batch: &BackupBatch| consent(Some(batch), &reference(Some("prod"), &[]), "test", Some(Verdict::Allowed));
        assert!(matches!(ask(&batch), Err(NoGround::Denied(_))));
        for (said, allowed) in [("test", true), ("dev, test", true), ("tes", false), ("*", false), ("", false)] {
            batch.metadata.annotations = Some([(annotation::RESTORE_FROM.to_owned(), said.to_owned())].into());
            assert_eq!(ask(&batch).is_ok(), allowed, "{said:?}");
            let denied =
                consent(Some(&batch), &reference(Some("prod"), &[]), "test", Some(Verdict::Denied("x".into())));
            assert!(denied.is_err(), "the Repository has its own say");
        }
    }

    /// Closes: row 9 of the attacks by tenants.
    #[test]
    fn no_settings_of_jobs_come_from_another_namespace() {
        let settings = |home: Option<&str>| {
            let members = adopt(&batch(), &reference(home, &[]), "test").unwrap().members;
            members.iter().filter(|m| m.runtime_settings.is_some()).count()
        };
        assert_eq!((settings(Some("prod")), settings(Some("test"))), (0, 2));
    }

    #[test]
    fn from_another_namespace_the_repository_stays_where_it_is() {
        let adopted = adopt(&batch(), &reference(Some("prod"), &[]), "test").unwrap();
        assert_eq!(adopted.repository.unwrap().namespace.as_deref(), Some("prod"));
        let mut batch = batch();
        batch.spec.repository.as_mut().unwrap().namespace = Some(String::new());
        for (home, namespace) in [(Some("prod"), Some("prod")), (Some(""), None)] {
            let named = adopt(&batch, &reference(home, &[]), "test").unwrap().repository.unwrap().namespace;
            assert_eq!(named.as_deref(), namespace, "an empty one says nothing");
        }
    }
}
