//! Validation: reports the errors of an object, per field.
//!
//! One file a kind, over shared parts ([`common`], [`target`], [`rules`], [`members`], [`overlap`], [`parts`],
//! [`runtime`]). Every file is pure: it checks only the object itself; the controller checks other objects. `Invalid`
//! is an invalid value; `NotSupported` is a declared field that is not implemented. No field is accepted and then
//! ignored.

pub mod application;
pub mod backup_batch;
pub mod backup_blueprint;
pub mod backup_configuration;
pub mod backup_session;
pub mod common;
pub mod extraneous;
pub mod folders;
pub mod function;
pub mod identity;
pub mod immutable;
pub mod members;
pub mod overlap;
pub mod parts;
pub mod repository;
pub mod restore_batch;
pub mod restore_session;
pub mod rules;
pub mod runtime;
pub mod target;
pub mod task;
pub mod templates;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::admission::error::{FieldError, Reason};
use crate::admission::{bounds, default};
use crate::api;

/// All errors of an object of this kind; with `old`, also changes of immutable fields. Both are first converted to
/// one form, so that applying the same manifest again is not a change. An object that exceeds its bounds is reported
/// as such, and not validated further.
pub fn check(kind: &str, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    match kind {
        "BackupBatch" => run(kind, new, old, backup_batch::validate),
        "BackupBlueprint" => run(kind, new, old, backup_blueprint::validate),
        "BackupConfiguration" => run(kind, new, old, backup_configuration::validate),
        "BackupSession" => run(kind, new, old, backup_session::validate),
        "Function" => run(kind, new, old, function::validate),
        "Repository" => run(kind, new, old, repository::validate),
        "RestoreBatch" => run(kind, new, old, restore_batch::validate),
        "RestoreSession" => run(kind, new, old, restore_session::validate),
        "Task" => run(kind, new, old, task::validate),
        _ => Vec::new(),
    }
}

fn run<T: DeserializeOwned>(
    kind: &str,
    new: &Value,
    old: Option<&Value>,
    validate: impl Fn(&T, Option<&T>) -> Vec<FieldError>,
) -> Vec<FieldError> {
    match bounds::check(kind, new).and_then(|()| read::<T>(kind, essence(kind, new))) {
        Err(error) => vec![error],
        // An old object that cannot be parsed does not restrict the new one. Only its spec is compared.
        Ok(new) => {
            let spec = old.and_then(|o| o.get("spec")).filter(|spec| bounds::check_spec(kind, spec).is_ok());
            let old = spec.and_then(|spec| read(kind, json!({ "spec": spec })).ok());
            validate(&new, old.as_ref())
        }
    }
}

/// Fields of status that rules use.
const OF_STATUS: [&str; 3] = ["phase", "identity", "targetHash"];

/// The part of an object that is validated, without the fields that the API server and the operator write, which can
/// be large. Of the status of invokers, only the fields that rules use are kept.
fn essence(kind: &str, object: &Value) -> Value {
    let Some(all) = object.as_object() else { return object.clone() };
    let binds = matches!(kind, "BackupConfiguration" | "BackupBatch");
    let mut kept = Map::new();
    for (key, value) in all.iter().filter(|(key, _)| *key != "status" || binds) {
        let part = |keep: &dyn Fn(&str) -> bool| {
            let fields = value.as_object().into_iter().flatten().filter(|(k, _)| keep(k));
            Value::Object(fields.map(|(k, v)| (k.clone(), v.clone())).collect())
        };
        let value = match key.as_str() {
            "metadata" if value.is_object() => part(&|k| k != "managedFields"),
            "status" => part(&|k| OF_STATUS.contains(&k)),
            _ => value.clone(),
        };
        if key != "status" || bounds::check_spec("", &value).is_ok() {
            kept.insert(key.clone(), value);
        }
    }
    kept.into()
}

/// The typed object, with defaults. A status that cannot be parsed, because another version wrote it, is omitted: it
/// is not an error of the user.
fn read<T: DeserializeOwned>(kind: &str, mut object: Value) -> Result<T, FieldError> {
    default::apply(kind, &mut object);
    // Again, so that the result is the same for an object with and without defaults.
    bounds::check(kind, &object)?;
    api::clean(&mut object);
    if let Some(map) = object.as_object_mut() {
        map.entry("metadata").or_insert_with(|| json!({}));
    }
    if let Ok(read) = T::deserialize(&object) {
        return Ok(read);
    }
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    serde_path_to_error::deserialize(object).map_err(|e| unreadable(&e.path().to_string(), &e.inner().to_string()))
}

/// The object in its one form, as the controller reads it, without unknown fields. `None` if it cannot be parsed.
pub fn canonical(kind: &str, object: &Value) -> Option<Value> {
    fn of<T: DeserializeOwned + serde::Serialize>(kind: &str, object: &Value) -> Option<Value> {
        read::<T>(kind, object.clone()).ok().map(|read| api::to_json(&read))
    }
    match kind {
        "BackupBatch" => of::<api::BackupBatch>(kind, object),
        "BackupBlueprint" => of::<api::BackupBlueprint>(kind, object),
        "BackupConfiguration" => of::<api::BackupConfiguration>(kind, object),
        "Function" => of::<api::Function>(kind, object),
        "Repository" => of::<api::Repository>(kind, object),
        "RestoreBatch" => of::<api::RestoreBatch>(kind, object),
        "RestoreSession" => of::<api::RestoreSession>(kind, object),
        "Task" => of::<api::Task>(kind, object),
        _ => None,
    }
}

fn unreadable(path: &str, text: &str) -> FieldError {
    let (field, message) = match text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        Some((field, _)) if path == "." => (field.to_owned(), "is missing".to_owned()),
        Some((field, _)) => (format!("{path}.{field}"), "is missing".to_owned()),
        None => (if path == "." { "spec" } else { path }.to_owned(), format!("cannot be read: {text}")),
    };
    FieldError::new(field, Reason::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::error::message;
    use crate::admission::kinds::KINDS;
    use proptest::prelude::*;

    /// Proves: defect 26, invented 21.
    #[test]
    fn an_object_that_cannot_be_read_names_the_place() {
        let object = json!({ "spec": { "members": [{ "target": { "paths": "x" } }] } });
        let errors = check("BackupBatch", &object, None);
        assert_eq!(errors[0].field, "spec.members[0].target.paths");
        let typo = json!({ "spec": { "executionOrder": "sequential", "members": [] } });
        let text = message(&check("RestoreBatch", &typo, None));
        assert!(text.starts_with("spec.executionOrder: cannot be read: unknown variant `sequential`"), "{text}");
    }

    /// A run cannot be changed through an object that is too large to be validated as a whole.
    #[test]
    fn what_stands_beside_a_spec_does_not_unbind_it() {
        let rules = json!([{ "snapshots": ["latest"] }]);
        let target = json!({ "ref": { "kind": "PersistentVolumeClaim", "name": "data" }, "rules": rules });
        let mut old = json!({ "metadata": {}, "spec": { "repository": { "name": "r" }, "target": target } });
        let mut new = old.clone();
        new["spec"]["repository"]["name"] = "other".into();
        old["metadata"]["annotations"] = json!({ "a": "x".repeat(bounds::OBJECT_BYTES) });
        old["status"] = json!(vec![0; 1_000_000]);
        assert!(message(&check("RestoreSession", &new, Some(&old))).contains("(changed: repository)"));
    }

    #[test]
    fn a_run_cannot_be_changed_but_can_be_applied_again() {
        let written = json!({ "spec": {
            "repository": { "name": "r" },
            "target": { "ref": { "kind": "PersistentVolumeClaim", "name": "data" } },
            "rules": [{ "snapshots": ["latest"] }],
        }});
        let mut stored = written.clone();
        default::default("RestoreSession", &mut stored);
        assert_ne!(written, stored);
        assert_eq!(check("RestoreSession", &written, Some(&stored)), []);
        let mut other = written.clone();
        other["spec"]["timeOut"] = "1h".into();
        let text = message(&check("RestoreSession", &other, Some(&stored)));
        assert!(text.contains("one run") && text.contains("(changed: timeOut)"), "{text}");
    }

    /// Proves: C09.
    #[test]
    fn a_run_can_be_canceled_and_not_uncanceled() {
        let target = json!({ "ref": { "kind": "PersistentVolumeClaim", "name": "data" }, "rules": [{ "snapshots": ["latest"] }] });
        let session = json!({ "spec": { "repository": { "name": "r" }, "target": target } });
        let batch = json!({ "spec": { "repository": { "name": "r" }, "members": [{ "target": target }] } });
        let backup = json!({ "spec": { "invoker": { "kind": "BackupBatch", "name": "b" } } });
        for (kind, running, other) in [
            ("RestoreSession", session, ("timeOut", json!("1h"))),
            ("RestoreBatch", batch, ("timeOut", json!("1h"))),
            ("BackupSession", backup, ("retryLeft", json!(1))),
        ] {
            let mut canceled = running.clone();
            canceled["spec"]["cancel"] = true.into();
            assert_eq!(check(kind, &canceled, Some(&running)), []);
            let text = message(&check(kind, &running, Some(&canceled)));
            assert!(text.starts_with("spec.cancel: was true") && !text.contains("one run"), "{text}");
            canceled["spec"][other.0] = other.1;
            let text = message(&check(kind, &canceled, Some(&running)));
            assert!(text.contains(&format!("(changed: {})", other.0)), "{text}");
        }
    }

    #[test]
    fn a_status_that_nobody_can_read_judges_nothing() {
        let mut object = json!({ "spec": {
            "repository": { "name": "r" },
            "retentionPolicy": { "name": "k", "keepLast": 1, "prune": true },
            "target": { "ref": { "kind": "PersistentVolumeClaim", "name": "data" } },
        }});
        let identity =
            json!({ "targets": [{ "alias": "host-0", "ref": { "kind": "PersistentVolumeClaim", "name": "data" } }] });
        object["status"] = json!({ "phase": "Ready", "identity": identity });
        assert_eq!(check("BackupConfiguration", &object, None), [], "its alias is that of its kind, in either form");
        object["spec"]["target"]["ref"]["name"] = "other".into();
        let text = message(&check("BackupConfiguration", &object, None));
        assert!(text.starts_with("spec.target.ref: cannot be changed"), "{text}");
        object["status"] = json!({ "phase": "NotReady" });
        assert_eq!(check("BackupConfiguration", &object, None), [], "before it was Ready, it may be corrected");
        object["status"] = json!({ "phase": 3, "identity": identity });
        assert_eq!(check("BackupConfiguration", &object, None), []);
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let word = prop::sample::select(vec![
            "spec",
            "members",
            "target",
            "rules",
            "paths",
            "snapshots",
            "ref",
            "kind",
            "name",
            "alias",
            "volumeMounts",
            "mountPath",
            "driver",
            "repository",
            "task",
            "backend",
            "local",
            "s3",
            "endpoint",
            "bucket",
            "schedule",
            "retentionPolicy",
            "prune",
            "keepLast",
            "invoker",
            "targetHosts",
            "timeOut",
            "args",
            "metadata",
        ]);
        let text = prop::sample::select(vec![
            "",
            "/",
            "latest",
            "Deployment",
            "StatefulSet",
            "PersistentVolumeClaim",
            "host-0",
            "x",
            "Restic",
            "1h",
            "../..",
            "--tag",
            "* * * * *",
            "BackupBatch",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((word.clone(), inner), 0..6)
                    .prop_map(|pairs| Value::Object(pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
            ]
        })
    }

    proptest! {
        /// Proves: defect 15.
        #[test]
        fn no_object_makes_it_panic(spec in json_value(), old in json_value()) {
            for (kind, _) in KINDS {
                let new = json!({ "metadata": { "namespace": "demo" }, "spec": spec });
                let _ = message(&check(kind, &new, Some(&json!({ "spec": old }))));
                let _ = check(kind, &spec, None);
            }
        }
    }
}
