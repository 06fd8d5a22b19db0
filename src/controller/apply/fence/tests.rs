//! Each write of this module, by a replica that leads and by a replica that does not lead.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body as Answer;
use axum::http::{Request, Response};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::events::Reporter;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::restore_session::GrantStatus;
use crate::api::{BackupBlueprint, BackupConfiguration, Repository, RestoreSession};
use crate::controller::apply::counters::{Counters, Reconciled};
use crate::controller::apply::fence::*;
use crate::controller::apply::writes::Writes;
use crate::controller::apply::{invoker, objects, status};
use crate::controller::cache::slots::Slots;
use crate::controller::cache::stored::Stored;
use crate::plan::backup::sessions::NewSession;
use crate::plan::effects::{Event, FinalizerChange, Grant, Hold, Plan, Scale, Stop};

struct Nobody;

impl Counters for Nobody {
    fn reconciled(&self, _: &str, _: Reconciled, _: Duration) {}
    fn job_created(&self, _: &str) {}
    fn run_ended(&self, _: &str, _: &str, _: Duration) {}
    fn outcome(&self, _: &str, _: &str) {}
}

/// Writes of a replica, and those of them that have reached the API server. The API server accepts everything.
fn replica(leads: bool) -> (Writes, Arc<Mutex<Vec<String>>>) {
    let reached = Arc::<Mutex<Vec<String>>>::default();
    let heard = reached.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let heard = heard.clone();
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            if !method.is_safe() {
                heard.lock().unwrap().push(format!("{method} {path}"));
            }
            let bytes = request.into_body().collect_bytes().await.unwrap();
            let mut object: Value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({}));
            if path.ends_with("/scale") {
                object = json!({ "apiVersion": "autoscaling/v1", "kind": "Scale" });
            }
            object["metadata"] = json!({ "name": "x", "namespace": "n", "uid": "u", "resourceVersion": "2" });
            if object.get("spec").is_none() {
                object["spec"] = spec();
            }
            Ok::<_, Infallible>(Response::new(Answer::from(object.to_string())))
        }
    });
    let client = Fenced::new(&Client::new(service, "n"), move || leads);
    let reporter = Reporter { controller: "lifeboat".into(), instance: None };
    (Writes::new(&client, reporter, Slots::default(), Arc::new(Nobody), Arc::new(|| Timestamp::UNIX_EPOCH)), reached)
}

/// Fields that some kinds of the operator require.
fn spec() -> Value {
    json!({ "retentionPolicy": { "name": "keep", "prune": true } })
}

fn named<K: DeserializeOwned>(kind: &str, api_version: &str) -> K {
    let metadata = json!({ "name": "x", "namespace": "n", "uid": "u", "resourceVersion": "1" });
    let object = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec(), "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x" } });
    serde_json::from_value(object).unwrap()
}

/// Plans that each request one write.
fn plans() -> Vec<(&'static str, Plan)> {
    let right = || GrantStatus { name: "x".into(), namespace: "n".into() };
    let grant = Grant {
        status: right(),
        account: Some(named::<ServiceAccount>("ServiceAccount", "v1")),
        role: named::<Role>("Role", "rbac.authorization.k8s.io/v1"),
        binding: named::<RoleBinding>("RoleBinding", "rbac.authorization.k8s.io/v1"),
    };
    let session = NewSession { session: named("BackupSession", "stash.appscode.com/v1beta1"), other_name: "y".into() };
    let (kind, name) = ("Deployment".to_owned(), "x".to_owned());
    vec![
        ("revoke", Plan { revoke: vec![right()], ..Plan::nothing() }),
        ("finalizer", Plan { finalizer: Some(FinalizerChange::Add), ..Plan::nothing() }),
        ("last finalizer", Plan { finalizer: Some(FinalizerChange::Remove), ..Plan::nothing() }),
        (
            "claim",
            Plan { claims: vec![named::<PersistentVolumeClaim>("PersistentVolumeClaim", "v1")], ..Plan::nothing() },
        ),
        ("grant", Plan { grants: vec![grant], ..Plan::nothing() }),
        ("job", Plan { jobs: vec![named::<Job>("Job", "batch/v1")], ..Plan::nothing() }),
        ("stop", Plan { stop_jobs: vec![Stop { name: "x".into(), uid: Some("u".into()) }], ..Plan::nothing() }),
        (
            "scale",
            Plan { scales: vec![Scale { kind: kind.clone(), name: name.clone(), replicas: 0 }], ..Plan::nothing() },
        ),
        ("hold", Plan { holds: vec![Hold { kind, name, note: None }], ..Plan::nothing() }),
        ("session", Plan { sessions: vec![session], ..Plan::nothing() }),
    ]
}

fn restore() -> RestoreSession {
    named("RestoreSession", "stash.appscode.com/v1beta1")
}

/// Every write of the module by name, and its result.
async fn write_all(writes: &Writes) -> Vec<(&'static str, kube::Result<()>)> {
    let mut ends = vec![];
    for (name, plan) in plans() {
        ends.push((name, objects::apply(writes, &restore(), plan).await.map(drop)));
    }
    let status = json!({ "phase": "Running" });
    ends.push(("status", status::write_status(writes, &restore(), &status).await.map(drop)));
    let blueprint: BackupBlueprint = named("BackupBlueprint", "stash.appscode.com/v1beta1");
    ends.push(("status of a cluster", status::write_in_cluster(writes, &blueprint, &json!({})).await));
    let mut repository: Repository = named("Repository", "stash.appscode.com/v1alpha1");
    repository.status = Some(serde_json::from_value(json!({ "snapshotCount": 1 })).unwrap());
    ends.push(("status less", status::take_out(writes, Stored::from(repository), &json!({})).await.map(drop)));
    let shown: BackupConfiguration = named("BackupConfiguration", "stash.appscode.com/v1beta1");
    let surplus = crate::plan::backup::invoker::seen::InvokerPlan {
        create: None,
        delete: vec!["old".into()],
        phase: crate::api::common::InvokerPhase::Ready,
        has_ground: false,
        conditions: vec![],
        target_conditions: vec![],
        last: None,
        next: None,
        in_force: None,
        record: crate::plan::backup::invoker::seen::Record::default(),
        events: vec![],
        requeue: None,
    };
    let stored = Stored::from(shown.clone());
    ends.push(("invoker", invoker::apply(writes, &stored, &shown, &surplus).await.map(drop)));
    ends
}

#[tokio::test]
async fn each_write_asks_for_leadership_before_it_is_sent() {
    let (writes, reached) = replica(true);
    for (name, end) in Box::pin(write_all(&writes)).await {
        assert!(end.is_ok(), "{name}: {end:?}");
    }
    status::publish(&writes, &restore(), &Event::new(false, "Reason", "text")).await;
    let all = reached.lock().unwrap().clone();
    // A grant is three objects. An invoker has its status and a deleted session. An event is one more write.
    assert_eq!(all.len(), plans().len() + 2 + 2 + 3 + 2 + 1, "{all:#?}");

    let (writes, reached) = replica(false);
    for (name, end) in Box::pin(write_all(&writes)).await {
        assert!(end.as_ref().is_err_and(NotLeading::is), "{name}: {end:?}");
    }
    status::publish(&writes, &restore(), &Event::new(false, "Reason", "text")).await;
    assert_eq!(*reached.lock().unwrap(), Vec::<String>::new());
    assert_eq!(restore().name_any(), "x");
}
