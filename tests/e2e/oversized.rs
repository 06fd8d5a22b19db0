//! Objects as large as the definitions and the webhook allow, and larger.

use lifeboat::admission::bounds;
use serde_json::{Value, json};

#[allow(dead_code, reason = "shared with a bench and the fuzz targets")]
#[path = "../../src/fuzz/worst.rs"]
mod worst;

/// The worst objects that the definitions admit, which a rule rejects.
pub fn worst() -> Vec<Value> {
    let mut all = vec![];
    for kind in ["RestoreSession", "RestoreBatch"] {
        let spec = lifeboat::api::spec_of(kind).unwrap();
        let at = |p: &str| if kind == "RestoreBatch" { format!("spec.members[].{p}") } else { format!("spec.{p}") };
        for (grown, text) in [
            (["target.volumeMounts", "target.rules[].paths"], worst::Text::Fitting),
            (["target.volumeMounts", "target.rules[].paths"], worst::Text::Astray),
            (["target.rules", "target.rules[].include"], worst::Text::Long),
            (["target.rules", "target.rules[].targetHosts"], worst::Text::Fitting),
        ] {
            for outer in [1, 16] {
                let shape = worst::Shape { grown: grown.map(at).to_vec(), outer, text };
                all.push(worst::largest(kind, &spec, &shape, |o| bounds::check(kind, o).is_ok()));
            }
        }
    }
    assert!(all.iter().all(|o| o.to_string().len() > 2_000), "one is not large");
    all
}

/// Valid objects of the largest size. The operator checks them for as long as their workload does not exist.
pub fn large() -> Vec<Value> {
    const PADDING: usize = 200;
    let padding = "x".repeat(PADDING);
    let mounts = |n: usize| -> Vec<Value> {
        (0..n.min(100)).map(|i| json!({ "name": "data", "mountPath": format!("/m{i}{padding}") })).collect()
    };
    let target = |alias: &str, n: usize, rule: Value| {
        json!({ "alias": alias, "ref": { "apiVersion": "apps/v1", "kind": "Deployment", "name": alias },
            "volumeMounts": mounts(n), "rules": [rule] })
    };
    let paths = |of: &str, n: usize| -> Vec<String> {
        (0..n).map(|i| format!("/m{}{padding}/{of}{i}", i % n.min(100))).collect()
    };
    let object =
        |kind: &str, spec: Value| json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": kind, "spec": spec });
    let session =
        |target: Value| object("RestoreSession", json!({ "repository": { "name": "repo" }, "target": target }));
    let batch = |n: usize, each: usize| {
        let members = (0..n).map(|m| {
            let alias = format!("a{m}");
            json!({ "target": target(&alias, each, json!({ "paths": paths(&alias, each) })) })
        });
        object("RestoreBatch", json!({ "repository": { "name": "repo" }, "members": members.collect::<Vec<_>>() }))
    };
    let shapes: [&dyn Fn(usize) -> Value; 4] = [
        &|n| session(target("a", n, json!({ "paths": paths("a", n) }))),
        &|n| session(target("a", 1, json!({ "snapshots": ["latest"], "include": paths("a", n) }))),
        &|n| batch(2, n),
        &|n| batch(100, n / 16),
    ];
    let largest = |shape: &dyn Fn(usize) -> Value| {
        let all = (1..=64).rev().map(|n| shape(n * 16));
        all.into_iter().find(|o| bounds::check(o["kind"].as_str().unwrap(), o).is_ok()).expect("one fits")
    };
    shapes.map(largest).to_vec()
}
