//! The cached form of an object contains everything that a reconcile reads.

use kube::ResourceExt as _;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;

use crate::api::{
    BackupBatch, BackupBlueprint, BackupConfiguration, BackupSession, Repository, RestoreBatch, RestoreSession,
};
use crate::controller::cache::consumers;
use crate::controller::cache::consumers::{Consumer, Consumers};
use crate::controller::cache::index::Indexed;
use crate::controller::cache::stored::*;
use crate::plan::restore::run::RestoreRun;

fn stored<K: UserKind>(object: &Value) -> Stored<K> {
    serde_json::from_str(&object.to_string()).unwrap()
}

fn session(spec: &Value) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreSession",
        "metadata": { "name": "s", "namespace": "n", "uid": "u", "generation": 2, "resourceVersion": "7",
            "creationTimestamp": "2026-11-20T00:00:00Z", "deletionTimestamp": "2026-11-21T00:00:00Z",
            "finalizers": ["f"], "labels": { "team": "shop" },
            "annotations": { "note": "kept", LAST_APPLIED: "{\"spec\":{}}" },
            "managedFields": [{ "manager": "m", "operation": "Apply" }] },
        "spec": spec,
        "status": { "phase": "Running", "observedGeneration": 1,
            "conditions": [
                { "type": "Reconciling", "status": "True", "reason": "TargetBusy", "message": "m",
                    "lastTransitionTime": "2026-11-20T00:00:00Z" },
                { "type": "Stalled", "status": "False", "reason": "Running", "message": "m",
                    "lastTransitionTime": "2026-11-20T00:00:00Z" }],
            "run": { "id": "u", "specHash": "h" } } })
}

fn spec() -> Value {
    json!({ "repository": { "name": "r", "namespace": "" }, "rules": [{ "paths": ["/data"] }],
        "target": { "ref": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" } } })
}

fn users() -> Consumers {
    Consumers {
        configurations: Indexed::new(reflector::store().0, consumers::keys),
        batches: Indexed::new(reflector::store().0, consumers::keys),
        backups: Indexed::new(reflector::store().0, consumers::keys),
        restores: Indexed::new(reflector::store().0, consumers::keys),
        restore_batches: Indexed::new(reflector::store().0, consumers::keys),
    }
}

#[test]
fn an_object_is_read_as_it_would_be_without_being_kept_and_defaulted() {
    let mut whole = session(&spec());
    let kept: Stored<RestoreSession> = stored(&whole);
    admission::default("RestoreSession", &mut whole);
    let mut whole: RestoreSession = serde_json::from_value(whole).unwrap();
    whole.metadata.managed_fields = None;
    whole.annotations_mut().remove(LAST_APPLIED);
    assert_eq!(kept.open(), whole);
    assert_eq!(kept.open().spec.target.unwrap().alias.as_deref(), Some("host-0"), "in its one form");
    assert_eq!(kept.outline(), RestoreSession { status: None, ..whole.clone() });
    assert!(kept.is_whole() && kept.refusal().is_none());
    let again: Stored<RestoreSession> = kept.open().into();
    assert_eq!(again.open(), whole);
    // Facts that are read without opening the object.
    let (facts, users) = (kept.facts(), users());
    assert_eq!(kept.home(&users).map(|h| consumers::full_name(&h)).as_deref(), Some("n/r"));
    assert_eq!(facts.targets, vec![], "one that leaves begins nothing");
    assert!(kept.says("Reconciling", "TargetBusy") && !kept.says("Stalled", "Running") && !kept.is_over());
    assert_eq!(consumers::keys(&kept), ["repository n/r"]);
    let mut stays = session(&spec());
    stays["metadata"].as_object_mut().unwrap().remove("deletionTimestamp");
    stays["status"]["run"].as_object_mut().unwrap().remove("specHash");
    assert_eq!(consumers::keys(&stored::<RestoreSession>(&stays)), ["repository n/r", "target n/deployment/web"]);
    assert_eq!((kept.name_any(), kept.uid(), kept.meta().generation), ("s".into(), Some("u".into()), Some(2)));
    assert_eq!(kept.finalizers(), ["f"], "a finalizer is taken off by what is kept");
}

#[test]
fn a_backup_uses_what_its_invoker_uses() {
    let (store, mut writer) = reflector::store();
    let users = Consumers { configurations: Indexed::new(store, consumers::keys), ..users() };
    let meta = json!({ "name": "files", "namespace": "n", "uid": "c" });
    let invoker = json!({ "metadata": meta, "spec": { "repository": { "name": "r", "namespace": "store" },
        "retentionPolicy": { "name": "k", "keepLast": 1, "prune": true },
        "target": { "ref": { "kind": "StatefulSet", "name": "db" } } }, "status": { "phase": "Ready" } });
    let invoker: Stored<BackupConfiguration> = stored(&invoker);
    assert_eq!(invoker.facts().hosts, [HostSet::Ordinals("host".into())]);
    assert_eq!(invoker.facts().invoker_phase, Some(InvokerPhase::Ready));
    writer.apply_watcher_event(&Event::Apply(invoker));
    let backup = json!({ "metadata": { "name": "b", "namespace": "n", "uid": "b" },
        "spec": { "invoker": { "kind": "BackupConfiguration", "name": "files" } }, "status": { "phase": "Running" } });
    let backup: Stored<BackupSession> = stored(&backup);
    assert_eq!(backup.home(&users).map(|h| consumers::full_name(&h)).as_deref(), Some("store/r"));
    assert_eq!(
        (consumers::keys(&backup), backup.facts().backup),
        (vec!["invoker BackupConfiguration n/files".to_owned(), "open".to_owned()], Some(BackupPhase::Running))
    );
}

#[test]
fn of_an_object_that_is_too_large_stays_what_ends_it() {
    let mut large = spec();
    large["runtimeSettings"] = json!({ "container": { "env": [{ "name": "A", "value": "x".repeat(1_200_000) }] } });
    let mut whole = session(&large);
    whole["metadata"]["annotations"]["note"] = "y".repeat(200_000).into();
    let kept: Stored<RestoreSession> = stored(&whole);
    assert!(kept.text.len() < 400 && kept.size() > 1_400_000, "a look at it takes room: {}", kept.size());
    let refusal = kept.refusal().unwrap();
    assert_eq!(refusal.reason, reason::OBJECT_TOO_LARGE);
    assert!(refusal.message.contains("1400") && refusal.message.contains("262144"), "{}", refusal.message);
    // Its status and its finalizers are kept, and its spec differs from the spec that the run began with.
    let open = kept.open();
    assert_eq!(open.status, serde_json::from_value(whole["status"].clone()).unwrap());
    assert_eq!(kept.finalizers(), ["f"]);
    let run = RestoreRun::of_session(&open);
    assert!(run.is_changed() && run.id.deleting);
    assert_eq!(kept.home(&users()), None, "it takes no place on a Repository");
}

fn with_note(mut object: Value, bytes: usize) -> Value {
    object["metadata"]["annotations"]["note"] = "y".repeat(bytes).into();
    object
}

#[test]
fn of_an_object_that_is_too_much_for_its_namespace_stays_what_ends_it() {
    let whole: Stored<RestoreSession> = stored(&with_note(session(&spec()), SMALL));
    let mut kept = whole.clone();
    assert!(kept.bytes() > SMALL);
    kept.cut(NAMESPACE_BYTES + 1);
    assert!(kept.bytes() < 400 && !kept.is_whole() && kept.facts().targets.is_empty());
    let refusal = kept.refusal().unwrap();
    assert_eq!(refusal.reason, reason::OBJECT_TOO_LARGE);
    for said in ["Namespace n ", "8388609 bytes of unfinished RestoreSession objects", "8388608 are allowed"] {
        assert!(refusal.message.contains(said), "{}", refusal.message);
    }
    assert_eq!((kept.open().status, kept.finalizers()), (whole.open().status, ["f".to_owned()].as_slice()));
    assert!(RestoreRun::of_session(&kept.open()).is_changed());
    // The result of a write keeps the previous refusal; the watch decides again.
    assert_eq!(whole.clone().written(&kept).refusal(), Some(refusal));
    assert!(whole.clone().written(&whole).is_whole());
}

#[test]
fn of_a_large_object_that_is_over_only_its_status_is_kept() {
    let mut object = with_note(session(&spec()), SMALL);
    object["status"]["phase"] = "Succeeded".into();
    object["status"]["observedGeneration"] = 2.into();
    let meta = object["metadata"].as_object_mut().unwrap();
    meta.remove("deletionTimestamp");
    meta.remove("finalizers");
    let kept: Stored<RestoreSession> = stored(&object);
    assert!(kept.bytes() < 400 && kept.refusal().is_none() && kept.is_over());
    assert_eq!(kept.facts().repository, Some(("n".into(), "r".into())));
    assert!(RestoreRun::of_session(&kept.open()).is_over());
    // An object that still needs work is read as a whole.
    let with = |key: &str, value: Value| {
        let mut object = object.clone();
        object["metadata"][key] = value;
        stored::<RestoreSession>(&object).is_whole()
    };
    assert!(with("generation", json!(3)) && with("finalizers", json!(["f"])));
    assert!(with("deletionTimestamp", json!("2026-11-21T00:00:00Z")));
    // An object that its Repository does not allow continues when the Repository allows it.
    let mut denied = object.clone();
    denied["status"]["phase"] = "Invalid".into();
    assert!(!stored::<RestoreSession>(&denied).is_whole());
    denied["status"]["conditions"][1] = json!({ "type": condition::REPOSITORY_FOUND, "status": "False",
        "reason": reason::REPOSITORY_NOT_ALLOWED, "message": "m", "lastTransitionTime": "2026-11-20T00:00:00Z" });
    assert!(stored::<RestoreSession>(&denied).is_whole());
    // A backup that is to be retried tells the next session how many retries remain.
    let mut backup = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
        "metadata": with_note(session(&spec()), SMALL)["metadata"], "spec": { "invoker": { "kind": "BackupBatch", "name": "b" } },
        "status": { "phase": "Failed", "observedGeneration": 2 } });
    let meta = backup["metadata"].as_object_mut().unwrap();
    meta.remove("deletionTimestamp");
    meta.remove("finalizers");
    assert!(!stored::<BackupSession>(&backup).is_whole());
    backup["status"]["nextRetry"] = "2026-11-21T00:00:00Z".into();
    assert!(stored::<BackupSession>(&backup).is_whole());
}

/// managedFields and the annotation of kubectl say nothing about the object, and the operator writes status.
#[test]
fn only_what_the_user_wrote_counts() {
    let mut object = session(&spec());
    object["metadata"]["annotations"][LAST_APPLIED] = "x".repeat(200_000).into();
    object["metadata"]["managedFields"] = json!([{ "manager": "m".repeat(200_000) }]);
    object["status"]["summary"] = "x".repeat(300_000).into();
    let kept: Stored<RestoreSession> = stored(&object);
    assert!(kept.is_whole());
    assert_eq!(kept.open().status.unwrap().summary.unwrap().len(), 300_000);
}

#[test]
fn what_cannot_be_read_is_refused_alone_and_what_was_begun_by_others_is_left_alone() {
    let mut object = session(&json!({ "target": { "rules": 3 } }));
    let kept: Stored<RestoreSession> = stored(&object);
    let refusal = kept.refusal().unwrap();
    assert_eq!(refusal.reason, reason::INVALID);
    assert!(refusal.message.starts_with("spec.target.rules: cannot be read"), "{}", refusal.message);
    assert!(kept.open().status.is_some());
    object["spec"] = spec();
    object["status"]["phase"] = "Teleported".into();
    let kept: Stored<RestoreSession> = stored(&object);
    assert!(kept.is_of_another_version() && kept.refusal().is_none() && !kept.is_whole());
    assert!(kept.open().status.is_none());
}

/// An object of any kind that is too large can be opened, and status reports it.
#[test]
fn every_kind_can_be_kept_without_its_spec() {
    fn check<K: UserKind>() {
        let object = json!({ "metadata": { "name": "o", "namespace": "n", "uid": "u" },
            "spec": { "x": "y".repeat(OBJECT_BYTES) }, "status": { "conditions": [] } });
        let kept: Stored<K> = stored(&object);
        assert_eq!(kept.refusal().unwrap().reason, reason::OBJECT_TOO_LARGE, "{}", K::kind(&()));
        assert_eq!(kept.open().name_any(), "o");
        assert!(kept.open().status().is_some(), "{}", K::kind(&()));
        assert!(kept.text.len() < 400, "{}", kept.text);
    }
    check::<RestoreSession>();
    check::<RestoreBatch>();
    check::<BackupConfiguration>();
    check::<BackupBatch>();
    check::<BackupSession>();
    check::<BackupBlueprint>();
    check::<Repository>();
}

/// A waiting session took about 5 KB as a Rust value.
#[test]
fn a_session_that_waits_takes_little_memory() {
    let condition = |type_: &str, message: &str| {
        json!({ "type": type_, "status": "True", "reason": "RepositoryAvailable",
        "message": message, "lastTransitionTime": "2026-11-20T00:00:00Z" })
    };
    let types = ["RepositoryFound", "BackendSecretFound", "ValidationPassed", "Reconciling"];
    let conditions = types.map(|t| condition(t, "Repository n/r exists, and its Secret too."));
    let mut object = session(&spec());
    object["status"] = json!({ "phase": "Pending", "observedGeneration": 1, "summary": "Waiting for its Repository.",
        "sessionDeadline": "2026-11-21T00:00:00Z", "run": { "id": "u", "specHash": "h".repeat(16) },
        "conditions": conditions });
    let kept: Stored<RestoreSession> = stored(&object);
    assert!(kept.is_whole());
    let strings: usize = consumers::keys(&kept).iter().map(String::len).sum();
    let all = kept.size() + size_of::<Stored<RestoreSession>>() + size_of::<Facts>() + strings;
    assert!(all < 2500, "{all}");
}

#[test]
fn who_made_a_session_is_known_without_keeping_its_owners() {
    let of = |owners: &Value, bytes: usize| -> Stored<BackupSession> {
        stored(&json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
            "metadata": { "name": "s", "namespace": "n", "ownerReferences": owners,
                "annotations": { "a": "x".repeat(bytes) } },
            "spec": { "invoker": { "kind": "BackupBatch", "name": "b" } } }))
    };
    let owner = |controller: bool| {
        json!([{ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupBatch", "name": "b", "uid": "u",
            "controller": controller }])
    };
    // This is also known for an object that is too large.
    for bytes in [1, OBJECT_BYTES] {
        assert!(!of(&owner(true), bytes).facts().by_hand);
        assert!(of(&json!([]), bytes).facts().by_hand);
        assert!(of(&owner(false), bytes).facts().by_hand, "an owner that only has it removed with itself");
        let mut cut = of(&owner(true), 1);
        cut.cut(bytes);
        assert!(!cut.facts().by_hand);
    }
}
