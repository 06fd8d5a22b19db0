//! Attacks by tenants, on a node: real pods run what the attackers specify.
//!
//! `tests/tenants/` plays the same attacks without a node, and more of them. Here the tests compare the victim's data,
//! and check what a revoked right still allows. Attackers are users that kubectl impersonates, bound to one namespace,
//! so the API server's own RBAC and the installed webhook decide what they can write.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use lifeboat::contract::restic::{Counts, PinnedSnapshot, Pins, Restored};
use lifeboat::contract::{Answer, Class, Did, Failure, Found, Outcome, Part, VERSION};
use lifeboat::names::{annotation, label};
use serde_json::{Value, json};

use super::elsewhere::{allow, as_bearer, code, no_rights_left, of};
use super::faults::WEBHOOK;
use super::harness::{Site, condition, eventually, phase};
use super::manifests::{LATEST, backup_session, of_claim, repository, restore, store, store_at};
use super::oversized;
use super::proxy::Proxy;
use super::store::{assert_tree, back_up, prepared, prepared_behind_a_proxy, quick_store, seed, wipe};

/// The count that forged restores report.
const LIE: u64 = 4711;
/// The text that forged failures report.
const TEXT: &str = "MALLORY WAS HERE";
/// Seconds within which a right is revoked, on a busy machine.
const TAKEN_BACK: u64 = 20;

/// A user with rights in one namespace, and none elsewhere.
struct Tenant<'s> {
    site: &'s Site,
    user: String,
}

impl<'s> Tenant<'s> {
    /// A tenant with Kubernetes' `edit`, and what the chart adds to it.
    async fn edit(site: &'s Site) -> Self {
        Self::bound(site, "edit", json!({ "kind": "ClusterRole", "name": "edit" })).await
    }

    /// A tenant that may create and read restores, and nothing else.
    async fn restorer(site: &'s Site) -> Self {
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": { "name": "restorer" },
            "rules": [{ "apiGroups": ["stash.appscode.com"], "resources": ["restoresessions", "restorebatches"],
                "verbs": ["create", "get", "list"] }] });
        site.create(&role.to_string()).await;
        Self::bound(site, "restorer", json!({ "kind": "Role", "name": "restorer" })).await
    }

    async fn bound(site: &'s Site, name: &str, role: Value) -> Self {
        let (group, user) = ("rbac.authorization.k8s.io", format!("{name}-{}", site.namespace));
        let mut role = role;
        role["apiGroup"] = group.into();
        let binding = json!({ "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": { "name": name },
            "roleRef": role, "subjects": [{ "apiGroup": group, "kind": "User", "name": user }] });
        site.create(&binding.to_string()).await;
        let tenant = Self { site, user };
        let known = eventually(20, async || tenant.can("create", "restoresessions", &site.namespace).then_some(()));
        assert!(known.await.is_some(), "{} may do nothing", tenant.user);
        tenant
    }

    /// Whether the API server allows this to the tenant.
    fn can(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        self.run(&["--namespace", namespace, "auth", "can-i", verb, resource]).is_ok()
    }

    /// What kubectl prints for the tenant, or its error.
    fn run(&self, words: &[&str]) -> Result<String, String> {
        let out = self.site.kubectl_command(&["--as", &self.user]).args(words).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr) + &text(&out.stdout)) }
    }

    fn try_create(&self, yaml: &str, more: &[&str]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), yaml).unwrap();
        self.run(&[&["create", "-f", file.path().to_str().unwrap()], more].concat())
    }

    /// Creates what the attack needs. The tenant's right to do so is part of the attack.
    fn create(&self, yaml: &str) {
        if let Err(said) = self.try_create(yaml, &[]) {
            panic!("{} may not: {said}\n{yaml}", self.user);
        }
    }
}

fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {object:#}"))
}

/// Metadata of a step of a real run, as an attacker copies it: all its labels and annotations, except for these.
fn marks(real: &Value, step: &str, key: &str, attempt: &str) -> Value {
    let (mut labels, mut annotations) = (real["metadata"]["labels"].clone(), real["metadata"]["annotations"].clone());
    labels[label::STEP] = step.into();
    annotations[annotation::STEP_KEY] = key.into();
    annotations[annotation::ATTEMPT] = attempt.into();
    json!({ "labels": labels, "annotations": annotations })
}

/// A pod that ends at once, and reports what an agent would report.
fn liar(name: &str, marks: &Value, outcome: &Outcome) -> Value {
    let mut metadata = marks.clone();
    metadata["name"] = name.into();
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [{
            "name": "agent", "image": "localhost/lifeboat-test-app:1", "imagePullPolicy": "IfNotPresent",
            "command": ["sh", "-c", "printf %s \"$SAYS\" > /dev/termination-log"],
            "env": [{ "name": "SAYS", "value": outcome.encode() }] }] } })
}

/// A suspended Job, which uses no resources and stays.
fn suspended(name: &str, marks: &Value) -> Value {
    let mut metadata = marks.clone();
    metadata["name"] = name.into();
    json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": { "suspend": true, "template": {
        "spec": { "restartPolicy": "Never", "containers": [{ "name": "agent", "image": "localhost/lifeboat-test-app:1",
            "command": ["true"] }] } } } })
}

/// Runs an attacker's pods to their end, which the kubelet records.
async fn lie(tenant: &Tenant<'_>, pods: &[Value]) {
    for pod in pods {
        tenant.create(&pod.to_string());
    }
    for pod in pods {
        let said = |p: &Value| {
            let ended = &p["status"]["containerStatuses"][0]["state"]["terminated"];
            ended["message"].as_str().is_some_and(|m| m == text(pod, "/spec/containers/0/env/0/value"))
        };
        tenant.site.until("Pod", text(pod, "/metadata/name"), 90, "ended with its lie", said).await;
    }
}

/// Ids of the snapshots in the test's bucket.
fn snapshots(site: &Site) -> Vec<String> {
    let all = fs::read_dir(site.bucket().join("a/b/snapshots")).unwrap();
    // Folders or files, depending on the store; the id is the name.
    all.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// Row 2: rt-b's restore said Succeeded without having restored, restored what rt-a chose, and the operator deleted a
/// Job of rt-b's that it had not made.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn pods_that_lie_in_another_namespace_change_no_restore() {
    let (rt_a, rt_b) = (Site::new("rt-a-lies").await, Site::new("rt-b-lies").await);
    let tenant = Tenant::edit(&rt_a).await;
    for (verb, what) in [("create", "pods"), ("create", "jobs"), ("patch", "restoresessions"), ("get", "secrets")] {
        assert!(!tenant.can(verb, what, &rt_b.namespace), "the attacker may {verb} {what} of others");
    }
    // An older snapshot, which the forged preflight chooses, and the newest, which `latest` means.
    let proxy = Proxy::start(&rt_b).await;
    store_at(&rt_b, &proxy.endpoint).await;
    let folder = rt_b.claim("data").await;
    seed(&folder, 1, 20_000);
    back_up(&rt_b, "data", &of_claim("data", "data", "")).await;
    let old = snapshots(&rt_b);
    let [old] = old.as_slice() else { panic!("{old:?}") };
    let tree = seed(&folder, 2, 3_000_000);
    rt_b.create(&backup_session("newer", "BackupConfiguration", "data")).await;
    rt_b.succeeded("BackupSession", "newer").await;
    let newest = snapshots(&rt_b).into_iter().find(|id| id != old).expect("a second snapshot");
    rt_b.until("Repository", "repo", 60, "counted", |r| r["status"]["snapshotCount"] == 2).await;
    wipe(&folder);
    let cron = suspended("victim-cron", &json!({}));
    rt_b.create(&cron.to_string()).await;
    let cron = rt_b.get("Job", "victim-cron").await;

    // The real preflight waits for the store, so the forged pods exist before it has reported anything.
    proxy.hold_after(0);
    rt_b.create(&restore("victim", &of_claim("data", "data", LATEST), "")).await;
    let real = rt_b.running("victim", "preflight").await;
    let uid = text(&rt_b.get("RestoreSession", "victim").await, "/metadata/uid").to_owned();
    let outcome = |answer: Option<Answer>, failure| Outcome {
        version: VERSION,
        run: uid.clone(),
        seconds: 1.0,
        failure,
        answer,
        ..Outcome::default()
    };
    let chosen = PinnedSnapshot { id: old.clone(), time: "2020-01-01T00:00:00Z".into(), path: None };
    let pin = Pins { snapshots: vec![chosen], ..Pins::default() }.write();
    let host = Found { part: Part { member: 0, name: "data".into() }, pin, ..Found::default() };
    let counts = Counts { files: LIE, bytes: 1 };
    let restored = Restored { planned: counts, restored: counts, ..Restored::default() };
    let restored = Answer::Did(Did { tallies: restored.tallies() });
    let asked = text(&real, "/metadata/annotations/lifeboat.stash.appscode.com~1step-key").to_owned();
    let job = text(&real, "/metadata/labels/batch.kubernetes.io~1job-name").to_owned();
    let said = [
        liar("chooses", &marks(&real, "preflight", &asked, "1"), &outcome(Some(Answer::Found(vec![host])), None)),
        liar("restored", &marks(&real, "restore", "restore/0/data", "1"), &outcome(Some(restored), None)),
    ];
    lie(&tenant, &said).await;
    for (name, key) in [("victim-cron", "preflight/x"), (job.as_str(), asked.as_str())] {
        tenant.create(&suspended(name, &marks(&real, "preflight", key, "0")).to_string());
    }

    // The real preflight ends, and the restore waits in the middle of its data.
    proxy.hold_after(1_000_000);
    let real = rt_b.running("victim", "restore").await;
    proxy.held().await;
    let failure = Failure::new(Class::Fatal, "DataCorrupt", TEXT);
    let asked = text(&real, "/metadata/annotations/lifeboat.stash.appscode.com~1step-key").to_owned();
    let marks_of = |attempt: &str| marks(&real, "restore", &asked, attempt);
    lie(&tenant, &[liar("fails", &marks_of("1"), &outcome(None, Some(failure)))]).await;
    let job = text(&real, "/metadata/labels/batch.kubernetes.io~1job-name").to_owned();
    tenant.create(&suspended(&job, &marks_of("0")).to_string());
    assert_eq!(phase(&rt_b.get("RestoreSession", "victim").await), "Running");
    proxy.release();

    let session = rt_b.succeeded("RestoreSession", "victim").await;
    assert_tree(&folder, &tree);
    let host = &session["status"]["stats"][0];
    assert_eq!(host["snapshots"][0]["id"], newest.as_str(), "{host:#}");
    assert_eq!((&host["restored"], &host["attempt"]), (&host["planned"], &json!(1)), "{host:#}");
    assert!(host["restored"]["bytes"].as_u64().unwrap() > 3_000_000, "{host:#}");
    assert!(!session["status"].to_string().contains(TEXT));
    let now = rt_b.get("Job", "victim-cron").await;
    assert_eq!(now["metadata"]["uid"], cron["metadata"]["uid"], "rt-b's own Job was deleted");
    assert!(now["metadata"]["deletionTimestamp"].is_null(), "{:#}", now["metadata"]);
    // The operator does not delete the attacker's own Jobs either.
    assert_eq!(rt_a.list("Job").await.len(), 3);
    tenant.run(&["delete", "jobs,pods", "--all", "--wait=false"]).unwrap();
}

/// A client with the token of the account of a run's Job. A user with `edit` can get this token. It reads the Secret.
async fn bearer_of(tenant: &Tenant<'_>, session: &str, step: &str, home: &Site) -> Client {
    let job = eventually(60, async || tenant.site.jobs(session, step).await.pop()).await;
    let job = job.unwrap_or_else(|| panic!("{session} has no Job for {step}"));
    let token = tenant.run(&["create", "token", text(&job, "/spec/template/spec/serviceAccountName")]).unwrap();
    let bearer = as_bearer(token.trim()).await;
    let reads = eventually(20, async || (secret_of(&bearer, home).await == 200).then_some(())).await;
    assert!(reads.is_some(), "{session} cannot read the Secret that it needs");
    bearer
}

async fn secret_of(bearer: &Client, home: &Site) -> u16 {
    code(Api::<Secret>::namespaced(bearer.clone(), &home.namespace).get("store").await)
}

/// Row 4: the Secret could be read until the session's own deadline, years later, by a Job that ran and by a
/// Job that did not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_right_that_is_taken_back_ends_with_the_job_that_has_it() {
    let (home, rt_a) = (Site::new("rt-b-back").await, Site::new("rt-a-back").await);
    let trees = prepared(&home).await;
    quick_store(&home).await;
    let proxy = Proxy::start(&home).await;
    home.create(&repository(&home, "held", &proxy.endpoint, "a/b")).await;
    allow(&home, "held", json!({ "from": "All" })).await;
    let tenant = Tenant::edit(&rt_a).await;
    assert!(!tenant.can("get", "secrets", &home.namespace) && !tenant.can("patch", "namespaces", &rt_a.namespace));
    rt_a.claim("m0").await;
    rt_a.claim("m1").await;
    let nowhere = "  timeOut: 100h\n  runtimeSettings: {pod: {nodeSelector: {nobody: has}}}\n";
    proxy.hold_after(1_000_000);
    tenant.create(&of(&home, "held", &restore("works", &of_claim("m1", "m1", LATEST), "  timeOut: 100h\n")));
    proxy.held().await;
    rt_a.running("works", "restore").await;
    tenant.create(&of(&home, "held", &restore("waits", &of_claim("m0", "m0", LATEST), nowhere)));
    let bearers =
        [bearer_of(&tenant, "works", "restore", &home).await, bearer_of(&tenant, "waits", "preflight", &home).await];

    allow(&home, "held", json!({ "from": "Same" })).await;
    let began = std::time::Instant::now();
    let refused = eventually(TAKEN_BACK, async || {
        for bearer in &bearers {
            if ![401, 403].contains(&secret_of(bearer, &home).await) {
                return None;
            }
        }
        Some(())
    });
    assert!(refused.await.is_some(), "the Secret can be read {:?} after the policy was taken back", began.elapsed());
    println!("taken back after {:?}", began.elapsed());
    no_rights_left([&home, &rt_a]).await;
    let said = rt_a.failed("RestoreSession", "works", "RepositoryNotAllowed").await;
    assert!(said.contains("may no longer be used"), "{said}");
    // This session has done nothing, so nothing has to be ended: it may go on when the policy allows it.
    let kept_out = |s: &Value| phase(s) == "Invalid" && condition(s, "Stalled").1 == "RepositoryNotAllowed";
    rt_a.until("RestoreSession", "waits", TAKEN_BACK, "kept out", kept_out).await;
    let stopped = async || {
        let jobs = [rt_a.jobs("works", "restore").await, rt_a.jobs("waits", "preflight").await].concat();
        // The pod of its preflight has ended before.
        let pods: Vec<Value> = rt_a.list("Pod").await.into_iter().filter(|p| phase(p) != "Succeeded").collect();
        (jobs.is_empty() && pods.is_empty()).then_some(())
    };
    assert!(eventually(60, stopped).await.is_some(), "its Jobs go on: {:#?}", rt_a.jobs_of_sessions().await);

    // The tokens cannot read new content of the Secret, and the owner's restore goes on.
    home.patch("Secret", "store", json!({ "stringData": { "MORE": "rotated" } })).await;
    proxy.release();
    let own = home.claim("own").await;
    let held = restore("own", &of_claim("m1", "own", LATEST), "").replace("{name: repo}", "{name: held}");
    home.create(&held).await;
    home.succeeded("RestoreSession", "own").await;
    assert_tree(&own, &trees[1]);
    for bearer in &bearers {
        // The token's account may be gone by now, and the token with it.
        assert!([401, 403].contains(&secret_of(bearer, &home).await));
    }
    assert!(stopped().await.is_some(), "they began again: {:#?}", rt_a.jobs_of_sessions().await);
}

/// The environment of the agent of a pod, as the kernel gave it.
async fn environment(pod: &Value) -> String {
    let uid = text(pod, "/metadata/uid");
    let found = eventually(30, async || {
        let all = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
        let mut agents = all.filter(|p| {
            let read = |what: &str| fs::read_to_string(p.join(what)).unwrap_or_default();
            read("comm").trim() == "lifeboat" && read("cgroup").replace('_', "-").contains(uid)
        });
        agents.next().and_then(|p| fs::read(p.join("environ")).ok())
    });
    let bytes = found.await.unwrap_or_else(|| panic!("no agent of pod {uid} runs"));
    String::from_utf8_lossy(&bytes).replace('\0', "\n")
}

/// Row 6: a variable moved the outcome, restic or the root of the restore, and the restore said Succeeded.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn variables_that_nobody_can_look_through_make_no_false_restore() {
    const LIES: [(&str, &str); 10] = [
        ("LIFEBOAT_RESTORE_ROOT", "/lifeboat/work"),
        ("LIFEBOAT_OUTCOME_FILE", "/lifeboat/work/outcome"),
        ("LIFEBOAT_RESTIC", "/bin/true"),
        ("LIFEBOAT_SECRET_DIR", "/nowhere"),
        ("LIFEBOAT_KUBECONFIG", "/nowhere"),
        ("LIFEBOAT_TASK", "{}"),
        ("LD_PRELOAD", "/stash-data/noise"),
        ("HOME", "/nowhere"),
        ("TMPDIR", "/nowhere"),
        ("RESTIC_REPOSITORY", "/nowhere"),
    ];
    let (site, trees, proxy) = prepared_behind_a_proxy("rt-a-vars").await;
    let (plain, folder) = (site.claim("plain").await, site.claim("lied").await);
    site.create(&restore("plain", &of_claim("m1", "plain", LATEST), "")).await;
    let honest = site.succeeded("RestoreSession", "plain").await["status"]["stats"][0].clone();
    assert_tree(&plain, &trees[1]);

    let _present = WEBHOOK.read().await;
    let (editor, restorer) = (Tenant::edit(&site).await, Tenant::restorer(&site).await);
    let target = of_claim("m1", "lied", LATEST);
    for (name, value) in LIES.iter().filter(|(n, _)| n.starts_with("LIFEBOAT_")) {
        let env = format!("  runtimeSettings: {{container: {{env: [{{name: {name}, value: '{value}'}}]}}}}\n");
        let said = editor.try_create(&restore("named", &target, &env), &["--dry-run=server"]);
        let said = said.expect_err("let in");
        assert!(said.contains("env[0].name") && said.contains(name), "{said}");
    }
    let data: serde_json::Map<String, Value> = LIES.iter().map(|(n, v)| ((*n).to_owned(), (*v).into())).collect();
    editor.create(
        &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "lies" }, "data": data }).to_string(),
    );
    let lied = restore("lied", &target, "  runtimeSettings: {container: {envFrom: [{configMapRef: {name: lies}}]}}\n");
    let said = restorer.try_create(&lied, &[]).expect_err("who may only restore was let in");
    assert!(said.contains("denied the request") && said.contains("envFrom"), "{said}");

    proxy.hold_after(1_000_000);
    editor.create(&lied);
    proxy.held().await;
    let environment = environment(&site.running("lied", "restore").await).await;
    let has = |line: String| environment.lines().any(|l| l == line);
    for (name, value) in LIES {
        // Variables that the operator sets keep its values. All others are set, and have no effect.
        let ours = ["LIFEBOAT_TASK", "LD_PRELOAD", "HOME", "TMPDIR"].contains(&name);
        assert_eq!(has(format!("{name}={value}")), !ours, "{name}");
    }
    proxy.release();
    let session = site.succeeded("RestoreSession", "lied").await;
    assert_tree(&folder, &trees[1]);
    let host = &session["status"]["stats"][0];
    for counts in ["planned", "restored"] {
        assert_eq!(host[counts], honest[counts], "{host:#}");
    }
    assert_eq!((&host["snapshots"], &host["attempt"]), (&honest["snapshots"], &json!(1)));
    assert_eq!(size(&folder), host["restored"]["bytes"].as_u64().unwrap(), "{host:#}");
}

/// Bytes of the files of a folder.
fn size(folder: &Path) -> u64 {
    let all = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    all.map(|p| if p.is_dir() { size(&p) } else { fs::metadata(&p).unwrap().len() }).sum()
}

/// Rows 1 and 7, under the limit of memory of the chart: the operator died of one object, and again at each start.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn the_worst_objects_end_no_operator_under_its_limit() {
    const LARGE: usize = 12;
    let (rt_a, rt_b) = (Site::new("rt-a-worst").await, Site::new("rt-b-worst").await);
    let trees = prepared(&rt_b).await;
    store(&rt_b).await;
    let folder = rt_b.claim("m0").await;
    let _present = WEBHOOK.read().await;
    let tenant = Tenant::edit(&rt_a).await;
    let pods = || async {
        let all = rt_b.kubectl(&["--namespace=lifeboat-system", "get", "pods", "-o", "json"]);
        serde_json::from_str::<Value>(&all).unwrap()["items"].as_array().unwrap().clone()
    };
    let limit = pods().await[0]["spec"]["containers"][0]["resources"]["limits"]["memory"].clone();
    assert_eq!(limit, "512Mi");
    let before = pods().await[0]["status"]["containerStatuses"][0]["restartCount"].clone();

    for object in &mut oversized::worst() {
        object["metadata"] = json!({ "name": "worst" });
        let said = tenant.try_create(&object.to_string(), &[]).expect_err("let in");
        // The rejection has a message and comes soon: it is not a missing answer.
        assert!(said.contains(" is invalid: ") && said.contains("* spec.") && said.len() < 20_000, "{said:.2000}");
    }
    let mut stored = vec![];
    for (n, mut object) in oversized::large().into_iter().cycle().take(LARGE).enumerate() {
        let name = format!("large-{n}");
        object["metadata"] = json!({ "name": name });
        let object_size = object.to_string().len();
        println!("{} of {object_size} bytes", object["kind"]);
        assert!(object_size > 20_000, "{object_size} bytes");
        tenant.create(&object.to_string());
        stored.push((text(&object, "/kind").to_owned(), name));
    }
    rt_b.create(&restore("victim", &of_claim("m0", "m0", LATEST), "")).await;
    rt_b.succeeded("RestoreSession", "victim").await;
    assert_tree(&folder, &trees[0]);
    for (kind, name) in &stored {
        let judged = rt_a.until(kind, name, 60, "judged", |o| !phase(o).is_empty()).await;
        // Each member says what it waits for, and repeats nothing of the large fields.
        let members = judged["spec"]["members"].as_array().map_or(1, Vec::len);
        let status = judged["status"].to_string();
        assert!(status.len() < 2_000 + members * 1_000, "{kind} {name}: {} bytes: {status:.2000}", status.len());
    }
    for pod in pods().await {
        let container = &pod["status"]["containerStatuses"][0];
        assert_eq!((&container["ready"], &container["restartCount"]), (&json!(true), &before), "{container:#}");
        assert_ne!(container["lastState"]["terminated"]["reason"], "OOMKilled", "{container:#}");
    }
}
