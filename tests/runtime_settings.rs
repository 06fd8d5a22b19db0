//! Every field of `runtimeSettings`, as the CRD has it, reaches the Job's pod or the agent's task.
//!
//! The test walks the schema, so that fields that are added later are tested too. Each leaf is set alone, to two values
//! that nothing else has: the Job must then differ, and contain the value. This is checked in the Job of each step of a
//! session and of a Repository.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use lifeboat::api::runtime::RuntimeSettings;
use lifeboat::contract::restic::{
    Backup, List, Maintain, Preflight, Prepare, Probe, RepositoryAccess, Restore, Settings, Step, Wipe,
};
use lifeboat::contract::{Run, Task, Work, restic};
use lifeboat::names::label;
use lifeboat::plan::seen::job_status::pod_of;
use lifeboat::plan::systems::restic::backend::Access;
use lifeboat::plan::systems::restic::needs;
use lifeboat::plan::work::job_spec::frame::{JobFrame, JobParts};
use lifeboat::plan::work::job_spec::job;
use lifeboat::plan::work::process;
use serde_json::{Value, json};

/// Settings that do not apply to a pod, with the reason.
const ELSEWHERE: &[(&str, &str)] =
    &[("pod.serviceAccountAnnotations", "no ServiceAccount is generated for a Job; refused by admission")];

/// The steps of sessions, and those of a Repository.
fn steps() -> Vec<Step> {
    vec![
        Step::Restore(Restore::default()),
        Step::Preflight(Preflight::default()),
        Step::Prepare(Prepare {}),
        Step::Backup(Backup::default()),
        Step::Maintain(Maintain::default()),
        Step::List(List::default()),
        Step::Probe(Probe {}),
        Step::Wipe(Wipe {}),
    ]
}

/// The pod of a step, with its labels and annotations.
fn pod(settings: &Value, step: &Step) -> Value {
    let runtime: RuntimeSettings =
        serde_json::from_value(settings.clone()).unwrap_or_else(|e| panic!("{e}: {settings}"));
    let frame = JobFrame {
        image: "i".into(),
        owner: serde_json::from_value(json!({ "apiVersion": "v", "kind": "RestoreSession", "name": "r", "uid": "u" }))
            .unwrap(),
        namespace: "n".into(),
        labels: BTreeMap::new(),
        component: label::COMPONENT_RESTORE,
        repository: "n/repo".into(),
        account: None,
        defaults: RuntimeSettings::default(),
    };
    let (repository, settings) = (RepositoryAccess::default(), Settings::default());
    let work = restic::Work { repository, settings, step: step.clone() };
    let task = Task::new(Run::default(), step.verb(), vec![], Work::Restic(Box::new(work)));
    let task = Task { process: process::of(Some(&runtime)), ..task };
    let access =
        Access { display: "n/repo".into(), told: RepositoryAccess::default(), secret: "s".into(), local: None };
    let parts = JobParts {
        key: "k".into(),
        attempt: 1,
        needs: needs(&access, &task.work),
        runtime: Some(&runtime),
        seconds_left: 60,
        ..JobParts::default()
    };
    let job = job(&frame, &task, parts);
    let metadata = &job.spec.as_ref().unwrap().template.metadata;
    json!({ "metadata": metadata, "spec": pod_of(&job) })
}

/// Paths of all leaves below a schema, with their schemas. A list has one item, a map the key `k`.
fn leaves(schema: &Value, at: &str, found: &mut Vec<(String, Value)>) {
    let join = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, below) in properties {
            leaves(below, &join(name), found);
        }
    } else if let Some(items) = schema.get("items") {
        leaves(items, &format!("{at}[]"), found);
    } else if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
        leaves(values, &join("k"), found);
    } else {
        found.push((at.to_owned(), schema.clone()));
    }
}

/// The n-th value of a leaf.
fn value(schema: &Value, n: i64) -> Value {
    if schema["x-kubernetes-int-or-string"] == true || schema["anyOf"].is_array() {
        return json!(format!("{}", 7001 + n));
    }
    match schema["type"].as_str().unwrap_or_default() {
        "string" if schema["format"] == "date-time" => json!("2026-11-20T00:00:00Z"),
        "string" => {
            schema["enum"].get(usize::try_from(n).unwrap()).cloned().unwrap_or_else(|| json!(format!("value-{n}")))
        }
        "integer" if schema["minimum"].is_number() => json!(schema["minimum"].as_i64().unwrap_or(0) + n),
        "integer" => json!(7001 + n),
        "boolean" => json!(n == 0),
        other => panic!("a leaf of type {other:?}: {schema}"),
    }
}

/// Sets a leaf. Other required fields of an item are filled in.
fn set(here: &mut Value, path: &str, schema: &Value, leaf: &Value) {
    let (name, rest) = path.split_once('.').map_or((path, None), |(n, r)| (n, Some(r)));
    let (name, list) = name.strip_suffix("[]").map_or((name, false), |n| (n, true));
    let below = schema["properties"].get(name).or_else(|| schema.get("additionalProperties")).unwrap();
    let (below, slot) = if list {
        here[name] = json!([null]);
        (&below["items"], &mut here[name][0])
    } else {
        (below, &mut here[name])
    };
    match rest {
        Some(rest) => {
            *slot = needed(below);
            set(slot, rest, below, leaf);
        }
        None => *slot = leaf.clone(),
    }
}

/// The required fields of an object.
fn needed(schema: &Value) -> Value {
    let mut object = json!({});
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let below = &schema["properties"][name];
        object[name] = match below["type"].as_str() {
            Some("object") => needed(below),
            Some("array") => json!([]),
            _ => value(below, 0),
        };
    }
    object
}

/// Proves: scenario 24.
#[test]
fn every_field_of_the_schema_reaches_the_pod_or_the_agent() {
    let crds = lifeboat::api::all_crds();
    let crd = crds.iter().find(|c| c["spec"]["names"]["kind"] == "RestoreSession").unwrap();
    let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let schema = &spec["properties"]["runtimeSettings"];
    let mut found = vec![];
    leaves(schema, "", &mut found);
    assert!(found.len() > 200, "only {} fields were found", found.len());
    let mut lost = BTreeSet::new();
    let all = steps();
    for (step, (path, leaf)) in all.iter().flat_map(|s| found.iter().map(move |f| (s, f))) {
        if ELSEWHERE.iter().any(|(field, _)| path.starts_with(field)) {
            continue;
        }
        let pods = [0, 1].map(|n| {
            let mut settings = json!({});
            let wanted = value(leaf, n);
            set(&mut settings, path, schema, &wanted);
            let text = pod(&settings, step).to_string();
            let said = match &wanted {
                Value::String(s) => text.contains(s.as_str()),
                Value::Number(n) => text.contains(&n.to_string()),
                _ => true,
            };
            (text, said)
        });
        let differ = pods[0].0 != pods[1].0 || value(leaf, 0) == value(leaf, 1);
        if !differ || !pods[0].1 || !pods[1].1 {
            lost.insert(format!("{}: {path}", step.verb()));
        }
    }
    assert!(lost.is_empty(), "{} of {} fields do not arrive: {lost:#?}", lost.len(), found.len() * all.len());
}

#[test]
fn what_is_elsewhere_is_a_field_and_refused() {
    for (field, _) in ELSEWHERE {
        let mut object = json!({ "metadata": { "name": "x", "namespace": "n" }, "spec": { "runtimeSettings": {} } });
        let (outer, inner) = field.split_once('.').unwrap();
        object["spec"]["runtimeSettings"][outer][inner] = json!({ "a": "b" });
        let errors = lifeboat::admission::check("RestoreSession", &object, None);
        assert!(errors.iter().any(|e| e.field.ends_with(field)), "{field}");
    }
}
