//! What can be observed with only a client and stores, as in the plugin.

use std::convert::Infallible;
use std::sync::Mutex;

use axum::body::Body as Answer;
use axum::http::{Request, Response};
use kube::client::Body;
use kube::runtime::reflector;
use kube::runtime::reflector::store::Writer;
use serde_json::{Value, json};

use crate::api::Repository;
use crate::api::common::{RepositoryRef, TargetRef};
use crate::controller::cache::children::Children;
use crate::controller::cache::consumers::Consumers;
use crate::controller::cache::scope::Scope;
use crate::controller::cache::verdicts::Verdicts;
use crate::controller::observe::reads::*;
use crate::controller::observe::{repository, targets};
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

/// An API server with one Secret and one claim, and the requests that it got.
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
