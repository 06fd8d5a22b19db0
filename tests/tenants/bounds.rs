//! Rows 1 and 7: objects that cost more to reconcile than to write.
//!
//! The definitions limit the objects. An object can be older than the limits, or bypass them, so the same objects are
//! also stored under definitions without limits.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::actors::{Role, refusal};
use super::cluster::eventually;
use super::installed::Webhook;
use super::jobs;
use super::scene::{Scene, leading};

/// The operator's limit in the chart is 512 MiB; half of it is left for the operator's other work.
const MEMORY_KIB: u64 = 256 * 1024;
/// All stored objects are judged within this time, on a busy machine and by a debug build.
const JUDGED_WITHIN: Duration = Duration::from_mins(1);

/// Paths outside of all mounts: the error for each path named every mount.
fn explosive(namespace: &str, paths: usize, mounts: usize) -> Value {
    let mounts: Vec<Value> =
        (0..mounts).map(|n| json!({ "name": "data", "mountPath": format!("/m{n}{}", "x".repeat(200)) })).collect();
    let mut session = jobs::session(namespace, &jobs::target("PersistentVolumeClaim", "a"));
    session["metadata"]["name"] = "explosive".into();
    session["spec"]["target"]["volumeMounts"] = mounts.into();
    session["spec"]["target"]["rules"] = json!([{ "paths": (0..paths).map(|n| format!("/q{n}")).collect::<Vec<_>>() }]);
    session
}

/// Two members: each path of one is compared with each path of the other.
fn crossed(namespace: &str, paths: usize) -> Value {
    let member = |name: &str| {
        let mut target = jobs::target("PersistentVolumeClaim", "a");
        target["alias"] = name.into();
        target["rules"] = json!([{ "paths": (0..paths).map(|n| format!("/data/{name}{n}")).collect::<Vec<_>>() }]);
        json!({ "target": target })
    };
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": "crossed", "namespace": namespace },
        "spec": { "repository": { "name": "repo" }, "members": [member("x"), member("y")] } })
}

/// 1.2 MB of patterns, with no work for the operator.
fn large(namespace: &str, n: usize) -> Value {
    let mut session = jobs::session(namespace, &jobs::target("PersistentVolumeClaim", "a"));
    session["metadata"]["name"] = format!("large-{n}").into();
    session["spec"]["cancel"] = true.into();
    let patterns: Vec<String> = (0..1200).map(|i| format!("{i}{}", "x".repeat(1000))).collect();
    session["spec"]["target"]["rules"] = json!([{ "snapshots": ["latest"], "include": patterns }]);
    session
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn the_definitions_refuse_what_is_too_much_to_look_at() {
    let scene = Scene::enter("much").await;
    let attacker = scene.attacker(Role::Restorer).await;
    for object in [explosive(&scene.a, 2000, 400), crossed(&scene.a, 2000), large(&scene.a, 0)] {
        let said = refusal(attacker.would_create(&object).await);
        assert!(said.contains("spec."), "the field is named: {said}");
        assert!(said.len() < 10_000, "{} bytes", said.len());
    }
}

/// Runs `body` with definitions without limits on lengths and counts, as in an older version.
async fn without_bounds<T>(scene: &Scene, body: impl Future<Output = T>) -> T {
    fn strip(schema: &mut Value) {
        if let Some(fields) = schema.as_object_mut() {
            fields.retain(|k, v| {
                let bound = ["maxItems", "maxLength", "maxProperties"].contains(&k.as_str()) && v.is_number();
                !bound && k != "x-kubernetes-validations"
            });
        }
        match schema {
            Value::Object(fields) => fields.values_mut().for_each(strip),
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    for mut crd in lifeboat::api::all_crds() {
        strip(&mut crd["spec"]["versions"]);
        scene.cluster.apply(&crd).await.unwrap();
    }
    let result = AssertUnwindSafe(body).catch_unwind().await;
    // Cleans up after every result, so that the next test finds the cluster unchanged.
    for kind in ["RestoreSession", "RestoreBatch"] {
        let api = scene.cluster.api("stash.appscode.com/v1beta1", kind, &scene.a);
        let none = json!({ "metadata": { "finalizers": null } });
        for left in api.list_metadata(&ListParams::default()).await.unwrap() {
            let _ = api.patch(&left.name_any(), &PatchParams::default(), &Patch::Merge(&none)).await;
            let _ = api.delete(&left.name_any(), &DeleteParams::default()).await;
        }
    }
    for crd in lifeboat::api::all_crds() {
        scene.cluster.apply(&crd).await.unwrap();
    }
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A memory figure of a process, in KiB.
fn memory(pid: u32, which: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the operator has ended");
    let line = status.lines().find(|l| l.starts_with(which)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Stores an object once the API server uses the new definitions.
async fn store(attacker: &super::actors::Actor, object: &Value) -> Value {
    eventually("stored", Duration::from_secs(30), || async {
        attacker.try_create(object).await.map_err(|e| e.to_string().chars().take(300).collect())
    })
    .await
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn an_object_that_explodes_harms_itself_alone() {
    let scene = Scene::alone("explodes").await;
    let attacker = scene.attacker(Role::Restorer).await;
    without_bounds(
        &scene,
        Box::pin(async {
            let all = [explosive(&scene.a, 2000, 400), crossed(&scene.a, 2000)];
            for object in &all {
                store(&attacker, object).await;
            }
            // The object exists when the operator starts, and again at the next start.
            for round in ["first", "second"] {
                let operator = leading(&scene, &[]).await;
                let victim = scene.victim(round).await;
                scene.goes_well(&victim).await;
                for object in &all {
                    eventually("it is invalid", JUDGED_WITHIN, || async {
                        let now = attacker.get(object).await;
                        let is = now["status"]["phase"] == "Invalid";
                        if is { Ok(()) } else { Err(format!("{}", now["status"]["phase"])) }
                    })
                    .await;
                    assert!(attacker.get(object).await["status"].to_string().len() < 20_000);
                }
                let peak = memory(operator.pid(), "VmHWM");
                assert!(peak < MEMORY_KIB, "{peak} KiB");
            }
        }),
    )
    .await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_few_large_objects_are_no_large_operator() {
    const OBJECTS: usize = 10;
    /// Growth allowed for 12 MB of stored objects.
    const MORE_KIB: u64 = 48 * 1024;
    let scene = Scene::alone("large").await;
    let attacker = scene.attacker(Role::Restorer).await;
    without_bounds(
        &scene,
        Box::pin(async {
            let operator = leading(&scene, &[]).await;
            let victim = scene.victim("before").await;
            scene.goes_well(&victim).await;
            let before = memory(operator.pid(), "VmRSS");
            for n in 0..OBJECTS {
                store(&attacker, &large(&scene.a, n)).await;
            }
            for n in 0..OBJECTS {
                let object = large(&scene.a, n);
                eventually("it is judged", JUDGED_WITHIN, || async {
                    let phase = attacker.get(&object).await["status"]["phase"].clone();
                    if phase.is_string() { Ok(()) } else { Err(phase.to_string()) }
                })
                .await;
            }
            let more = memory(operator.pid(), "VmRSS").saturating_sub(before);
            assert!(more < MORE_KIB, "{more} KiB more than {before}");
            let victim = scene.victim("after").await;
            scene.goes_well(&victim).await;
        }),
    )
    .await;
}

/// 230 KB of patterns that the definitions admit. The session waits for a Repository that never exists.
fn waiting(namespace: &str, n: usize) -> Value {
    let mut session = jobs::session(namespace, &jobs::target("PersistentVolumeClaim", "a"));
    session["metadata"]["name"] = format!("waits-{n:02}").into();
    let patterns: Vec<String> = (0..256).map(|i| format!("{i:03}{}", "x".repeat(900))).collect();
    session["spec"]["target"]["rules"] = json!([{ "snapshots": ["latest"], "include": patterns }]);
    session
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_namespace_has_so_many_bytes_and_what_is_beyond_is_refused_alone() {
    const OBJECTS: usize = 50;
    let scene = Scene::enter("full").await;
    let attacker = scene.attacker(Role::Restorer).await;
    let operator = leading(&scene, &[]).await;
    for n in 0..OBJECTS {
        attacker.create(&waiting(&scene.a, n)).await;
    }
    let victim = scene.victim("beside").await;
    scene.goes_well(&victim).await;
    let mut refused = 0;
    for n in 0..OBJECTS {
        let object = waiting(&scene.a, n);
        let judged = eventually("it is judged", JUDGED_WITHIN, || async {
            let now = attacker.get(&object).await;
            if now["status"]["phase"].is_string() { Ok(now) } else { Err(format!("{n}: {}", now["status"])) }
        })
        .await;
        let said = judged["status"].to_string();
        if judged["status"]["phase"] == "Invalid" {
            refused += 1;
            assert!(said.contains("ObjectTooLarge") && said.contains("8388608 are allowed"), "{said}");
            assert!(said.contains(&format!("Namespace {} would have", scene.a)), "{said}");
        }
    }
    // 36 of these objects together have 8 MiB.
    assert_eq!(refused, OBJECTS - 36);
    let peak = memory(operator.pid(), "VmHWM");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

/// A Job with our labels, or a Deployment, of 12,000 volumes each: 1 MB with managedFields, 36 MB as types of the API.
fn swollen(namespace: &str, kind: &str, n: usize) -> Value {
    let volumes: Vec<Value> = (0..12_000).map(|i| json!({ "name": format!("v{i}"), "emptyDir": {} })).collect();
    let pod = json!({ "restartPolicy": if kind == "Job" { "Never" } else { "Always" }, "volumes": volumes,
        "containers": [{ "name": "c", "image": "localhost/none:1" }] });
    let labels = json!({ "app": "x", lifeboat::names::label::SESSION_KIND: "RestoreSession" });
    let mut object = json!({ "apiVersion": "apps/v1", "kind": kind,
        "metadata": { "name": format!("swollen-{n}"), "namespace": namespace, "labels": labels },
        "spec": { "template": { "metadata": { "labels": { "app": "x" } }, "spec": pod } } });
    if kind == "Job" {
        object["apiVersion"] = "batch/v1".into();
        object["spec"]["suspend"] = true.into();
    } else {
        object["spec"]["replicas"] = 0.into();
        object["spec"]["selector"] = json!({ "matchLabels": { "app": "x" } });
    }
    object
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn the_largest_jobs_and_workloads_are_no_large_operator() {
    const OBJECTS: usize = 12;
    let scene = Scene::enter("swollen").await;
    let attacker = scene.attacker(Role::Edit).await;
    for kind in ["Job", "Deployment"] {
        for n in 0..OBJECTS {
            attacker.create(&swollen(&scene.a, kind, n)).await;
        }
    }
    // A session refers to a Deployment, so that the operator watches Deployments.
    let mut session = jobs::session(&scene.a, &jobs::target("Deployment", "swollen-0"));
    session["metadata"]["name"] = "asks".into();
    attacker.create(&session).await;
    // The objects exist when the operator starts.
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("beside").await;
    scene.goes_well(&victim).await;
    eventually("it is judged", JUDGED_WITHIN, || async {
        let phase = attacker.get(&session).await["status"]["phase"].clone();
        if phase.is_string() { Ok(()) } else { Err(phase.to_string()) }
    })
    .await;
    let peak = memory(operator.pid(), "VmHWM");
    for kind in ["Job", "Deployment"] {
        for n in 0..OBJECTS {
            attacker.delete(&swollen(&scene.a, kind, n)).await;
        }
    }
    println!("{} MiB", peak / 1024);
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

/// Any pod in the network can reach the webhook; this client also knows the path that the API server calls.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_pod_without_credentials_makes_no_large_answer() {
    let scene = Scene::enter("asks").await;
    let webhook = Webhook::install(&scene.cluster).await;
    let mut wrong = vec![];
    for (kind, object) in [
        ("restoresessions", explosive(&scene.a, 2000, 400)),
        ("restorebatches", crossed(&scene.a, 2000)),
        ("restoresessions", large(&scene.a, 0)),
    ] {
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": { "uid": "u", "operation": "CREATE", "namespace": scene.a, "object": object } });
        let body = review.to_string();
        let path = webhook.path("validate", kind);
        let began = Instant::now();
        let read = tokio::time::timeout(JUDGED_WITHIN, webhook.ask(&path, &body)).await;
        let (took, size) = (began.elapsed(), read.as_ref().map_or(0, String::len));
        if read.is_err() || took > Duration::from_secs(5) || size > 64 * 1024 {
            wrong.push(format!("{kind} of {} bytes: {size} bytes after {took:?}", body.len()));
        }
    }
    let peak = memory(webhook.operator.pid(), "VmHWM");
    webhook.remove(&scene.cluster).await;
    assert!(wrong.is_empty() && peak < MEMORY_KIB, "{peak} KiB; {wrong:#?}");
}
