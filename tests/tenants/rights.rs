//! Row 6: the permission to create a session is separate from the permission to run code.

use serde_json::{Value, json};

use super::actors::{Role, refusal};
use super::cluster::SOON;
use super::installed::Webhook;
use super::jobs;
use super::scene::{Scene, leading, real_job};

/// Settings with which their author runs code, reads a Secret, or gets a right that the author does not have.
fn settings() -> Vec<(&'static str, Value)> {
    let container = |field: &str, value: Value| json!({ "container": { field: value } });
    let pod = |field: &str, value: Value| json!({ "pod": { field: value } });
    let secret =
        json!([{ "name": "X", "valueFrom": { "secretKeyRef": { "name": "secret", "key": "RESTIC_PASSWORD" } } }]);
    let exec = json!({ "exec": { "command": ["/bin/true"] } });
    let http = json!({ "httpGet": { "path": "/", "port": 80, "host": "169.254.169.254" } });
    vec![
        ("a value of a Secret", container("env", secret)),
        ("a whole Secret", container("envFrom", json!([{ "secretRef": { "name": "secret" } }]))),
        ("a hook at the start", container("lifecycle", json!({ "postStart": exec }))),
        ("a hook at the stop", container("lifecycle", json!({ "preStop": exec }))),
        ("a probe", container("livenessProbe", exec.clone())),
        ("a probe of an address", container("readinessProbe", http)),
        ("a privileged container", container("securityContext", json!({ "privileged": true }))),
        ("capabilities", container("securityContext", json!({ "capabilities": { "add": ["SYS_ADMIN"] } }))),
        ("another account", pod("serviceAccountName", json!("builder"))),
        ("the token of an account", pod("automountServiceAccountToken", json!(true))),
        (
            "pods of others that may not run beside it",
            pod(
                "affinity",
                json!({ "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "kubernetes.io/os", "namespaceSelector": {} }] } }),
            ),
        ),
        ("a chosen node", pod("nodeName", json!("node-1"))),
        ("a priority of the system", pod("priorityClassName", json!("system-node-critical"))),
    ]
}

fn with(scene: &Scene, name: &str, settings: &Value) -> Value {
    let mut session = jobs::session(&scene.a, &jobs::target("PersistentVolumeClaim", "a"));
    session["metadata"]["name"] = name.into();
    session["spec"]["runtimeSettings"] = settings.clone();
    session
}

/// The same settings in a member of a batch.
fn member(scene: &Scene, name: &str, settings: &Value) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": name, "namespace": scene.a },
        "spec": { "repository": { "name": "repo" }, "members": [
            { "target": jobs::target("PersistentVolumeClaim", "a"), "runtimeSettings": settings }] } })
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn who_may_only_restore_runs_no_code_and_reads_no_secret() {
    let scene = Scene::enter("code").await;
    jobs::ground(&scene.cluster, &scene.a, &["a"], &[]).await;
    let (restorer, editor) = (scene.attacker(Role::Restorer).await, scene.attacker(Role::Edit).await);
    for (group, resource) in [("", "pods"), ("batch", "jobs"), ("", "secrets")] {
        assert!(!restorer.can("create", group, resource, &scene.a).await);
    }
    let webhook = Webhook::install(&scene.cluster).await;
    let mut let_in = vec![];
    for (what, settings) in settings() {
        for object in [with(&scene, "code", &settings), member(&scene, "code", &settings)] {
            match restorer.would_create(&object).await {
                Ok(_) => let_in.push(format!("{} with {what}", object["kind"])),
                refused => assert!(refusal(refused).contains("denied the request"), "{what}"),
            }
        }
    }
    // The restorer may create a session without such settings, and a user who may run pods anyway loses nothing.
    restorer.would_create(&with(&scene, "plain", &json!({}))).await.unwrap();
    let harmless = json!({ "container": { "env": [{ "name": "TZ", "value": "UTC" }],
        "resources": { "limits": { "memory": "1Gi" } } }, "pod": { "nodeSelector": { "disk": "fast" } } });
    restorer.would_create(&with(&scene, "harmless", &harmless)).await.unwrap();
    let secret = &settings()[0].1;
    editor.would_create(&with(&scene, "editor", secret)).await.unwrap();
    webhook.remove(&scene.cluster).await;
    assert!(let_in.is_empty(), "let in: {let_in:#?}");
}

/// A pod in the network calls the webhook in the name of another user, to get a seal for its own object.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_pod_gets_no_seal_in_the_name_of_an_administrator() {
    let scene = Scene::enter("forger").await;
    let webhook = Webhook::install(&scene.cluster).await;
    let object = with(&scene, "code", &settings()[2].1);
    let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": "CREATE", "namespace": scene.a, "object": object,
        "userInfo": { "username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"] } } });
    let known = webhook.path("default", "restoresessions");
    let (begin, token) = known.rsplit_once('/').unwrap();
    let backwards: String = token.chars().rev().collect();
    let mut answers = vec![];
    for path in [begin.to_owned(), format!("{begin}/"), format!("{begin}/{backwards}"), known.clone()] {
        answers.push(webhook.ask(&path, &review.to_string()).await);
    }
    webhook.remove(&scene.cluster).await;
    let (of_api_server, of_others) = answers.split_last().unwrap();
    assert!(of_others.iter().all(|a| a.starts_with("HTTP/1.1 404") && !a.contains("patch")), "{of_others:#?}");
    // The same review is accepted from the API server.
    assert!(of_api_server.starts_with("HTTP/1.1 200") && of_api_server.contains("JSONPatch"), "{of_api_server}");
}

/// Without the webhook, the author of an object is unknown.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn without_the_webhook_no_session_runs_code() {
    let scene = Scene::enter("bare").await;
    jobs::ground(&scene.cluster, &scene.a, &["a"], &[]).await;
    let restorer = scene.attacker(Role::Restorer).await;
    let _operator = leading(&scene, &["--code-rights", "true"]).await;
    let mut made = vec![];
    for (n, (what, settings)) in settings().into_iter().enumerate() {
        match restorer.try_create(&with(&scene, &format!("code-{n}"), &settings)).await {
            Ok(object) => made.push((what, object)),
            refused => drop(refusal(refused)),
        }
    }
    for (what, object) in &made {
        let said = format!("{what} is refused");
        super::cluster::eventually(&said, SOON, || async {
            let now = scene.cluster.get(object).await;
            if now["status"]["phase"] == "Invalid" { Ok(()) } else { Err(format!("{:#}", now["status"])) }
        })
        .await;
    }
    let all = jobs::of_sessions(&scene.cluster, &scene.a).await;
    assert!(all.is_empty(), "{:?}", all.iter().map(jobs::session_of).collect::<Vec<_>>());
}

/// A user must not set where the agent writes, its task, or the programs that it runs.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn the_agents_own_variables_are_not_the_users() {
    let scene = Scene::enter("env").await;
    jobs::ground(&scene.cluster, &scene.a, &["a"], &[]).await;
    let restorer = scene.attacker(Role::Restorer).await;
    let _operator = leading(&scene, &[]).await;
    let names = [
        "LIFEBOAT_OUTCOME_FILE",
        "LIFEBOAT_RESTORE_ROOT",
        "LIFEBOAT_RESTIC",
        "LIFEBOAT_KUBECONFIG",
        "LIFEBOAT_TASK",
        "LIFEBOAT_ANYTHING",
        // A library in the restored volume would run in the agent.
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
    ];
    let env: Vec<Value> = names.iter().map(|n| json!({ "name": n, "value": "/" })).collect();
    let session = with(&scene, "env", &json!({ "container": { "env": env } }));
    let Ok(session) = restorer.try_create(&session).await else { return };
    let told = scene.cluster.until(&session, "judged", |o| o["status"]["phase"].is_string()).await;
    if told["status"]["phase"] == "Invalid" {
        return;
    }
    let job = real_job(&scene.cluster, &session, "preflight").await;
    let pod = job.spec.unwrap().template.spec.unwrap();
    for variable in pod.containers[0].env.iter().flatten().filter(|e| names.contains(&e.name.as_str())) {
        assert!(variable.name == "LIFEBOAT_TASK" && variable.value.as_deref() != Some("/"), "{variable:?}");
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn view_creates_nothing_and_reads_no_secret() {
    let scene = Scene::enter("view").await;
    let viewer = scene.attacker(Role::View).await;
    for resource in ["restoresessions", "restorebatches", "backupsessions", "repositories", "backupconfigurations"] {
        assert!(viewer.can("get", "stash.appscode.com", resource, &scene.a).await, "{resource}");
        for verb in ["create", "update", "patch", "delete"] {
            assert!(!viewer.can(verb, "stash.appscode.com", resource, &scene.a).await, "{verb} {resource}");
        }
        assert!(!viewer.can("get", "stash.appscode.com", resource, &scene.b).await, "{resource} of others");
    }
    assert!(!viewer.can("get", "", "secrets", &scene.a).await);
    assert!(!viewer.can("create", "", "pods", &scene.a).await);
}
