//! Objects that are made to be expensive: each is refused at once, in few words, by both checks and by the webhook.

use std::time::{Duration, Instant};

use lifeboat::admission::{check, default, message, review};
use serde_json::{Value, json};

/// A long limit, because tests share a machine and are not optimised: without bounds, a check took many times as long.
const SOON: Duration = Duration::from_mins(1);
/// Bytes of a response of the webhook: 20 mistakes, each reported twice (in the message and as a cause).
const ANSWER: usize = 40_000;

fn mounts(count: usize, pad: usize) -> Vec<Value> {
    (0..count).map(|i| json!({ "name": "v", "mountPath": format!("/m{i}{}", "x".repeat(pad)) })).collect()
}

fn paths(count: usize, folder: &str) -> Vec<String> {
    (0..count).map(|i| format!("{folder}{i}")).collect()
}

fn session(mounts: Vec<Value>, paths: Vec<String>) -> Value {
    let reference = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "d" });
    json!({ "metadata": { "name": "x" }, "spec": { "repository": { "name": "r" },
        "target": { "ref": reference, "volumeMounts": mounts, "rules": [{ "paths": paths }] } } })
}

/// Members of one target, each with a rule of `hosts` hosts.
fn batch(members: usize, paths_each: usize, hosts: usize) -> Value {
    let members: Vec<Value> = (0..members)
        .map(|m| {
            let hosts = if hosts == 0 { vec![] } else { paths(hosts, &format!("a{m}-")) };
            json!({ "target": { "alias": format!("a{m}"), "ref": { "kind": "DaemonSet", "name": "d" },
                "volumeMounts": [{ "name": "v", "mountPath": "/m" }],
                "rules": [{ "paths": paths(paths_each, &format!("/m/{m}-")), "targetHosts": hosts }] } })
        })
        .collect();
    json!({ "metadata": { "name": "x" }, "spec": { "repository": { "name": "r" }, "members": members } })
}

/// The message of both checks and of the webhook. Fails unless the time and the length of the response are bounded.
fn told(kind: &str, object: &Value) -> String {
    let begun = Instant::now();
    let mut defaulted = object.clone();
    default(kind, &mut defaulted);
    let errors = check(kind, object, None);
    let text = message(&errors);
    assert!(errors.len() <= 20 && text.len() <= ANSWER / 2, "{} errors, {} bytes", errors.len(), text.len());
    assert_eq!(text, message(&check(kind, &defaulted, None)));
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "namespace": "n", "object": object } });
    for answer in [review::mutate(kind, &review), review::validate(kind, &review, None)] {
        let answer = answer.unwrap().to_string();
        assert!(answer.len() <= ANSWER, "{} bytes", answer.len());
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    text
}

/// The payload that killed an operator of 512 MiB: 2000 paths, 400 mounts, 110 KB.
#[test]
fn many_paths_and_mounts_are_refused_at_once() {
    let text = told("RestoreSession", &session(mounts(400, 200), paths(2000, "/q")));
    assert_eq!(text, "spec.target.volumeMounts: has 400 items; 100 are possible");
    let text = told("RestoreSession", &session(mounts(100, 200), paths(2000, "/q")));
    assert_eq!(text, "spec.target.rules[0].paths: has 2000 items; 256 are possible");
}

/// As large as the limits allow, with every path outside of every mount.
#[test]
fn a_mistake_names_few_of_many_mounts() {
    let text = told("RestoreSession", &session(mounts(100, 200), paths(256, "/q")));
    assert!(text.contains(" and 90 more)") && text.ends_with("has 237 more mistakes, which are not listed"), "{text}");
    let backup = json!({ "spec": { "repository": { "name": "r" }, "retentionPolicy": { "name": "k", "prune": false },
        "target": { "ref": { "kind": "Deployment", "name": "d" }, "volumeMounts": mounts(100, 200), "paths": paths(256, "/q") } } });
    let text = told("BackupConfiguration", &backup);
    assert!(text.contains(" and 90 more)") && text.contains("237 more"), "{text}");
}

/// Two members of 1000 and 2000 paths took 13 and 46 seconds; a hundred with the largest number of paths.
#[test]
fn many_paths_of_members_of_one_target_are_compared_at_once() {
    assert!(told("RestoreBatch", &batch(2, 2000, 0)).contains("256 are possible"));
    assert_eq!(told("RestoreBatch", &batch(2, 256, 0)), "");
    assert_eq!(told("RestoreBatch", &batch(30, 256, 0)), "");
    assert!(told("RestoreBatch", &batch(20, 250, 200)).contains("1000000 pairs of a path and a host"));
    let mut alike = batch(30, 256, 0);
    for member in alike["spec"]["members"].as_array_mut().unwrap() {
        member["target"]["rules"][0]["paths"] = json!(paths(256, "/m/"));
    }
    assert!(told("RestoreBatch", &alike).contains("at the same time as member"));
}

#[test]
fn lists_of_names_that_are_given_twice_are_told_at_once() {
    let named = json!({ "spec": { "backupBatch": { "name": "b", "members": vec!["a"; 5_000] } } });
    assert!(told("RestoreBatch", &named).contains("has 5000 items; 100 are possible"));
    let named = json!({ "spec": { "backupBatch": { "name": "b", "members": vec!["a"; 100] } } });
    assert!(told("RestoreBatch", &named).contains("has 80 more mistakes"));
}

#[test]
fn rules_in_two_dialects_are_not_repeated_at_length() {
    let mut object = session(mounts(1, 0), paths(256, "/m0/"));
    object["spec"]["rules"] = json!([{ "paths": paths(255, "/m0/other/") }]);
    assert!(told("RestoreSession", &object).ends_with("keep the rules below the target"));
}

/// Bodies of any shape, as any pod can post them: of any size, depth or number of values.
#[test]
fn any_json_is_answered_at_once() {
    let deep =
        (0..120).fold(json!({}), |inner, i| if i % 2 == 0 { json!([inner]) } else { json!({ "members": inner }) });
    let wide = json!({ "members": vec![json!({}); 30_000] });
    let long = json!({ "target": { "alias": "x".repeat(1 << 20) } });
    let unknown = json!({ "unknown": vec![json!([]); 30_000], "driver": "y".repeat(200_000) });
    let keys: serde_json::Map<String, Value> = (0..30_000).map(|i| (format!("k{i}"), json!({}))).collect();
    let keys = json!({ "runtimeSettings": { "pod": { "podLabels": keys } }, "backend": { "local": { "k".repeat(9999): {} } } });
    for kind in ["Repository", "RestoreBatch", "Task"] {
        for spec in [&deep, &wide, &long, &unknown, &keys, &json!(vec![0; 30_000]), &json!("z".repeat(1 << 20))] {
            let object = json!({ "metadata": { "name": "x" }, "spec": spec });
            assert_ne!(told(kind, &object), "", "{kind}");
        }
    }
}

/// A finalizer can be removed, and a label set, however large the stored object is.
#[test]
fn an_oversized_object_whose_spec_stays_is_let_through() {
    let old = session(mounts(400, 200), paths(2000, "/q"));
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({ "a": "b" });
    let mut changed = new.clone();
    changed["spec"]["timeOut"] = "1h".into();
    for (object, allowed) in [(&new, true), (&changed, false)] {
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "u", "operation": "UPDATE", "namespace": "n", "object": object, "oldObject": old } });
        assert!(review::mutate("RestoreSession", &review).unwrap()["response"].get("patch").is_none());
        assert_eq!(review::validate("RestoreSession", &review, None).unwrap()["response"]["allowed"], allowed);
    }
}
