//! Every manifest in `examples/`: known kinds, no unknown field, right types and enums.
//!
//! The same strictness as `kubectl apply`, without a cluster.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use lifeboat::{api, yaml};
use serde_json::Value;

fn schemas() -> BTreeMap<(String, String), Value> {
    api::all_crds()
        .into_iter()
        .map(|crd| {
            let text = |p: &str| crd.pointer(p).and_then(Value::as_str).unwrap().to_owned();
            let version = format!("{}/{}", text("/spec/group"), text("/spec/versions/0/name"));
            let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap();
            ((version, text("/spec/names/kind")), schema)
        })
        .collect()
}

fn check(at: &str, value: &Value, schema: &Value, faults: &mut Vec<String>) {
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        faults.push(format!("{at}: {value} is none of {values:?}"));
    }
    if schema.get("x-kubernetes-int-or-string").is_some() {
        return;
    }
    let right = match schema.get("type").and_then(Value::as_str) {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64(),
        Some("boolean") => value.is_boolean(),
        Some("number") => value.is_number(),
        _ => true,
    };
    if !right {
        faults.push(format!("{at}: {value} is no {}", schema["type"]));
    }
    for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if value.get(required).is_none() {
            faults.push(format!("{at}: {required} is missing"));
        }
    }
    for (name, inner) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match (schema.pointer("/properties").and_then(|p| p.get(name)), schema.get("additionalProperties")) {
            (Some(property), _) => check(&at, inner, property, faults),
            (None, Some(any)) if any.is_object() => check(&at, inner, any, faults),
            _ if schema.get("x-kubernetes-preserve-unknown-fields").is_some() => {}
            _ => faults.push(format!("{at}: unknown field")),
        }
    }
    for (i, inner) in value.as_array().into_iter().flatten().enumerate() {
        check(&format!("{at}[{i}]"), inner, &schema["items"], faults);
    }
}

#[test]
fn every_example_fits_its_definition() {
    let schemas = schemas();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let readme = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut faults = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(readme.contains(&format!("({name})")), "{name} is not in examples/README.md");
        for object in yaml::read(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
            let (version, kind) = (text("apiVersion"), text("kind"));
            assert!(object["metadata"]["name"].is_string(), "{name}: kubectl apply needs a name");
            // Kinds of Kubernetes.
            if version == "v1" || version == "rbac.authorization.k8s.io/v1" {
                continue;
            }
            seen += 1;
            match schemas.get(&(version, kind.clone())) {
                Some(schema) => {
                    check(&format!("{name}: spec"), &object["spec"], &schema["properties"]["spec"], &mut faults);
                }
                None => faults.push(format!("{name}: {kind} is no kind of ours")),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen >= 9, "the examples are not all there");
}

#[test]
fn this_check_finds_faults() {
    let schema =
        &schemas()[&("stash.appscode.com/v1beta1".to_owned(), "RestoreBatch".to_owned())]["properties"]["spec"].clone();
    let mut faults = Vec::new();
    let wrong =
        serde_json::json!({ "driver": "Nonsense", "members": [{ "unknown": 1 }], "timeOut": 5, "repository": {} });
    check("spec", &wrong, schema, &mut faults);
    assert_eq!(faults.len(), 4, "{faults:?}");
}
