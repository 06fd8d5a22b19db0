//! What gets installed: rights, webhooks and Pod security of the rendered chart.
//!
//! Reads `config/install.yaml`, so that no Helm is needed here; `make verify` proves that the chart renders this file.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use lifeboat::{names, yaml};
use serde_json::{Value, json};

fn installed() -> Vec<Value> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/install.yaml");
    yaml::read(&fs::read_to_string(file).unwrap()).unwrap()
}

fn of_kind(kind: &str) -> Vec<Value> {
    installed().into_iter().filter(|o| o["kind"] == kind).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn nobody_gets_a_wildcard() {
    for role in of_kind("ClusterRole").into_iter().chain(of_kind("Role")) {
        for rule in role["rules"].as_array().unwrap() {
            for key in ["apiGroups", "resources", "verbs"] {
                let items = texts(&rule[key]);
                assert!(
                    !items.is_empty() && !items.iter().any(|i| i.contains('*')),
                    "{}: {rule}",
                    role["metadata"]["name"]
                );
            }
        }
    }
}

#[test]
fn the_operator_cannot_list_secrets_or_make_itself_stronger() {
    let role = of_kind("ClusterRole").into_iter().find(|r| r["metadata"]["name"] == names::OPERATOR).unwrap();
    for rule in role["rules"].as_array().unwrap() {
        let verbs = texts(&rule["verbs"]);
        for resource in texts(&rule["resources"]) {
            if resource == "secrets" {
                assert_eq!(verbs, ["get"]);
            }
            let forbidden = ["pods/exec", "clusterrolebindings", "clusterroles", "serviceaccounts/token", "nodes"];
            assert!(!forbidden.contains(&resource.as_str()), "{resource}");
            // For the rights of one run. Without escalate and bind it gives no more than it has, and changes no other
            // role.
            if ["roles", "rolebindings", "serviceaccounts"].contains(&resource.as_str()) {
                // The operator lists bindings to find those that a run left behind.
                assert!(verbs == ["create", "delete"] || resource == "rolebindings" && verbs == ["list"], "{verbs:?}");
            }
            if resource.ends_with("webhookconfigurations") {
                assert_eq!(rule["resourceNames"], json!([names::OPERATOR]));
            }
        }
    }
}

#[test]
fn people_cannot_write_status() {
    for role in of_kind("ClusterRole").iter().filter(|r| r["metadata"]["name"] != names::OPERATOR) {
        for rule in role["rules"].as_array().unwrap() {
            assert!(texts(&rule["resources"]).iter().all(|r| !r.contains('/')), "{rule}");
        }
    }
}

#[test]
fn webhooks_never_block_the_cluster() {
    for (kind, verb, count) in
        [("MutatingWebhookConfiguration", "default", 5), ("ValidatingWebhookConfiguration", "validate", 7)]
    {
        let found = of_kind(kind);
        assert_eq!(found.len(), 1);
        let mut seen = BTreeSet::new();
        for hook in found[0]["webhooks"].as_array().unwrap() {
            assert_eq!(hook["failurePolicy"], "Ignore");
            assert_eq!(hook["sideEffects"], "None");
            assert!(hook["timeoutSeconds"].as_u64().unwrap() <= 2);
            assert!(hook["clientConfig"].get("caBundle").is_none(), "an upgrade would wipe what the operator wrote");
            let resources = texts(&hook["rules"][0]["resources"]);
            assert_eq!(resources.len(), 1);
            assert!(hook["clientConfig"]["service"].get("path").is_none(), "likewise");
            let begin = format!("{verb}.{}.", resources[0]);
            assert!(
                hook["name"].as_str().unwrap().starts_with(&begin),
                "the path is made of its name: {}",
                hook["name"]
            );
            assert_eq!(hook["rules"][0]["apiGroups"], json!([names::GROUP]));
            seen.insert(resources[0].clone());
        }
        assert_eq!(seen.len(), count);
        let kinds: BTreeSet<String> = lifeboat::api::all_crds()
            .iter()
            .filter(|c| c["spec"]["group"] == names::GROUP)
            .filter_map(|c| Some(c["spec"]["names"]["plural"].as_str()?.to_owned()))
            .collect();
        assert!(seen.is_subset(&kinds));
    }
}

#[test]
fn the_operator_fits_the_restricted_profile() {
    let pod = of_kind("Deployment")[0]["spec"]["template"]["spec"].clone();
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    let port = lifeboat::controller::process::http::ADDRESS.port();
    assert!(container["ports"].as_array().unwrap().iter().any(|p| p["name"] == "http" && p["containerPort"] == port));
}

/// The objects that the chart renders with `watchNamespaces: [team-a, team-b]`.
fn of_some() -> Vec<Value> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/namespaces.yaml");
    yaml::read(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Each group, resource and verb that a role grants.
fn rights(role: &Value) -> BTreeSet<[String; 3]> {
    let mut all = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                all.extend(texts(&rule["verbs"]).into_iter().map(|verb| [group.clone(), resource.clone(), verb]));
            }
        }
    }
    all
}

#[test]
fn an_operator_of_some_namespaces_has_two_rights_in_others() {
    let all = of_some();
    let named = |kind: &str, name: &str| {
        let found = all.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name);
        found.cloned().collect::<Vec<_>>()
    };
    let own = "lifeboat.lifeboat-system";
    let [cluster] = &named("ClusterRole", own)[..] else { panic!("one ClusterRole of the operator") };
    let mut across = 0;
    for rule in cluster["rules"].as_array().unwrap() {
        for resource in texts(&rule["resources"]) {
            match resource.as_str() {
                "backupblueprints" | "backupblueprints/status" | "subjectaccessreviews" => {}
                "namespaces" => assert_eq!(rule["resourceNames"], json!(["team-a", "team-b"])),
                "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
                    assert_eq!(rule["resourceNames"], json!([own]));
                }
                // What `rbac.acrossNamespaces` gives: to find shared data, and to release what is deleted.
                "repositories" if texts(&rule["verbs"]) == ["list"] => across += 1,
                "backupsessions" | "repositories" | "restorebatches" | "restoresessions"
                    if texts(&rule["verbs"]) == ["patch"] =>
                {
                    across += 1;
                }
                other => panic!("{other} is of a namespace, or too much"),
            }
        }
    }
    assert_eq!(across, 5);
    let roles = named("Role", own);
    assert_eq!(roles.iter().map(|r| &r["metadata"]["namespace"]).collect::<Vec<_>>(), ["team-a", "team-b"]);
    // Together they have exactly the rights of an operator of all namespaces.
    let whole = of_kind("ClusterRole").into_iter().find(|r| r["metadata"]["name"] == names::OPERATOR).unwrap();
    for role in &roles {
        let parts = &rights(role) | &rights(cluster);
        assert_eq!(parts, rights(&whole));
        assert_eq!((&rights(role) & &rights(cluster)).len(), across);
    }
    for binding in all.iter().filter(|o| o["kind"].as_str().unwrap().ends_with("Binding")) {
        let subject = json!([{ "kind": "ServiceAccount", "name": "lifeboat", "namespace": "lifeboat-system" }]);
        assert_eq!(binding["subjects"], subject, "{binding}");
        let in_cluster = binding["kind"] == "ClusterRoleBinding";
        assert_eq!(binding["roleRef"]["kind"], if in_cluster { "ClusterRole" } else { "Role" });
    }
}

/// Two operators in one cluster: their cluster-scoped objects have different names, and no object is reviewed twice.
#[test]
fn operators_of_some_namespaces_stand_beside_each_other() {
    let all = of_some();
    for object in all.iter().filter(|o| o["metadata"].get("namespace").is_none()) {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("lifeboat.lifeboat-system"), "{} {name}", object["kind"]);
    }
    let mut count = 0;
    for configuration in all.iter().filter(|o| o["kind"].as_str().unwrap().ends_with("WebhookConfiguration")) {
        for hook in configuration["webhooks"].as_array().unwrap() {
            count += 1;
            let of = json!({ "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a", "team-b"] }] });
            assert_eq!(hook["namespaceSelector"], of, "{}", hook["name"]);
        }
    }
    assert_eq!(count, 12);
    let deployment = all.iter().find(|o| o["kind"] == "Deployment").unwrap();
    let env = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
    for (name, value) in [
        ("LIFEBOAT_WATCH_NAMESPACES", "team-a,team-b"),
        ("LIFEBOAT_WEBHOOK_CONFIGURATIONS", "lifeboat.lifeboat-system"),
    ] {
        assert!(env.as_array().unwrap().contains(&json!({ "name": name, "value": value })), "{name}");
    }
}

#[test]
fn a_namespace_that_cannot_be_one_is_refused_at_the_start() {
    let mut operator = std::process::Command::new(env!("CARGO_BIN_EXE_lifeboat"));
    let out = operator.args(["operator", "--job-image", "i", "--watch-namespaces", "team-a,Team_B"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success());
    assert!(said.contains("--watch-namespaces") && said.contains("\"Team_B\" is not the name"), "{said}");
}
