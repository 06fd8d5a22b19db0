//! The objects that the bench creates in the cluster, and the times at which it saw the objects of the operator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DynamicObject, PostParams, WatchEvent, WatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::jobs;
use crate::operator::Operator;

/// Longest wait of any section for one event.
pub const PATIENCE: Duration = Duration::from_mins(5);
/// Number of connections that create objects in parallel when many are needed.
const HANDS: usize = 16;

/// Flags of the operator in the sections: without the webhook, and with slots for all their Jobs.
pub const FLAGS: [&str; 6] = ["--webhook", "false", "--jobs-per-repository", "100000", "--snapshot-sync", "0s"];

/// A leading operator.
pub async fn operator() -> Operator {
    let operator = Operator::start("bench", &FLAGS);
    operator.leads_within(Duration::from_secs(30)).await;
    operator
}

/// Resident memory of a process, in MB of 10^6 bytes.
pub fn rss(operator: &Operator) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0 / 1e6
}

/// CPU time that a process has used.
pub fn cpu(operator: &Operator) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", operator.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// A namespace with Repository and Secret.
pub async fn namespace(cluster: &Cluster, name: &str) -> String {
    let namespace = cluster.namespace(name).await;
    jobs::ground(cluster, &namespace, &[], &[]).await;
    namespace
}

/// Creates a claim for each name.
pub async fn claims(cluster: &Cluster, namespace: &str, names: &[String]) {
    let claim = |name: &String| {
        json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name, "namespace": namespace },
            "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } })
    };
    create_all(cluster, names.iter().map(claim).collect()).await;
}

/// A session with this name that restores the claim of the same name.
pub fn session(namespace: &str, name: &str) -> Value {
    let mut object = jobs::session(namespace, &jobs::target("PersistentVolumeClaim", name));
    object["metadata"]["name"] = name.into();
    object
}

/// Creates an object; returns the time just before the request.
pub async fn create(cluster: &Cluster, object: &Value) -> Instant {
    let parsed: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    let api = cluster.api_of(object);
    let sent = Instant::now();
    api.create(&PostParams::default(), &parsed).await.unwrap();
    sent
}

/// Creates many objects, a few at once.
pub async fn create_all(cluster: &Cluster, objects: Vec<Value>) {
    stream::iter(&objects)
        .for_each_concurrent(HANDS, |object| async {
            create(cluster, object).await;
        })
        .await;
}

/// Names with a prefix.
pub fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{prefix}-{i:05}")).collect()
}

type Events<K> = stream::BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Events of all existing objects and of later changes.
async fn watch<K>(api: &Api<K>) -> kube::Result<Events<K>>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    Ok(api.watch(&WatchParams::default(), "0").await?.boxed())
}

/// Time of the first observation for each name.
pub struct Seen {
    when: Arc<Mutex<BTreeMap<String, Instant>>>,
    news: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Seen {
    /// The first Job of each session of the namespace.
    pub async fn jobs(cluster: &Cluster, namespace: &str) -> Self {
        let api: Api<Job> = Api::namespaced(cluster.client.clone(), namespace);
        Self::watch(api, |job| Some(jobs::session_of(job))).await
    }

    /// Each session of the namespace, once `is` is true for it.
    pub async fn sessions(cluster: &Cluster, namespace: &str, is: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        let api = cluster.api("stash.appscode.com/v1beta1", "RestoreSession", namespace);
        Self::watch(api, move |o| is(&json!(o)).then(|| o.name_any())).await
    }

    async fn watch<K>(api: Api<K>, key: impl Fn(&K) -> Option<String> + Send + 'static) -> Self
    where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let (when, news) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(Notify::new()));
        let (into, tell) = (when.clone(), news.clone());
        // Opened before any object is created, and again when it breaks.
        let mut events = watch(&api).await.unwrap();
        let task = tokio::spawn(async move {
            loop {
                while let Some(Ok(event)) = events.next().await {
                    let now = Instant::now();
                    if let WatchEvent::Added(o) | WatchEvent::Modified(o) = event
                        && let Some(key) = key(&o)
                    {
                        into.lock().unwrap().entry(key).or_insert(now);
                        tell.notify_waiters();
                    }
                }
                while let Err(error) = watch(&api).await.map(|again| events = again) {
                    eprintln!("a watch of the bench does not open: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        });
        Self { when, news, task }
    }

    /// Times at which these names were first seen; waits for all of them.
    pub async fn all(&self, names: &[String]) -> Vec<Instant> {
        let look = async {
            loop {
                let heard = self.news.notified();
                let found: Option<Vec<Instant>> = {
                    let when = self.when.lock().unwrap();
                    names.iter().map(|n| when.get(n).copied()).collect()
                };
                match found {
                    Some(found) => return found,
                    None => drop(tokio::time::timeout(Duration::from_secs(1), heard).await),
                }
            }
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_else(|_| {
            let when = self.when.lock().unwrap();
            let missing: Vec<&String> = names.iter().filter(|n| !when.contains_key(*n)).take(5).collect();
            panic!("not seen within {PATIENCE:?}: {missing:?} and perhaps more")
        })
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Plays the Job controller when no node has capacity: every Job of the namespace has a pending pod.
pub struct Unscheduled(tokio::task::JoinHandle<()>);

impl Unscheduled {
    /// For existing Jobs, and those that are created from now on.
    pub fn of(cluster: &Arc<Cluster>, namespace: &str) -> Self {
        let (cluster, api) = (cluster.clone(), Api::<Job>::namespaced(cluster.client.clone(), namespace));
        let jobs = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
        let start = move |job: kube::runtime::watcher::Result<Job>| {
            let cluster = cluster.clone();
            async move {
                if let Ok(job) = job {
                    jobs::start(&cluster, &job).await;
                }
            }
        };
        Self(tokio::spawn(jobs.for_each_concurrent(HANDS, start)))
    }
}

impl Drop for Unscheduled {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Plays kubelet and Job controller: every Job of the namespace succeeds as soon as it is seen. Records the time for
/// each Job.
pub struct Kubelet {
    spent: Arc<Mutex<Duration>>,
    task: tokio::task::JoinHandle<()>,
}

impl Kubelet {
    /// For the Jobs that are created from now on.
    pub async fn of(cluster: &Arc<Cluster>, namespace: &str) -> Self {
        let spent = Arc::new(Mutex::new(Duration::ZERO));
        let (into, cluster, namespace) = (spent.clone(), cluster.clone(), namespace.to_owned());
        let api: Api<Job> = Api::namespaced(cluster.client.clone(), &namespace);
        let mut events = watch(&api).await.unwrap();
        let task = tokio::spawn(async move {
            while let Some(Ok(event)) = events.next().await {
                let seen = Instant::now();
                if let WatchEvent::Added(job) = event {
                    let (into, cluster) = (into.clone(), cluster.clone());
                    tokio::spawn(async move {
                        jobs::end(&cluster, &job, &jobs::success(&job)).await;
                        *into.lock().unwrap() += seen.elapsed();
                    });
                }
            }
        });
        Self { spent, task }
    }

    /// Time that the Jobs took.
    pub fn spent(&self) -> Duration {
        *self.spent.lock().unwrap()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}
