//! Attacks that are not in the table of tenants.

use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifeboat::contract::Class;
use lifeboat::contract::SecretPlace;
use lifeboat::contract::restic::{Answer, RepositoryFacts, SnapshotMade};
use lifeboat::plan::seen::identity::Identity;
use lifeboat::plan::work::rbac;
use serde_json::{Value, json};

use super::actors::{Role, code, is_denied};
use super::cluster::{SOON, condition, eventually};
use super::forged::{self, Forged, TEXT, done, failed, kept, owned, preflight, restored};
use super::jobs;
use super::scene::{Scene, leading, real_job, real_jobs, shows, uid};

/// The exact name, labels, annotations and owner of the next Job, in another namespace.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_job_with_the_right_name_in_another_namespace_is_none() {
    let scene = Scene::enter("exact").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    let real = real_job(&scene.cluster, &victim, "preflight").await;
    let restore = super::children::job_name(&victim, "restore", "restore/0/a", "1");
    for (step, key, name, outcome) in [
        ("preflight", jobs::key(&real), real.name_any(), preflight(&victim)),
        ("restore", "restore/0/a".to_owned(), restore, restored(&victim)),
    ] {
        let forged = Forged::new(&victim, step, &key);
        let job = attacker.create(&kept(owned(forged.job(&name, &scene.a), &victim, true))).await;
        let pod = owned(forged.pod(&format!("{name}-x"), &scene.a), &job, true);
        forged::run(&scene.cluster, &attacker, &pod, &outcome).await;
    }
    scene.looked_at(&operator, &victim).await;
    scene.goes_well(&victim).await;
}

/// A pod whose owner reference names the victim's real Job, by the uid that `view` shows.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_pod_of_another_namespace_is_no_pod_of_a_real_job() {
    let scene = Scene::enter("real").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    let real = json!(real_job(&scene.cluster, &victim, "preflight").await);
    let mut owner = real.clone();
    owner["apiVersion"] = "batch/v1".into();
    owner["kind"] = "Job".into();
    let key = real["metadata"]["annotations"][lifeboat::names::annotation::STEP_KEY].as_str().unwrap();
    let pod = Forged::new(&victim, "preflight", key).pod("p", &scene.a);
    forged::run(&scene.cluster, &attacker, &kept(owned(pod, &owner, true)), &preflight(&victim)).await;
    scene.looked_at(&operator, &victim).await;
    scene.goes_well(&victim).await;
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn no_number_of_an_attempt_stops_or_ends_anything() {
    let scene = Scene::enter("attempt").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    let real = real_job(&scene.cluster, &victim, "preflight").await;
    for (n, attempt) in ["-1", "0", "2", "2147483647", "999999999999", "", "x", "1e3", "\u{661}"].iter().enumerate() {
        for (step, key) in [("preflight", jobs::key(&real)), ("restore", "restore/0/a".to_owned())] {
            let forged = Forged::new(&victim, step, &key).attempt(attempt);
            attacker.create(&forged.job(&format!("{step}-{n}"), &scene.a)).await;
            let pod = forged.pod(&format!("{step}-{n}-x"), &scene.a);
            let outcome = if step == "restore" { restored(&victim) } else { preflight(&victim) };
            forged::run(&scene.cluster, &attacker, &pod, &outcome).await;
        }
    }
    scene.looked_at(&operator, &victim).await;
    scene.goes_well(&victim).await;
}

/// A forged failure: the victim's run must not fail, nor be retried.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_failure_of_another_namespace_fails_no_run() {
    let scene = Scene::enter("fail").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    let real = real_job(&scene.cluster, &victim, "preflight").await;
    for (n, class) in [Class::Transient, Class::Data, Class::Fatal, Class::Invalid].into_iter().enumerate() {
        let outcome = failed(&victim, class, lifeboat::names::reason::REPOSITORY_UNREACHABLE);
        for (step, key) in [("preflight", jobs::key(&real)), ("restore", "restore/0/a".to_owned())] {
            let pod = Forged::new(&victim, step, &key).pod(&format!("{step}-{n}"), &scene.a);
            forged::run(&scene.cluster, &attacker, &pod, &outcome).await;
        }
    }
    scene.looked_at(&operator, &victim).await;
    let done = scene.goes_well(&victim).await;
    assert!(!shows(&done, TEXT) && !shows(&scene.cluster.get(&scene.repository()).await, TEXT));
}

/// A pod that never ends, with the victim's uid: the teardown must not wait for it.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_run_is_deleted_and_canceled_without_waiting_for_pods_of_others() {
    let scene = Scene::enter("leave").await;
    let attacker = scene.attacker(Role::Edit).await;
    let _operator = leading(&scene, &[]).await;
    for (n, cancel) in [true, false].into_iter().enumerate() {
        let victim = scene.victim(&format!("run-{n}")).await;
        let real = real_job(&scene.cluster, &victim, "preflight").await;
        jobs::end(&scene.cluster, &real, &jobs::success(&real)).await;
        let restore = real_job(&scene.cluster, &victim, "restore/").await;
        let forged = Forged::new(&victim, "restore", "restore/0/a");
        attacker.create(&kept(forged.pod(&format!("p-{n}"), &scene.a))).await;
        attacker.create(&kept(forged.job(&format!("j-{n}"), &scene.a))).await;
        if cancel {
            scene.cluster.patch(&victim, json!({ "spec": { "cancel": true } })).await.unwrap();
        } else {
            scene.cluster.delete(&victim).await;
        }
        jobs::collect(&scene.cluster, &restore).await;
        let over = |o: &Value| o.is_null() || (o["status"]["phase"] == "Failed" && !jobs::is_held(o));
        scene.cluster.until(&victim, "over", over).await;
    }
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn pods_of_another_namespace_end_no_batch() {
    let scene = Scene::enter("batch").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let batch = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "RestoreBatch",
        "metadata": { "name": "all", "namespace": scene.b },
        "spec": { "repository": { "name": "repo" },
            "members": [{ "target": jobs::target("PersistentVolumeClaim", "a") }] } });
    let batch = scene.cluster.apply(&batch).await.unwrap();
    let real = real_job(&scene.cluster, &batch, "preflight").await;
    let pod = Forged::new(&batch, "preflight", "preflight/x").pod("p", &scene.a);
    forged::run(&scene.cluster, &attacker, &pod, &preflight(&batch)).await;
    let pod = Forged::new(&batch, "restore", "restore/0/a").pod("r", &scene.a);
    forged::run(&scene.cluster, &attacker, &pod, &restored(&batch)).await;
    scene.looked_at(&operator, &batch).await;
    jobs::end(&scene.cluster, &real, &jobs::success(&real)).await;
    let restore = real_job(&scene.cluster, &batch, "restore/").await;
    jobs::end(&scene.cluster, &restore, &jobs::success(&restore)).await;
    let done = scene.cluster.until_phase(&batch, "Succeeded").await;
    assert_eq!(done["status"]["members"][0]["stats"][0]["restored"]["files"], super::scene::HONEST_FILES, "{done:#}");
}

#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn pods_of_another_namespace_make_no_backup() {
    let scene = Scene::enter("backup").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    let configuration = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "metadata": { "name": "files", "namespace": scene.b },
        "spec": { "repository": { "name": "repo" }, "retentionPolicy": { "name": "keep", "keepLast": 1, "prune": true },
            "target": { "alias": "a", "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "a" } } } });
    scene.cluster.apply(&configuration).await.unwrap();
    let backup = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
        "metadata": { "name": "by-hand", "namespace": scene.b },
        "spec": { "invoker": { "kind": "BackupConfiguration", "name": "files" } } });
    let backup = scene.cluster.apply(&backup).await.unwrap();
    real_job(&scene.cluster, &backup, "prepare").await;
    let made = SnapshotMade { id: "cd".repeat(32), path: "/stash-data".into(), ..SnapshotMade::default() };
    let kept = RepositoryFacts { integrity: Some(true), retained: true, ..Default::default() };
    for (step, key, answer) in [
        ("prepare", "prepare", Answer::Prepared { created: true }),
        ("backup", "backup/0/a", Answer::BackedUp(vec![made])),
        ("maintain", "maintain", Answer::Maintained(kept)),
    ] {
        let pod = Forged::new(&backup, step, key).pod(step, &scene.a);
        forged::run(&scene.cluster, &attacker, &pod, &done(&backup, answer)).await;
    }
    scene.looked_at(&operator, &backup).await;
    for step in ["prepare", "backup/", "maintain"] {
        let job = real_job(&scene.cluster, &backup, step).await;
        jobs::end(&scene.cluster, &job, &jobs::success(&job)).await;
    }
    let now = scene.cluster.until_phase(&backup, "Succeeded").await;
    assert!(!shows(&now, &"cd".repeat(32)), "{:#}", now["status"]);
}

/// Jobs of a Repository itself: a list that was never made, and a forged removal of its data.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn pods_of_another_namespace_neither_list_nor_wipe_a_repository() {
    let scene = Scene::enter("own").await;
    let attacker = scene.attacker(Role::Edit).await;
    let operator = leading(&scene, &[]).await;
    scene.cluster.patch(&scene.repository(), json!({ "spec": { "wipeOut": true } })).await.unwrap();
    let repository = scene.cluster.until(&scene.repository(), "held", jobs::is_held).await;
    let list = real_job(&scene.cluster, &repository, "list").await;
    for (step, answer) in [
        ("list", Answer::Listed { snapshots: forged::LIE, written: 1, removed: 0, absent: None }),
        ("wipe", Answer::Wiped { snapshots: forged::LIE }),
        ("probe", Answer::Probed),
    ] {
        let pod = Forged::new(&repository, step, step).pod(step, &scene.a);
        forged::run(&scene.cluster, &attacker, &pod, &done(&repository, answer)).await;
    }
    scene.looked_at(&operator, &repository).await;
    let honest = done(&repository, Answer::Listed { snapshots: 3, written: 3, removed: 0, absent: None });
    jobs::end(&scene.cluster, &list, &honest).await;
    let listed = |r: &Value| r["status"]["snapshotCount"].is_number();
    let now = scene.cluster.until(&repository, "listed", listed).await;
    assert_eq!(now["status"]["snapshotCount"], 3, "{:#}", now["status"]);
    scene.cluster.delete(&repository).await;
    let wipe = real_job(&scene.cluster, &repository, "wipe").await;
    assert!(!scene.cluster.get(&repository).await.is_null(), "it stays until its data is gone");
    jobs::end(&scene.cluster, &wipe, &jobs::success(&wipe)).await;
    scene.cluster.until(&repository, "gone", Value::is_null).await;
}

/// A run of the attacker with the same name has another uid. The attacker may forge anything for it.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_session_of_the_same_name_is_another() {
    let scene = Scene::enter("same").await;
    let attacker = scene.attacker(Role::Edit).await;
    jobs::ground(&scene.cluster, &scene.a, &["a"], &[]).await;
    let _operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    let mut own = jobs::session(&scene.a, &jobs::target("PersistentVolumeClaim", "a"));
    own["metadata"]["annotations"] = json!({ lifeboat::names::annotation::STEP_KEY: "restore/0/a",
        lifeboat::names::annotation::SESSION_NAMESPACE: scene.b,
        lifeboat::names::annotation::REPOSITORY: format!("{}/repo", scene.b) });
    own["metadata"]["labels"] = json!({ lifeboat::names::label::SESSION_UID: uid(&victim),
        lifeboat::names::label::SESSION_KIND: "RestoreSession", lifeboat::names::label::STEP: "restore" });
    let own = attacker.create(&own).await;
    // Labels of a session are copied to its Jobs, except for these.
    let job = real_job(&scene.cluster, &own, "preflight").await;
    assert_eq!(job.labels()[lifeboat::names::label::SESSION_UID], uid(&own));
    assert_eq!(jobs::key(&job), jobs::key(&real_job(&scene.cluster, &victim, "preflight").await));
    jobs::end(&scene.cluster, &job, &preflight(&own)).await;
    let job = real_job(&scene.cluster, &own, "restore/").await;
    jobs::end(&scene.cluster, &job, &restored(&own)).await;
    scene.cluster.until_phase(&own, "Succeeded").await;
    scene.goes_well(&victim).await;
}

/// One namespace cancels its own session; the other users of the Repository continue.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_cancel_is_of_one_session_of_a_shared_repository() {
    let (scene, attacker) = Scene::shared("cancel").await;
    let _operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    let real = real_job(&scene.cluster, &victim, "preflight").await;
    let own = attacker.create(&scene.restore_from_victim("run")).await;
    let job = real_job(&scene.cluster, &own, "preflight").await;
    attacker.patch(&own, json!({ "spec": { "cancel": true } })).await.unwrap();
    jobs::collect(&scene.cluster, &job).await;
    scene.cluster.until_phase(&own, "Failed").await;
    assert!(scene.cluster.get(&json!(real_with_kind(&real))).await["metadata"]["deletionTimestamp"].is_null());
    scene.goes_well(&victim).await;
}

fn real_with_kind(job: &k8s_openapi::api::batch::v1::Job) -> Value {
    let mut job = json!(job);
    job["apiVersion"] = "batch/v1".into();
    job["kind"] = "Job".into();
    job
}

/// The ServiceAccount of a grant, created first by the attacker: the operator still removes its right and the account.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn an_account_that_was_there_first_keeps_no_right() {
    let scene = Scene::enter("account").await;
    let attacker = scene.attacker(Role::Edit).await;
    scene.allow(json!({ "from": "All" })).await;
    let _operator = leading(&scene, &[]).await;
    // The claim is missing, so nothing is created yet, but the future names are known.
    let session = attacker.create(&scene.restore_from_victim("first")).await;
    scene.cluster.until_phase(&session, "Pending").await;
    let id = Identity {
        uid: uid(&session),
        name: "first".into(),
        namespace: scene.a.clone(),
        kind: "RestoreSession".into(),
        ..Identity::default()
    };
    let secret = SecretPlace { namespace: scene.b.clone(), name: "secret".into() };
    let account = rbac::to_read(&id, &secret, [None], &lifeboat::api::runtime::RuntimeSettings::default()).status.name;
    let own = json!({ "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": account, "namespace": scene.a, "labels": { "mine": "true" } } });
    let own = attacker.create(&own).await;
    let bearer = attacker.as_account(&account).await;
    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(bearer, &scene.b);
    assert_eq!(code(secrets.get("secret").await), 403, "announced is not given");
    scene.claim_of_attacker(&attacker).await;
    let made = |o: &Value| ["Running", "Failed"].iter().any(|p| o["status"]["phase"] == *p);
    scene.cluster.until(&session, "goes on", made).await;
    scene.allow(json!({ "from": "Same" })).await;
    let bindings = Api::<RoleBinding>::namespaced(scene.cluster.client.clone(), &scene.b);
    let of_run = ListParams::default().labels(&format!("{}={}", lifeboat::names::label::SESSION_UID, uid(&session)));
    eventually("nothing can be read", SOON, || async {
        // Without the account, its token is invalid.
        let answer = code(secrets.get("secret").await);
        let left = bindings.list(&of_run).await.unwrap().items.len();
        if is_denied(answer) && left == 0 { Ok(()) } else { Err(format!("{answer}, {left} bindings")) }
    })
    .await;
    let accounts = Api::<ServiceAccount>::namespaced(scene.cluster.client.clone(), &scene.a);
    let now = accounts.get_opt(&account).await.unwrap();
    let unmade = now.is_none_or(|a| a.uid().is_some_and(|u| u == uid(&own)));
    assert!(unmade, "what the operator made for the run is gone with it");
}

/// Claims of other namespaces do not affect the victim's claims, whatever their names.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_job_of_another_namespace_holds_no_claim() {
    let scene = Scene::enter("claim").await;
    let attacker = scene.attacker(Role::Edit).await;
    let stranger = json!({ "kind": "RestoreSession",
        "metadata": { "name": "stranger", "uid": "11111111-2222-3333-4444-555555555555" } });
    let mut job = Forged::new(&stranger, "restore", "restore/0/a").job("writes", &scene.a);
    job["spec"]["template"]["spec"]["volumes"] =
        json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "a" } }]);
    attacker.create(&job).await;
    let _operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    scene.goes_well(&victim).await;
}

/// In one namespace: a Job without a session, by a user who may create only Jobs there, holds no claim forever.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn a_job_of_no_session_holds_no_claim_of_its_own_namespace() {
    let scene = Scene::enter("inside").await;
    let insider = super::actors::Actor::bound(&scene.cluster, Role::Edit, &scene.b).await;
    let stranger = json!({ "kind": "RestoreSession",
        "metadata": { "name": "stranger", "uid": "11111111-2222-3333-4444-555555555555" } });
    let mut job = Forged::new(&stranger, "restore", "restore/0/a").job("writes", &scene.b);
    job["spec"]["template"]["spec"]["volumes"] =
        json!([{ "name": "data", "persistentVolumeClaim": { "claimName": "a" } }]);
    insider.create(&job).await;
    let _operator = leading(&scene, &[]).await;
    let victim = scene.victim("run").await;
    scene.goes_well(&victim).await;
}

/// An alias that no path, argument or line can hold is refused; a lookalike of another name is a different name.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn an_alias_is_refused_or_taken_as_it_is() {
    let scene = Scene::enter("alias").await;
    let attacker = scene.attacker(Role::Restorer).await;
    jobs::ground(&scene.cluster, &scene.a, &["a"], &[]).await;
    let _operator = leading(&scene, &["--jobs-per-repository", "50"]).await;
    let long = "a".repeat(5000);
    let wrong = ["a b", "a/b", "../a", "a\nb", "a\0b", &long];
    let odd = ["\u{430}", "a\u{200b}", "a\u{202e}b", "--tag", "-", "."];
    for (n, alias) in wrong.iter().chain(&odd).enumerate() {
        let mut session = jobs::session(&scene.a, &jobs::target("PersistentVolumeClaim", "a"));
        session["metadata"]["name"] = format!("alias-{n}").into();
        session["spec"]["target"]["alias"] = (*alias).into();
        let session = match attacker.try_create(&session).await {
            Err(kube::Error::Api(status)) if [400, 403, 422].contains(&status.code) => continue,
            other => other.unwrap(),
        };
        let told = scene.cluster.until(&session, "judged", |o| o["status"]["phase"].is_string()).await;
        assert!(told["status"].to_string().len() < 20_000);
        if told["status"]["phase"] == "Invalid" {
            continue;
        }
        assert!(odd.contains(alias), "{alias:?}: {:#}", told["status"]);
        let job = real_job(&scene.cluster, &session, "preflight").await;
        assert_eq!(jobs::task(&job).parts[0].name, *alias);
    }
}

/// Numbers at the limits of their types must not end the operator.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn no_number_ends_the_operator() {
    let scene = Scene::enter("numbers").await;
    let attacker = scene.attacker(Role::Edit).await;
    jobs::ground(&scene.cluster, &scene.a, &["a"], &[]).await;
    let mut operator = leading(&scene, &[]).await;
    let mut session = jobs::session(&scene.a, &jobs::target("PersistentVolumeClaim", "a"));
    let fields = [
        ("/spec/timeOut", json!("99999999999999h")),
        ("/spec/timeOut", json!("0s")),
        ("/spec/timeOut", json!("1ns")),
        ("/spec/target/rules/0/previous", json!(i64::MAX)),
        ("/spec/target/rules/0/asOf", json!("9999-12-31T23:59:59Z")),
        ("/spec/target/rules/0/asOf", json!("0000-01-01T00:00:00Z")),
    ];
    for (n, (field, value)) in fields.iter().enumerate() {
        let mut one = session.clone();
        one["metadata"]["name"] = format!("number-{n}").into();
        let (parent, key) = field.rsplit_once('/').unwrap();
        one.pointer_mut(parent).unwrap()[key] = value.clone();
        if let Ok(one) = attacker.try_create(&one).await {
            scene.cluster.until(&one, "judged", |o| o["status"]["phase"].is_string()).await;
        }
    }
    session["metadata"]["name"] = "control".into();
    attacker.create(&session).await;
    assert!(operator.is_running());
    let victim = scene.victim("run").await;
    scene.goes_well(&victim).await;
}

/// A user of a Repository sees no messages to other users of it.
#[tokio::test]
#[ignore = "needs an API server: make test-tenants"]
async fn what_one_tenants_run_says_stands_in_no_status_of_anothers() {
    let (scene, attacker) = Scene::shared("words").await;
    let _operator = leading(&scene, &[]).await;
    let own = attacker.create(&scene.restore_from_victim("says")).await;
    let job = real_job(&scene.cluster, &own, "preflight").await;
    let away = failed(&own, Class::Transient, lifeboat::names::reason::REPOSITORY_UNREACHABLE);
    jobs::end(&scene.cluster, &job, &away).await;
    let noted = |o: &Value| o["status"].to_string().contains(lifeboat::names::reason::REPOSITORY_UNREACHABLE);
    scene.cluster.until(&own, "noted", noted).await;
    let victim = scene.victim("run").await;
    let now = scene.cluster.until(&victim, "judged", |o| o["status"]["phase"].is_string()).await;
    assert!(!shows(&now, TEXT), "{:#}", now["status"]);
    assert_ne!(condition(&now, "Reconciling").1, "RepositoryUnreachable", "{:#}", now["status"]);
    assert!(!real_jobs(&scene.cluster, &victim).await.is_empty() || now["status"]["phase"] == "Pending");
    scene.goes_well(&victim).await;
}
