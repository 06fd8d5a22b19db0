//! Limits of specs: every list, map and string has a limit.
//!
//! One pass over the generated schema sets the limit of every node: the default of its type, or an exception by the
//! end of its path. So new fields always have a limit. `admission::bounds` checks objects against the same schema.
//! Status is written by the operator, and is not limited here.

use serde_json::{Map, Value, json};

/// Characters of a string: a Kubernetes name has up to 253, a label with its prefix up to 317.
const LENGTH: u64 = 1024;
/// Items of a list, such as tolerations, mounts or arguments.
const ITEMS: u64 = 100;
/// Entries of a map, such as labels or annotations.
const ENTRIES: u64 = 100;

/// Bytes of a path on Linux (PATH_MAX).
const PATH: u64 = 4096;
/// Strings with free content: a script, a certificate, an annotation.
const CONTENT: u64 = 16_384;
/// Paths or patterns of one rule. Each path is searched in snapshots, and each pattern is an argument of restic.
const PATHS: u64 = 256;
/// Rules of one target, enough for a rule per host.
const RULES: u64 = 256;
/// Hosts of one rule: the maximum number of replicas (`validate::templates`).
const HOSTS: u64 = 1000;

/// Fields whose limit differs from the limit of their type, by the end of their path. `[]` is an item of a list, `{}`
/// the value of a map. The first match applies.
const EXCEPTIONS: &[(&str, u64)] = &[
    // Each member has one or more Jobs, and an entry in status.
    ("spec.members", 100),
    ("backupBatch.members", 100),
    // Each template creates a PVC per replica.
    ("volumeClaimTemplates", 20),
    ("rules", RULES),
    ("targetHosts", HOSTS),
    ("paths", PATHS),
    ("snapshots", PATHS),
    ("include", PATHS),
    ("exclude", PATHS),
    ("env", 250),
    ("target.args[]", PATH),
    ("paths[]", PATH),
    ("include[]", PATH),
    ("exclude[]", PATH),
    ("path", PATH),
    ("mountPath", PATH),
    ("subPath", PATH),
    ("subPathExpr", PATH),
    ("workingDir", PATH),
    ("value", CONTENT),
    ("form[].values[]", CONTENT),
    ("body", CONTENT),
    ("command[]", CONTENT),
    ("args[]", CONTENT),
    ("gmsaCredentialSpec", CONTENT),
    ("message", CONTENT),
    ("annotations{}", CONTENT),
    ("podAnnotations{}", CONTENT),
    ("serviceAccountAnnotations{}", CONTENT),
];

/// Whether a path ends with these fields.
fn ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

fn limit(path: &str, default: u64) -> u64 {
    EXCEPTIONS.iter().find(|(end, _)| ends_with(path, end)).map_or(default, |(_, limit)| *limit)
}

/// Sets the limit of every node below a schema. A lower limit that is already set is kept.
pub fn apply(path: &str, schema: &mut Value) {
    let Some(node) = schema.as_object_mut() else { return };
    let is = |node: &Map<String, Value>, name: &str| node.get("type").and_then(Value::as_str) == Some(name);
    let number_or_text = node.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    if (is(node, "string") && !node.contains_key("enum")) || number_or_text {
        put(node, "maxLength", limit(path, LENGTH));
    } else if is(node, "array") {
        put(node, "maxItems", limit(path, ITEMS));
    } else if node.get("additionalProperties").is_some_and(Value::is_object) {
        put(node, "maxProperties", limit(path, ENTRIES));
    }
    if let Some(items) = node.get_mut("items") {
        apply(&format!("{path}[]"), items);
    }
    if let Some(values) = node.get_mut("additionalProperties") {
        apply(&format!("{path}{{}}"), values);
    }
    for (name, field) in node.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        apply(&format!("{path}.{name}"), field);
    }
}

fn put(node: &mut Map<String, Value>, key: &str, limit: u64) {
    let lower = node.get(key).and_then(Value::as_u64).is_some_and(|given| given < limit);
    if !lower {
        node.insert(key.to_owned(), json!(limit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_is_whole_fields() {
        assert!(ends_with("spec.members", "spec.members") && ends_with("spec.target.rules[].paths", "paths"));
        assert!(!ends_with("spec.other.members", "spec.members") && !ends_with("spec.subpaths", "paths"));
        assert!(!ends_with("spec.paths[]", "paths"));
    }

    #[test]
    fn every_exception_is_of_a_field() {
        fn paths(path: &str, schema: &Value, all: &mut Vec<String>) {
            all.push(path.to_owned());
            if let Some(items) = schema.get("items") {
                paths(&format!("{path}[]"), items, all);
            }
            if let Some(values) = schema.get("additionalProperties") {
                paths(&format!("{path}{{}}"), values, all);
            }
            for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                paths(&format!("{path}.{name}"), field, all);
            }
        }
        let mut all = vec![];
        for crd in crate::api::all_crds() {
            if let Some(spec) = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec") {
                paths("spec", spec, &mut all);
            }
        }
        for (end, _) in EXCEPTIONS {
            assert!(all.iter().any(|path| ends_with(path, end)), "{end} is of no field");
        }
    }
}
