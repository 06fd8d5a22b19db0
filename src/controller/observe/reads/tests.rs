//! What can be observed with only a client and stores, as in the plugin.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::body::Body as Answer;
use axum::http::{Request, Response};
use kube::client::Body;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use serde_json::{Value, json};

use crate::api::backup_session::{BackupPhase, BackupSessionStatus};
use crate::api::common::{RepositoryRef, TargetRef};
use crate::api::restore_session::RunStatus;
use crate::api::{BackupConfiguration, BackupSession, Repository};
use crate::controller::cache::children::Children;
use crate::controller::cache::consumers::Consumers;
use crate::controller::cache::scope::Scope;
use crate::controller::cache::verdicts::Verdicts;
use crate::controller::observe::reads::*;
use crate::controller::observe::{backup, repository, targets};
use crate::plan::fake::setup;
use crate::plan::seen::Seen;
use crate::plan::seen::target::TargetSeen;

fn empty<K>() -> Indexed<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    Indexed::new(reflector::store().0, |_| vec![])
}

fn stores(repositories: reflector::Store<Stored<Repository>>) -> Stores {
    let children = || Children { jobs: empty(), pods: empty() };
    Stores {
        scope: Scope::default(),
        repositories: Indexed::new(repositories, |_| vec![]),
        consumers: Consumers {
            configurations: empty(),
            batches: empty(),
            backups: empty(),
            restores: empty(),
            restore_batches: empty(),
        },
        verdicts: Verdicts::default(),
        of_restore_sessions: children(),
        of_restore_batches: children(),
        of_backup_sessions: children(),
        of_repositories: children(),
    }
}

fn configuration(excluded: &str) -> Value {
    json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupConfiguration",
        "metadata": { "name": "c", "namespace": "n", "uid": "u", "resourceVersion": "1" },
        "spec": { "repository": { "name": "r" }, "retentionPolicy": { "name": "five", "keepLast": 5, "prune": true },
            "target": { "ref": { "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data" },
                "paths": ["/data"], "volumeMounts": [{ "name": "data", "mountPath": "/data" }], "exclude": [excluded] } } })
}

/// An API server with one Secret, one claim and one configuration, and the requests that it got.
fn server() -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let heard = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        let metadata = json!({ "name": "data", "namespace": "n", "uid": "u", "resourceVersion": "1" });
        let answer = match path.as_str() {
            "/api/v1/namespaces/n/secrets/key" => json!({ "metadata": { "name": "key", "resourceVersion": "1" } }),
            "/api/v1/namespaces/n/persistentvolumeclaims/data" => {
                json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata })
            }
            "/apis/stash.appscode.com/v1beta1/namespaces/n/backupconfigurations/c" => configuration("new"),
            _ => json!({ "metadata": {}, "items": [] }),
        };
        heard.lock().unwrap().push(format!("{} {path}", request.method()));
        async move { Ok::<_, Infallible>(Response::new(Answer::from(Value::to_string(&answer)))) }
    });
    (Client::new(service, "default"), asked)
}

#[tokio::test]
async fn a_client_and_stores_are_enough_to_observe() {
    let (store, mut writer): (_, Writer<Stored<Repository>>) = reflector::store();
    let object: Stored<Repository> = serde_json::from_value(json!({
        "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
        "metadata": { "name": "r", "namespace": "n" },
        "spec": { "backend": { "s3": { "endpoint": "s3.example.com", "bucket": "b" }, "storageSecretName": "key" } },
    }))
    .unwrap();
    writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(object));
    let (client, asked) = server();
    let reads = Reads::new(client, stores(store));

    let reference = RepositoryRef { name: "r".into(), namespace: None };
    let Seen::Found(found) = repository::referenced(&reads, Some(&reference), "n", false).await else { panic!() };
    assert_eq!(found.secret, Seen::Found(()));
    assert_eq!(found.spec.backend.unwrap().storage_secret_name.as_deref(), Some("key"));
    let claim: TargetRef =
        serde_json::from_value(json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": "data" })).unwrap();
    let TargetSeen::Found(target) = targets::target(reads.live("n"), None, Some(&claim)).await else { panic!() };
    assert!(target.claims["data"].exists);
    assert!(asked.lock().unwrap().iter().all(|request| request.starts_with("GET ")), "{asked:?}");
}

/// The watches of two kinds lag differently: a user changes a configuration, and then creates a session.
#[tokio::test]
async fn a_backup_begins_with_its_invoker_as_the_api_server_has_it() {
    let (store, mut writer): (_, Writer<Stored<BackupConfiguration>>) = reflector::store();
    let old: Stored<BackupConfiguration> = serde_json::from_value(configuration("old")).unwrap();
    writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(old));
    let (client, asked) = server();
    let mut all = stores(reflector::store().0);
    all.consumers.configurations = Indexed::new(store, |_| vec![]);
    let reads = Reads::new(client, all);
    let observed = async |phase: Option<BackupPhase>, begun: Option<&String>| {
        let run = begun.map(|hash| RunStatus { spec_hash: Some(hash.clone()), ..RunStatus::default() });
        let status = BackupSessionStatus { phase, run, ..BackupSessionStatus::default() };
        let session = json!({ "apiVersion": "stash.appscode.com/v1beta1", "kind": "BackupSession",
            "metadata": { "name": "s", "namespace": "n", "uid": "v", "resourceVersion": "1" },
            "spec": { "invoker": { "kind": "BackupConfiguration", "name": "c" } }, "status": status });
        let stored: Stored<BackupSession> = serde_json::from_value(session).unwrap();
        let run = backup::run(&reads, &setup(), &stored, &stored.open()).await.unwrap().0;
        let invoker = run.invoker.unwrap();
        let excluded = json!(invoker.members)[0].to_string();
        assert!(excluded.contains("old") != excluded.contains("new"), "{excluded}");
        (invoker.hash(), excluded.contains("new"))
    };
    let is_new = |(_, is_new): (String, bool)| is_new;
    let new = observed(None, None).await;
    let old = observed(Some(BackupPhase::Succeeded), None).await;
    assert!(is_new(new.clone()) && !is_new(old.clone()) && new.0 != old.0);
    let before = asked.lock().unwrap().len();
    assert!(!is_new(observed(Some(BackupPhase::Running), Some(&old.0)).await));
    assert_eq!(asked.lock().unwrap().len(), before, "what is known is not asked for");
    assert!(is_new(observed(Some(BackupPhase::Running), Some(&new.0)).await));
}
