//! Checks after an end-to-end run: which rights each account has used, and whether a secret appears anywhere.
//!
//! Run by `make test-e2e` after its tests, on the cluster that they ran on. Reads the audit log, which has every
//! request, and the records of `tests/e2e/watchman.rs`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use kube::{Api, Client};
use serde_json::Value;

const OPERATOR: &str = "system:serviceaccount:lifeboat-system:lifeboat";
const HOME: &str = "lifeboat-system";
/// User agent of a test that tries what an account may do.
const TEST: &str = "lifeboat-test";

/// Rights that need no request of the operator, with the reason for the right: resource, verb, reason.
const NOT_SEEN: &[(&str, &str, &str)] = &[
    (
        "*/finalizers",
        "update",
        "the admission plugin OwnerReferencesPermissionEnforcement asks for it, without a request",
    ),
    ("snapshots", "*", "held only to be given to Jobs, whose use of it is looked for instead"),
    ("snapshots/status", "*", "held only to be given to Jobs, whose use of it is looked for instead"),
    ("backupbatches", "get", "only where the watch is behind what names it"),
    ("backupconfigurations", "get", "only where the watch is behind what names it"),
    ("backupsessions", "get", "only where a session that is to be made is there already"),
    (
        "namespaces",
        "get",
        "only where the watch does not come up, and for the webhook where a policy selects by labels",
    ),
    ("daemonsets", "get", "restored on two nodes (two_nodes.rs), whose cluster has a log of its own"),
    ("replicasets/status", "patch", "left down by tests/api/held.rs, whose API server has a log of its own"),
    ("replicationcontrollers/status", "patch", "as above"),
    ("statefulsets/status", "patch", "as above"),
    ("secrets", "update", "of the webhook's own certificate, when it is renewed"),
];

/// One verb on one kind of object.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Right {
    group: String,
    /// With the subresource after a slash.
    resource: String,
    verb: String,
    /// The namespace of the right; empty for all namespaces.
    namespace: String,
    /// The names of the right; empty for all names.
    names: Vec<String>,
}

/// One request.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Used {
    user: String,
    group: String,
    resource: String,
    verb: String,
    namespace: String,
    name: String,
    refused: bool,
}

impl Right {
    fn covers(&self, used: &Used) -> bool {
        let named = |n: &String| *n == used.name;
        (&self.group, &self.resource, &self.verb) == (&used.group, &used.resource, &used.verb)
            && (self.namespace.is_empty() || self.namespace == used.namespace)
            && (self.names.is_empty() || self.names.iter().any(named))
    }
}

fn expanded(rules: &[PolicyRule], namespace: &str) -> Vec<Right> {
    let mut rights = vec![];
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    rights.push(Right {
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        namespace: namespace.to_owned(),
                        names: rule.resource_names.clone().unwrap_or_default(),
                    });
                }
            }
        }
    }
    rights
}

/// Rights that were never used.
fn unused<'r>(rights: &'r [Right], uses: &[Used]) -> Vec<&'r Right> {
    rights.iter().filter(|r| !uses.iter().any(|u| !u.refused && r.covers(u))).collect()
}

fn is_excused(right: &Right) -> bool {
    let of = |pattern: &str| match pattern.strip_prefix('*') {
        Some(end) => right.resource.ends_with(end),
        None => right.resource == pattern,
    };
    NOT_SEEN.iter().any(|(resource, verb, _)| of(resource) && (*verb == "*" || *verb == right.verb))
}

/// A line of the audit log as a use of a right; `None` for a request that is not about objects.
fn used(line: &Value) -> Option<Used> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let object = line.get("objectRef")?;
    let sub = text(&object["subresource"]);
    let resource = text(&object["resource"]);
    Some(Used {
        user: text(&line["user"]["username"]),
        group: text(&object["apiGroup"]),
        resource: if sub.is_empty() { resource } else { format!("{resource}/{sub}") },
        verb: text(&line["verb"]),
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        refused: line["annotations"]["authorization.k8s.io/decision"] == "forbid",
    })
}

fn logs() -> PathBuf {
    let state = std::env::var("LIFEBOAT_CLUSTER_STATE").expect("LIFEBOAT_CLUSTER_STATE is not set: run make test-e2e");
    PathBuf::from(state).join("logs")
}

/// Calls `each` with every line of the audit log, closed files first.
fn audit(mut each: impl FnMut(&str)) {
    let name = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().into_owned();
    let all = fs::read_dir(logs()).unwrap().map(|e| e.unwrap().path());
    let files: Vec<PathBuf> = all.filter(|p| name(p).starts_with("audit")).collect();
    assert!(!files.is_empty(), "there is no audit log");
    for file in files {
        BufReader::new(File::open(file).unwrap()).lines().for_each(|line| each(&line.unwrap()));
    }
}

#[tokio::test]
#[ignore = "needs the record of a run: make test-e2e"]
async fn d11_each_right_is_used_and_each_that_is_used_is_granted() {
    let client = Client::try_default().await.unwrap();
    let cluster = Api::<ClusterRole>::all(client.clone()).get("lifeboat").await.unwrap();
    let home = Api::<Role>::namespaced(client, HOME).get("lifeboat").await.unwrap();
    let mut rights = expanded(&cluster.rules.unwrap_or_default(), "");
    rights.extend(expanded(&home.rules.unwrap_or_default(), HOME));
    assert!(rights.iter().all(|r| ![&r.group, &r.resource, &r.verb].iter().any(|w| w.contains('*'))), "a wildcard");

    let (mut by_operator, mut by_jobs) = (BTreeSet::new(), BTreeSet::new());
    let mut given: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    // Rights of Jobs have the name of the Job's account. They are deleted with their purpose, perhaps before the Job
    // ends.
    let mut withdrawn: BTreeSet<String> = BTreeSet::new();
    audit(|line| {
        if !line.contains("system:serviceaccount:") {
            return;
        }
        // The last line may be incomplete.
        let Ok(line) = serde_json::from_str::<Value>(line) else { return };
        let Some(mut used) = used(&line) else { return };
        match (used.resource.as_str(), used.verb.as_str(), used.refused) {
            ("roles" | "rolebindings", "delete", false) => drop(withdrawn.insert(used.name.clone())),
            ("rolebindings", "create", false) => drop(withdrawn.remove(&used.name)),
            _ => {}
        }
        if used.user == OPERATOR {
            if (used.resource.as_str(), used.verb.as_str()) == ("roles", "create") {
                for rule in line["requestObject"]["rules"].as_array().into_iter().flatten() {
                    let rule: PolicyRule = serde_json::from_value(rule.clone()).unwrap();
                    for right in expanded(&[rule], "") {
                        given.entry((right.group, right.resource)).or_default().insert(right.verb);
                    }
                }
            }
            if used.namespace != HOME {
                (used.namespace, used.name) = (String::new(), String::new());
            }
            by_operator.insert(used);
        } else if !used.user.starts_with("system:serviceaccount:kube-system:") && line["userAgent"] != TEST {
            let account = used.user.rsplit(':').next().unwrap_or_default();
            if used.refused && withdrawn.contains(account) {
                return;
            }
            (used.namespace, used.name, used.user) = (String::new(), String::new(), String::new());
            by_jobs.insert(used);
        }
    });
    // The operator's own webhook configurations have no namespace, but a name: those rules are for one name.
    rights.iter_mut().filter(|r| r.group == "admissionregistration.k8s.io").for_each(|r| r.names.clear());
    let by_operator: Vec<Used> = by_operator.into_iter().collect();
    let refused: Vec<&Used> = by_operator.iter().chain(&by_jobs).filter(|u| u.refused).collect();
    assert!(refused.is_empty(), "used, and not granted: {refused:#?}");

    let idle: Vec<&Right> = unused(&rights, &by_operator).into_iter().filter(|r| !is_excused(r)).collect();
    assert!(idle.is_empty(), "granted, and never used: {idle:#?}");

    assert!(!given.is_empty(), "no Job was given a right");
    for ((group, resource), verbs) in given {
        for verb in verbs {
            // An apply that creates an object needs `create`, and is logged as a patch.
            let seen = if verb == "create" { "patch" } else { verb.as_str() };
            let is = |u: &Used| (&u.group, &u.resource, u.verb.as_str()) == (&group, &resource, seen);
            assert!(by_jobs.iter().any(is), "given to Jobs, and never used: {verb} {resource} ({group})");
        }
    }
}

/// Proves: D11.
#[test]
#[ignore = "needs the record of a run: make test-e2e"]
fn planted_secrets_are_found_nowhere() {
    let seen: Value = serde_json::from_slice(&fs::read(logs().join("planted.json")).unwrap()).unwrap();
    let count = |key: &str| seen[key].as_u64().unwrap();
    println!("processes {}, of restic {}, bytes of logs {}", count("processes"), count("restic"), count("logBytes"));
    assert!(count("restic") > 10 && count("processes") > 20 && count("logBytes") > 10_000, "{seen:#}");
    assert_eq!(seen["found"], serde_json::json!([]), "secrets were shown");

    let planted: Vec<&str> = seen["planted"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert_eq!(planted.len(), 6);
    let (mut found, mut bodies) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    audit(|line| {
        for secret in planted.iter().filter(|s| line.contains(**s)) {
            found.insert(format!("{secret}: {line}"));
        }
        if line.contains("\"requestObject\"") {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            *bodies.entry(line["objectRef"]["resource"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    });
    // Other logs of the cluster; the S3 server receives its key as an argument, and is not part of Lifeboat.
    for entry in fs::read_dir(logs()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|e| e == "log") && !name.starts_with("audit") && !name.starts_with("s3") {
            let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            found.extend(planted.iter().filter(|s| text.contains(**s)).map(|s| format!("{s} in {name}")));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    for what in ["jobs", "pods", "events", "restoresessions", "restorebatches", "backupsessions", "snapshots"] {
        assert!(bodies.get(what).is_some_and(|n| *n > 0), "no body of {what} is in the audit log: {bodies:?}");
    }
}

mod tests {
    use super::*;

    fn right(resource: &str, verb: &str, namespace: &str, names: &[&str]) -> Right {
        Right {
            group: String::new(),
            resource: resource.into(),
            verb: verb.into(),
            namespace: namespace.into(),
            names: names.iter().map(ToString::to_string).collect(),
        }
    }

    fn request(line: &str) -> Used {
        used(&serde_json::from_str(line).unwrap()).unwrap()
    }

    #[test]
    fn a_right_that_nobody_used_is_found() {
        let used = request(
            r#"{"verb": "get", "user": {"username": "u"}, "objectRef": {"resource": "secrets", "namespace": "a", "name": "n"},
                "annotations": {"authorization.k8s.io/decision": "allow"}}"#,
        );
        let rights = [
            right("secrets", "get", "", &[]),
            right("secrets", "get", "a", &["n"]),
            right("secrets", "get", "b", &[]),
            right("secrets", "get", "a", &["m"]),
            right("secrets", "list", "", &[]),
            right("secrets/status", "get", "", &[]),
        ];
        assert_eq!(unused(&rights, std::slice::from_ref(&used)), rights[2..].iter().collect::<Vec<_>>());
        let refused = Used { refused: true, ..used };
        assert_eq!(unused(&rights, &[refused]).len(), rights.len(), "what is refused is no use of a right");
    }

    #[test]
    fn a_refusal_and_a_subresource_are_read() {
        let used = request(
            r#"{"verb": "patch", "user": {"username": "u"},
                "objectRef": {"resource": "deployments", "subresource": "scale", "apiGroup": "apps"},
                "annotations": {"authorization.k8s.io/decision": "forbid"}}"#,
        );
        assert_eq!((used.resource.as_str(), used.group.as_str(), used.refused), ("deployments/scale", "apps", true));
    }

    #[test]
    fn only_what_is_excused_is_excused() {
        assert!(is_excused(&right("restoresessions/finalizers", "update", "", &[])));
        assert!(is_excused(&right("snapshots", "list", "", &[])));
        assert!(!is_excused(&right("secrets", "get", "", &[])));
        assert!(!is_excused(&right("backupsessions", "delete", "", &[])));
        assert!(!is_excused(&right("deployments/scale", "patch", "", &[])));
    }
}
