//! Two namespaces: `rt-a` of the attacker and `rt-b` of the victim, and the actions of the victim.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use lifeboat::names::annotation;
use serde_json::{Value, json};

use super::actors::{Actor, Role};
use super::cluster::{Cluster, SOON, eventually};
use super::jobs::{self, ground, session, target};
use super::operator::{Operator, STEADY};

/// Count of files in an honest restore.
pub const HONEST_FILES: i64 = 7;

/// Time after its start in which the operator postpones reconciles of runs that only wait for their Jobs: 5 s from when
/// its caches are filled, and the time until then.
const STARTS_FOR: Duration = Duration::from_secs(8);

pub struct Scene {
    pub cluster: Cluster,
    /// Namespace of the attacker.
    pub a: String,
    /// Namespace of the victim, with a Repository `repo`, its Secret, and a claim `a`.
    pub b: String,
}

impl Scene {
    pub async fn enter(name: &str) -> Self {
        Self::of(Cluster::enter().await, name).await
    }

    /// A scene with the cluster to itself: it changes the definitions.
    pub async fn alone(name: &str) -> Self {
        Self::of(Cluster::enter_alone().await, name).await
    }

    async fn of(cluster: Cluster, name: &str) -> Self {
        let a = cluster.namespace(&format!("rt-a-{name}")).await;
        let b = cluster.namespace(&format!("rt-b-{name}")).await;
        ground(&cluster, &b, &["a"], &[]).await;
        Self { cluster, a, b }
    }

    /// A scene in which all may use the victim's Repository, and the attacker, with `edit`, has a claim to restore
    /// into.
    pub async fn shared(name: &str) -> (Self, Actor) {
        let scene = Self::enter(name).await;
        let attacker = scene.attacker(Role::Edit).await;
        scene.claim_of_attacker(&attacker).await;
        scene.allow(json!({ "from": "All" })).await;
        (scene, attacker)
    }

    /// An attacker with this role in the attacker's namespace, and without any right in the victim's.
    pub async fn attacker(&self, role: Role) -> Actor {
        let actor = Actor::bound(&self.cluster, role, &self.a).await;
        for (group, resource) in [("", "pods"), ("batch", "jobs"), ("stash.appscode.com", "restoresessions")] {
            assert!(!actor.can("create", group, resource, &self.b).await, "{role:?} may create {resource} of others");
        }
        assert!(!actor.can("patch", "stash.appscode.com", "restoresessions/status", &self.a).await);
        actor
    }

    /// Creates a claim for the attacker's own restores.
    pub async fn claim_of_attacker(&self, attacker: &Actor) {
        attacker
            .create(&json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": { "name": "a", "namespace": self.a },
                "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } }))
            .await;
    }

    /// A restore of the attacker that names the victim's Repository.
    pub fn restore_from_victim(&self, name: &str) -> Value {
        let mut object = session(&self.a, &target("PersistentVolumeClaim", "a"));
        object["metadata"]["name"] = name.into();
        object["spec"]["repository"] = json!({ "name": "repo", "namespace": self.b });
        object
    }

    /// The victim's Repository.
    pub fn repository(&self) -> Value {
        json!({ "apiVersion": "stash.appscode.com/v1alpha1", "kind": "Repository",
            "metadata": { "name": "repo", "namespace": self.b } })
    }

    /// Sets the namespaces that may use the victim's Repository.
    pub async fn allow(&self, allowed: Value) {
        let policy = json!({ "spec": { "usagePolicy": { "allowedNamespaces": allowed } } });
        self.cluster.patch(&self.repository(), policy).await.unwrap();
    }

    /// Creates a restore of the victim.
    pub async fn victim(&self, name: &str) -> Value {
        let mut object = session(&self.b, &target("PersistentVolumeClaim", "a"));
        object["metadata"]["name"] = name.into();
        self.cluster.apply(&object).await.unwrap()
    }

    /// Waits until the operator has reconciled an object in the present state. One reconcile may be running, and
    /// another may be queued: of three that are requested one after the other, at least one began after this call.
    pub async fn looked_at(&self, operator: &Operator, object: &Value) {
        let kind = object["kind"].as_str().unwrap();
        let process = format!("/proc/{}", operator.pid());
        eventually("its start is over", STARTS_FOR * 2, || async {
            let age = std::fs::metadata(&process).unwrap().modified().unwrap().elapsed().unwrap_or_default();
            if age > STARTS_FOR { Ok(()) } else { Err(format!("{age:?}")) }
        })
        .await;
        for n in 0..3 {
            let before = looks(operator, kind).await;
            let touched = json!({ "metadata": { "annotations": { "touched": n.to_string() } } });
            self.cluster.patch(object, touched).await.unwrap();
            eventually("a look at it", SOON, || async {
                let now = looks(operator, kind).await;
                if now > before { Ok(()) } else { Err(format!("{now} looks")) }
            })
            .await;
        }
    }

    /// Plays node and Job controller for the victim's own Jobs, and checks that the session ends with their results.
    pub async fn goes_well(&self, session: &Value) -> Value {
        for step in ["preflight", "restore/"] {
            let job = real_job(&self.cluster, session, step).await;
            jobs::end(&self.cluster, &job, &jobs::success(&job)).await;
        }
        let done = self.cluster.until_phase(session, "Succeeded").await;
        let host = &done["status"]["stats"][0];
        assert_eq!(host["restored"]["files"], HONEST_FILES, "{host:#}");
        assert_eq!(host["snapshots"][0]["id"], "ab".repeat(32), "{host:#}");
        done
    }
}

/// The leading operator, without the webhook.
pub async fn leading(scene: &Scene, flags: &[&str]) -> Operator {
    let operator = Operator::start_in(&scene.cluster, "test", &[&STEADY, flags].concat());
    operator.leads_within(SOON * 2).await;
    operator
}

/// Number of reconciles of a kind, from the operator's metrics.
async fn looks(operator: &Operator, kind: &str) -> u64 {
    let (_, text) = operator.page("/metrics").await.unwrap();
    let of_kind = format!("lifeboat_reconciles_total{{kind=\"{kind}\"");
    let counts = text.lines().filter(|l| l.starts_with(&of_kind));
    counts.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

pub fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// Jobs that the operator created for an object: those that the object owns, in its namespace.
pub async fn real_jobs(cluster: &Cluster, object: &Value) -> Vec<Job> {
    let namespace = object["metadata"]["namespace"].as_str().unwrap();
    let all = Api::<Job>::namespaced(cluster.client.clone(), namespace).list(&ListParams::default()).await.unwrap();
    let uid = uid(object);
    let is_real = |j: &Job| j.owner_references().iter().any(|o| o.uid == uid) && j.labels().get("forged").is_none();
    all.items.into_iter().filter(is_real).collect()
}

/// Waits for the Job of a step that the operator creates for an object.
pub async fn real_job(cluster: &Cluster, object: &Value, step: &str) -> Job {
    let key = |j: &Job| j.annotations().get(annotation::STEP_KEY).cloned().unwrap_or_default();
    eventually(&format!("a Job of {step} of {}", name(object)), SOON * 2, || async {
        let now = cluster.get(object).await;
        let open = |j: &Job| key(j).starts_with(step) && j.metadata.deletion_timestamp.is_none();
        let found = real_jobs(cluster, object).await.into_iter().find(open);
        found.ok_or_else(|| format!("{:#}", now["status"]))
    })
    .await
}

/// Whether this text appears in the status of an object, which its author does not write.
pub fn shows(object: &Value, text: &str) -> bool {
    object["status"].to_string().contains(text)
}
