//! Rows 9, 10, 11 and 13: what one namespace takes from another, reveals of another, or reports in the name of another.

use lifeboat::contract::restic::Answer;
use serde_json::{Value, json};

use super::actors::Role;
use super::cluster::{SOON, condition, eventually};
use super::forged::done;
use super::installed::Webhook;
use super::jobs;
use super::scene::{Scene, leading, real_job, real_jobs, shows};

/// Private content of rt-b's batch.
const PASSWORD: &str = "hunter2-of-rt-b";

fn shop(scene: &Scene, central: &str) -> Value {
    let target =
        json!({ "alias": "ledger", "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" } });
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupBatch",
        "metadata": { "name": "shop", "namespace": scene.b },
        "spec": { "repository": { "name": "repo", "namespace": central },
            "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true },
            "runtimeSettings": { "container": { "env": [{ "name": "DB_PASSWORD", "value": PASSWORD }] } },
            "members": [{ "target": target }] } })
}

fn restores_shop(scene: &Scene, name: &str, batch: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": name, "namespace": scene.a },
        "spec": { "backupBatch": { "name": batch, "namespace": scene.b } } })
}

/// Row 9: the Repository of a central store allows all namespaces; rt-b allowed none.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_batch_shows_nothing_to_a_namespace_that_its_own_did_not_allow() {
    let scene = Scene::enter("shop").await;
    let central = scene.cluster.namespace("central").await;
    jobs::ground(&scene.cluster, &central, &[], &[]).await;
    let all = json!({ "spec": { "usagePolicy": { "allowedNamespaces": { "from": "All" } } } });
    let mut store = scene.repository();
    store["metadata"]["namespace"] = central.as_str().into();
    scene.cluster.patch(&store, all).await.unwrap();
    let attacker = scene.attacker(Role::Restorer).await;
    let _operator = leading(&scene, &[]).await;
    let shop = scene.cluster.apply(&shop(&scene, &central)).await.unwrap();
    jobs::open(&scene.cluster, &central).await;
    scene.cluster.until_phase(&shop, "Ready").await;
    let session = attacker.create(&restores_shop(&scene, "takes", "shop")).await;
    // Judged: members taken over, waiting, or refused.
    let judged = |o: &Value| ["Stalled", "Reconciling"].iter().any(|c| condition(o, c).0 == "True");
    scene.cluster.until(&session, "judged", judged).await;
    // The second session is judged after the first, so the first has already taken all members that it could.
    let second = attacker.create(&restores_shop(&scene, "again", "shop")).await;
    scene.cluster.until(&second, "judged", judged).await;
    for session in [&session, &second] {
        let now = attacker.get(session).await;
        for secret in [PASSWORD, "DB_PASSWORD", "ledger"] {
            assert!(!shows(&now, secret), "{:#}", now["status"]);
        }
    }
    assert!(jobs::all(&scene.cluster, &scene.a).await.is_empty());
}

/// A Repository that names the place of the scene's own.
fn repository(scene: &Scene, name: &str, secret: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
        "metadata": { "name": name, "namespace": scene.a },
        "spec": { "wipeOut": true, "backend": { "storageSecretName": secret,
            "s3": { "endpoint": "http://store.invalid", "bucket": scene.cluster.home } } } })
}

/// Row 10: a tenant who knew the name of a bucket could prevent the deletion of its data forever.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_repository_that_opened_nothing_keeps_no_data() {
    let scene = Scene::enter("bucket").await;
    let attacker = scene.attacker(Role::Edit).await;
    let _operator = leading(&scene, &[]).await;
    scene.cluster.patch(&scene.repository(), json!({ "spec": { "wipeOut": true } })).await.unwrap();
    let mut claims = repository(&scene, "claims", "nothing");
    claims["spec"]["wipeOut"] = false.into();
    let claims = attacker.create(&claims).await;
    scene.cluster.until(&claims, "looked at", |r| condition(r, "BackendSecretFound").0 == "False").await;
    let victim = scene.cluster.until(&scene.repository(), "held", jobs::is_held).await;
    scene.cluster.delete(&victim).await;
    let wipe = real_job(&scene.cluster, &victim, "wipe").await;
    jobs::end(&scene.cluster, &wipe, &jobs::success(&wipe)).await;
    scene.cluster.until(&victim, "gone", Value::is_null).await;
}

/// Row 10, the reverse: the deletion of the attacker's Repository revealed whose data the store contains.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_deletion_names_no_repository_of_another_namespace() {
    let scene = Scene::enter("asks").await;
    let attacker = scene.attacker(Role::Edit).await;
    let _operator = leading(&scene, &[]).await;
    // The victim's Repository has opened the store.
    let victim = scene.cluster.get(&scene.repository()).await;
    let list = real_job(&scene.cluster, &victim, "list").await;
    let listed = done(&victim, Answer::Listed { snapshots: 3, written: 3, removed: 0, absent: None });
    jobs::end(&scene.cluster, &list, &listed).await;
    scene.cluster.until(&victim, "listed", |r| r["status"]["snapshotCount"] == 3).await;
    attacker
        .create(&json!({ "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": "guess", "namespace": scene.a }, "stringData": { "RESTIC_PASSWORD": "guess" } }))
        .await;
    let asks = attacker.create(&repository(&scene, "asks", "guess")).await;
    scene.cluster.until(&asks, "held", jobs::is_held).await;
    attacker.delete(&asks).await;
    let told = |r: &Value| condition(r, "Stalled").1 == "DataShared";
    let told = scene.cluster.until(&asks, "told that the data stays", told).await;
    assert!(!shows(&told, &scene.b), "{:#}", told["status"]);
    let wipes = |j: &k8s_openapi::api::batch::v1::Job| super::jobs::key(j) == "wipe";
    assert!(!real_jobs(&scene.cluster, &asks).await.iter().any(wipes));
}

/// Text of an object's conditions, without the names from the object itself.
fn told(object: &Value, named: &str) -> Vec<(String, String, String)> {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |c: &Value, k: &str| c[k].as_str().unwrap_or_default().replace(named, "X");
    all.iter().map(|c| (text(c, "type"), text(c, "reason"), text(c, "message"))).collect()
}

/// Row 11 by status.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn what_is_not_there_and_what_is_not_allowed_read_alike() {
    let scene = Scene::enter("oracle").await;
    let attacker = scene.attacker(Role::Restorer).await;
    scene.allow(json!({ "from": "Selector", "selector": { "matchLabels": { "team": "red-october" } } })).await;
    scene.cluster.apply(&shop(&scene, &scene.b)).await.unwrap();
    let _operator = leading(&scene, &[]).await;
    let restore = |name: &str, repository: &str| {
        let mut object = scene.restore_from_victim(name);
        object["spec"]["repository"]["name"] = repository.into();
        object
    };
    let pairs = [
        [(restore("there", "repo"), "repo"), (restore("not", "none"), "none")],
        [(restores_shop(&scene, "batch-there", "shop"), "shop"), (restores_shop(&scene, "batch-not", "none"), "none")],
    ];
    for pair in &pairs {
        for (object, _) in pair {
            attacker.create(object).await;
        }
        eventually("both read alike", SOON, || async {
            let mut both = vec![];
            for (object, named) in pair {
                let now = attacker.get(object).await;
                let phase = now["status"]["phase"].as_str().unwrap_or_default().to_owned();
                both.push((phase, told(&now, &format!("{}/{named}", scene.b))));
            }
            let said = !both[0].1.is_empty() && !both[1].1.is_empty();
            if said && both[0] == both[1] { Ok(()) } else { Err(format!("{both:#?}")) }
        })
        .await;
        for (object, _) in pair {
            let now = attacker.get(object).await;
            assert!(!shows(&now, "red-october"), "{:#}", now["status"]);
        }
    }
}

/// Row 11 by the webhook, which any pod can call.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn the_webhook_does_not_tell_what_is_there() {
    let scene = Scene::enter("asked").await;
    let attacker = scene.attacker(Role::Restorer).await;
    scene.allow(json!({ "from": "Selector", "selector": { "matchLabels": { "team": "red-october" } } })).await;
    let webhook = Webhook::install(&scene.cluster).await;
    let mut answers = vec![];
    for repository in ["repo", "none"] {
        let mut object = scene.restore_from_victim("asks");
        object["spec"]["repository"]["name"] = repository.into();
        let answer = attacker.would_create(&object).await;
        let text = answer.err().map(|e| e.to_string().replace(&format!("{}/{repository}", scene.b), "X"));
        answers.push(text);
    }
    webhook.remove(&scene.cluster).await;
    assert_eq!(answers[0], answers[1]);
    assert!(!answers[0].as_ref().is_some_and(|t| t.contains("red-october")), "{answers:?}");
}

/// Row 13: a user may not set the tags by which Lifeboat finds a run.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_backup_does_not_carry_the_tags_of_another_run() {
    let scene = Scene::enter("tags").await;
    let attacker = scene.attacker(Role::Edit).await;
    let _operator = leading(&scene, &[]).await;
    scene.allow(json!({ "from": "All" })).await;
    let tags: [&[&str]; 5] = [
        &["--tag=lifeboat.session=rt-b/x"],
        &["--tag", "lifeboat.run=11111111-2222-3333-4444-555555555555"],
        &["--tag=mine,lifeboat.paths=1"],
        &["--tag", "mine", "--tag= lifeboat.incomplete"],
        &["--tag=Lifeboat.run=x,lifeboat.run=y"],
    ];
    for (n, args) in tags.iter().enumerate() {
        let target = json!({ "alias": format!("a-{n}"), "args": args,
            "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" } });
        let object = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
            "metadata": { "name": format!("tags-{n}"), "namespace": scene.a },
            "spec": { "repository": { "name": "repo", "namespace": scene.b }, "target": target,
                "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true } } });
        match attacker.try_create(&object).await {
            Err(kube::Error::Api(status)) => assert!([403, 422].contains(&status.code), "{status:?}"),
            Err(e) => panic!("{e}"),
            Ok(object) => drop(scene.cluster.until_phase(&object, "Invalid").await),
        }
    }
}
