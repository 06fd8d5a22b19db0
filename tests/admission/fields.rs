//! No field is accepted and then ignored: every field of every spec is either used or refused.
//!
//! The fields come from the generated definitions, so that a new field fails here until a decision is made. A refused
//! field is set on a valid object, which must then get the message.

use std::collections::BTreeSet;

use lifeboat::admission::{Reason, check, message};
use serde_json::{Value, json};

/// A field (with everything below it) and, where it is refused, a value to refuse.
type Entry = (String, Option<Value>);

fn used(at: &str, fields: &[&str]) -> Vec<Entry> {
    fields.iter().map(|f| (format!("{at}.{f}"), None)).collect()
}

fn refused(at: &str, fields: &[(&str, Value)]) -> Vec<Entry> {
    fields.iter().map(|(f, value)| (format!("{at}.{f}"), Some(value.clone()))).collect()
}

const CONTAINER: &[&str] = &[
    "resources",
    "livenessProbe",
    "readinessProbe",
    "lifecycle",
    "securityContext",
    "nice",
    "ionice",
    "envFrom",
    "env",
];
const POD: &[&str] = &[
    "podLabels",
    "podAnnotations",
    "nodeSelector",
    "serviceAccountName",
    "automountServiceAccountToken",
    "nodeName",
    "securityContext",
    "imagePullSecrets",
    "affinity",
    "schedulerName",
    "tolerations",
    "priorityClassName",
    "priority",
    "readinessGates",
    "runtimeClassName",
    "enableServiceLinks",
    "topologySpreadConstraints",
];

fn runtime(at: &str) -> Vec<Entry> {
    [
        used(&format!("{at}.runtimeSettings.pod"), POD),
        used(&format!("{at}.runtimeSettings.container"), CONTAINER),
        refused(&format!("{at}.runtimeSettings.pod"), &[("serviceAccountAnnotations", json!({ "a": "b" }))]),
    ]
    .concat()
}

fn mounts(at: &str) -> Vec<Entry> {
    [
        used(&format!("{at}.volumeMounts"), &["name", "mountPath", "subPath", "readOnly"]),
        refused(
            &format!("{at}.volumeMounts"),
            &[
                ("subPathExpr", json!("$(POD)")),
                ("mountPropagation", json!("Bidirectional")),
                ("recursiveReadOnly", json!("Enabled")),
            ],
        ),
    ]
    .concat()
}

/// A member, or a session, which is a batch of one.
fn part(at: &str, hook: &str) -> Vec<Entry> {
    let handler = json!({ "exec": { "command": ["true"] } });
    [
        used(at, &["task.name", "tempDir.medium", "tempDir.sizeLimit", "tempDir.disableCaching"]),
        // Only the metadata that a claim of the session can carry.
        used(at, &["interimVolumeTemplate"]),
        refused(
            at,
            &[
                ("task.params", json!([{ "name": "a", "value": "b" }])),
                (&format!("hooks.pre{hook}"), handler.clone()),
                (&format!("hooks.post{hook}"), handler),
            ],
        ),
        used(&format!("{at}.target"), &["alias", "ref.apiVersion", "ref.kind", "ref.name", "ref.namespace", "args"]),
        mounts(&format!("{at}.target")),
        runtime(at),
    ]
    .concat()
}

const RULE: &[&str] =
    &["targetHosts", "sourceHost", "snapshots", "paths", "asOf", "previous", "tags", "include", "exclude"];

fn restore_part(at: &str) -> Vec<Entry> {
    [
        part(at, "Restore"),
        used(
            &format!("{at}.target"),
            &["quiesce", "afterFailure", "extraneous", "allowEmpty", "ownership", "replicas"],
        ),
        used(&format!("{at}.target.rules"), RULE),
        // Moved below the target.
        used(&format!("{at}.rules"), RULE),
        // Some of these fields are refused as a mistake, see tests/manifests/bad.
        used(&format!("{at}.target"), &["volumeClaimTemplates"]),
    ]
    .concat()
}

fn backup_part(at: &str) -> Vec<Entry> {
    [
        part(at, "Backup"),
        used(&format!("{at}.target"), &["paths", "exclude"]),
        refused(&format!("{at}.target"), &[("snapshotClassName", json!("csi")), ("replicas", json!(2))]),
    ]
    .concat()
}

const RUN: &[&str] = &["repository.name", "repository.namespace", "timeOut"];
const RESTORE: &[&str] = &["asOf", "backupSession", "cancel"];

/// The driver restic is used; another driver is refused.
fn driver() -> Vec<Entry> {
    refused("spec", &[("driver", json!("VolumeSnapshotter"))])
}

fn invoker() -> Vec<Entry> {
    [
        driver(),
        used("spec", RUN),
        used("spec", &["schedule", "paused", "backupHistoryLimit"]),
        used(
            "spec.retentionPolicy",
            &[
                "name",
                "keepLast",
                "keepHourly",
                "keepDaily",
                "keepWeekly",
                "keepMonthly",
                "keepYearly",
                "keepTags",
                "prune",
                "dryRun",
            ],
        ),
        used("spec", &["retryConfig.maxRetry", "retryConfig.delay", "timeZone"]),
    ]
    .concat()
}

fn whole_hooks(hook: &str) -> Vec<Entry> {
    let handler = json!({ "exec": { "command": ["true"] } });
    refused("spec.hooks", &[(&format!("pre{hook}"), handler.clone()), (&format!("post{hook}"), handler)])
}

const ORDER: &[&str] = &["executionOrder", "maintainOrder", "onFailure"];

/// The decisions on all fields of a kind, and a valid object of it.
fn kind(kind: &str) -> Option<(Vec<Entry>, Value)> {
    let target = json!({ "ref": { "kind": "Deployment", "name": "web" },
                         "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let (mut restore, mut backup) = (target.clone(), target);
    restore["rules"] = json!([{ "paths": ["/data"] }]);
    backup["paths"] = json!(["/data"]);
    let retention = json!({ "name": "keep", "keepLast": 1, "prune": true });
    let whole = |at: &str| refused("spec", &[(at, json!(null))]);
    Some(match kind {
        "RestoreSession" => (
            [driver(), used("spec", RUN), used("spec", RESTORE), restore_part("spec")].concat(),
            json!({ "repository": { "name": "r" }, "target": restore }),
        ),
        "RestoreBatch" => (
            [
                driver(),
                used("spec", RUN),
                used("spec", RESTORE),
                used("spec", ORDER),
                used("spec.backupBatch", &["name", "namespace", "members"]),
                used("spec.members", &["timeOut"]),
                refused("spec.members", &[("driver", json!("VolumeSnapshotter"))]),
                whole_hooks("Restore"),
                restore_part("spec.members"),
            ]
            .concat(),
            json!({ "repository": { "name": "r" }, "members": [{ "target": restore }] }),
        ),
        "BackupConfiguration" => (
            [invoker(), backup_part("spec")].concat(),
            json!({ "repository": { "name": "r" }, "target": backup, "retentionPolicy": retention }),
        ),
        "BackupBatch" => (
            [
                invoker(),
                used("spec", ORDER),
                used("spec.members", &["timeOut"]),
                runtime("spec"),
                whole_hooks("Backup"),
                backup_part("spec.members"),
            ]
            .concat(),
            json!({ "repository": { "name": "r" }, "members": [{ "target": backup }], "retentionPolicy": retention }),
        ),
        "BackupSession" => (
            used("spec", &["invoker.apiGroup", "invoker.kind", "invoker.name", "retryLeft", "cancel"]),
            json!({ "invoker": { "kind": "BackupBatch", "name": "b" } }),
        ),
        "Repository" => {
            let backend = [
                used("spec.backend", &["storageSecretName", "s3"]),
                // Kept for the manifests of Stash: the volume is mounted at a path that Lifeboat chooses.
                used("spec.backend.local", &["mountPath", "subPath", "persistentVolumeClaim", "hostPath", "nfs"]),
                // Refused as a mistake, see tests/manifests/bad/repository-empty-dir.yaml.
                used("spec.backend.local", &["emptyDir"]),
                refused(
                    "spec.backend",
                    &[
                        ("gcs", json!({ "bucket": "b" })),
                        ("azure", json!({ "container": "c" })),
                        ("swift", json!({ "container": "c" })),
                        ("b2", json!({ "bucket": "b" })),
                        ("rest", json!({ "url": "https://x" })),
                    ],
                ),
                refused("spec.backend.local", &OTHER_VOLUMES.iter().map(|v| (*v, json!({}))).collect::<Vec<_>>()),
                used("spec", &["wipeOut", "create"]),
                used("spec", &["usagePolicy.allowedNamespaces.from", "usagePolicy.allowedNamespaces.selector"]),
                runtime("spec"),
            ]
            .concat();
            (backend, json!({ "backend": { "storageSecretName": "s", "local": { "mountPath": "/r" } } }))
        }
        "BackupBlueprint" => (
            [
                "backend",
                "wipeOut",
                "usagePolicy",
                "backupNamespace",
                "repoNamespace",
                "schedule",
                "task",
                "retentionPolicy",
                "runtimeSettings",
                "tempDir",
                "interimVolumeTemplate",
                "hooks",
                "backupHistoryLimit",
                "timeOut",
                "retryConfig",
            ]
            .map(whole)
            .concat(),
            json!({ "retentionPolicy": retention }),
        ),
        "Function" => (
            [
                "image",
                "command",
                "args",
                "workingDir",
                "ports",
                "volumeMounts",
                "volumeDevices",
                "runtimeSettings",
                "podSecurityPolicyName",
            ]
            .map(whole)
            .concat(),
            json!({}),
        ),
        "Task" => (["steps", "volumes"].map(whole).concat(), json!({})),
        // AppBinding belongs to another project, and only the operator writes Snapshots.
        "AppBinding" | "Snapshot" => return None,
        other => panic!("{other} is a new kind: decide on its fields here"),
    })
}

const OTHER_VOLUMES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "image",
    "iscsi",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

/// Paths of all fields below a schema that contain a value.
fn leaves(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    let schema = schema.get("items").unwrap_or(schema);
    match schema.get("properties").and_then(Value::as_object) {
        None => {
            found.insert(at.to_owned());
        }
        Some(properties) => {
            for (name, below) in properties {
                leaves(below, &format!("{at}.{name}"), found);
            }
        }
    }
}

fn covers(entry: &str, field: &str) -> bool {
    field.strip_prefix(entry).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Sets a field, in the first item of every list on the way.
fn set(object: &mut Value, path: &str, value: &Value) {
    let mut here = object;
    for name in path.split('.') {
        if here.is_array() {
            here = &mut here[0];
        }
        here = &mut here[name];
    }
    if !value.is_null() {
        *here = value.clone();
    }
}

#[test]
fn every_field_is_used_or_refused() {
    for definition in lifeboat::api::all_crds() {
        let name = definition["spec"]["names"]["kind"].as_str().unwrap();
        let Some((entries, spec)) = kind(name) else { continue };
        let mut fields = BTreeSet::new();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        leaves(schema, "spec", &mut fields);
        for field in &fields {
            let deciding = entries.iter().filter(|(entry, _)| covers(entry, field)).count();
            assert_eq!(deciding, 1, "{name} {field}: decide whether it is used or refused, once");
        }
        for (entry, value) in &entries {
            assert!(fields.iter().any(|f| covers(entry, f)), "{name} has no field {entry}");
            let Some(value) = value else { continue };
            let mut object = json!({ "metadata": { "name": "x", "namespace": "demo" }, "spec": spec });
            set(&mut object, entry, value);
            let errors = check(name, &object, None);
            let told = errors.iter().any(|e| {
                let field = e.field.replace("[0]", "");
                e.reason == Reason::NotSupported && (covers(&field, entry) || covers(entry, &field))
            });
            assert!(told, "{name} {entry} is not refused: {}", message(&errors));
        }
    }
}
