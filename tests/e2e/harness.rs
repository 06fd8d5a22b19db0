//! The environment of a test: its own namespace and bucket, and its requests to the cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use self::kinds::resource;
pub use self::polling::eventually;
use self::polling::{followed, steadily};
use super::watchman;

#[path = "kinds.rs"]
mod kinds;
#[path = "polling.rs"]
mod polling;

/// Longest time a session of a test may take on a busy machine.
const SESSION: u64 = 120;

/// One test's namespace, deleted with its content when the test has ended. Before that, every test deletes what it
/// wrote, and fails if an object of Lifeboat stays ([`Site::leaves_nothing`]).
pub struct Site {
    pub client: Client,
    pub namespace: String,
    /// Folder of the cluster.
    pub state: PathBuf,
    /// The namespace was deleted already.
    left: AtomicBool,
}

impl Site {
    pub async fn new(name: &str) -> Self {
        // The API server does not choose the name, because the name would be lost if the answer is lost.
        let unique = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() & 0xffff_ffff;
        Self::named(&format!("{name}-{unique:08x}")).await
    }

    /// In a namespace of exactly this name, which documentation uses.
    pub async fn named(name: &str) -> Self {
        let state = PathBuf::from(
            std::env::var("LIFEBOAT_CLUSTER_STATE").expect("LIFEBOAT_CLUSTER_STATE is not set: run make test-e2e"),
        );
        let client = Client::try_default().await.expect("KUBECONFIG is not set: run make test-e2e");
        watchman::start(&state);
        let site = Self { client, namespace: name.to_owned(), state, left: AtomicBool::new(false) };
        let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": site.namespace } });
        site.create(&space.to_string()).await;
        site
    }

    pub fn api(&self, kind: &str) -> Api<DynamicObject> {
        let resource = resource(kind);
        match kind {
            "PersistentVolume" | "Node" | "Namespace" | "BackupBlueprint" => {
                Api::all_with(self.client.clone(), &resource)
            }
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        }
    }

    /// Creates every document of a YAML text.
    pub async fn create(&self, yaml: &str) {
        if let Err(error) = self.try_create(yaml).await {
            panic!("{error}\n{yaml}");
        }
    }

    /// Creates every document, or returns why the API server refused one.
    pub async fn try_create(&self, yaml: &str) -> Result<(), kube::Error> {
        for document in lifeboat::yaml::read(yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")) {
            let kind = document["kind"].as_str().unwrap().to_owned();
            let object: DynamicObject = serde_json::from_value(document).unwrap();
            let (api, mut asked) = (self.api(&kind), 0);
            let made = steadily(async || {
                asked += 1;
                api.create(&PostParams::default(), &object).await
            });
            match made.await {
                // The object was created, and only the answer was lost.
                Err(kube::Error::Api(status)) if asked > 1 && status.is_already_exists() => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    pub async fn find(&self, kind: &str, name: &str) -> Option<Value> {
        let api = self.api(kind);
        let found = steadily(async || api.get_opt(name).await).await.unwrap();
        found.map(|o| serde_json::to_value(o).unwrap())
    }

    pub async fn get(&self, kind: &str, name: &str) -> Value {
        self.find(kind, name).await.unwrap_or_else(|| panic!("{kind} {name} is gone"))
    }

    pub async fn list(&self, kind: &str) -> Vec<Value> {
        self.try_list(kind).await.unwrap()
    }

    /// The same, or why the API server does not answer.
    pub async fn try_list(&self, kind: &str) -> kube::Result<Vec<Value>> {
        let api = self.api(kind);
        let list = steadily(async || api.list(&ListParams::default()).await).await?;
        Ok(list.items.into_iter().map(|o| serde_json::to_value(o).unwrap()).collect())
    }

    pub async fn patch(&self, kind: &str, name: &str, patch: Value) {
        let (api, patch) = (self.api(kind), Patch::Merge(patch));
        steadily(async || api.patch(name, &PatchParams::default(), &patch).await).await.unwrap();
    }

    pub async fn delete(&self, kind: &str, name: &str) {
        self.api(kind).delete(name, &DeleteParams::background()).await.unwrap();
    }

    /// The same, for an object that may be gone.
    pub async fn try_delete(&self, kind: &str, name: &str) {
        let api = self.api(kind);
        match steadily(async || api.delete(name, &DeleteParams::background()).await).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            other => drop(other.unwrap()),
        }
    }

    /// Waits until an object is as wanted, and gives it.
    pub async fn until(&self, kind: &str, name: &str, seconds: u64, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        followed(&self.api(kind), name, seconds, is).await.unwrap_or_else(|last| {
            panic!("{kind} {name} is not {what} after {seconds} s: {:#}", last["status"]);
        })
    }

    /// Waits until a session is over, and gives it.
    pub async fn ended(&self, kind: &str, name: &str) -> Value {
        let over = ["Succeeded", "Failed", "Invalid", "Skipped"];
        self.until(kind, name, SESSION, "over", |o| over.contains(&phase(o))).await
    }

    pub async fn succeeded(&self, kind: &str, name: &str) -> Value {
        let session = self.ended(kind, name).await;
        assert_eq!(phase(&session), "Succeeded", "{kind} {name}: {:#}", session["status"]);
        assert_eq!(condition(&session, "Ready").0, "True");
        session
    }

    /// Waits until the session is over, and asserts that it failed with this reason. Returns the message in its status.
    pub async fn failed(&self, kind: &str, name: &str, reason: &str) -> String {
        let session = self.ended(kind, name).await;
        assert_eq!(phase(&session), "Failed", "{kind} {name}: {:#}", session["status"]);
        let (stalled, why, _) = condition(&session, "Stalled");
        assert_eq!((stalled.as_str(), why.as_str()), ("True", reason), "{kind} {name}: {:#}", session["status"]);
        condition(&session, "Ready").2
    }

    /// Deletes the namespace with its content, and does not wait for the end of this.
    pub async fn leave(&self) {
        self.try_delete("Namespace", &self.namespace).await;
        self.left.store(true, Ordering::SeqCst);
    }

    /// Jobs of a session for one step, oldest first.
    pub async fn jobs(&self, session: &str, step: &str) -> Vec<Value> {
        let of = |j: &Value| {
            j["metadata"]["annotations"]["lifeboat.stash.appscode.com/session-name"] == session
                && j["metadata"]["labels"]["lifeboat.stash.appscode.com/step"] == step
        };
        let mut jobs: Vec<Value> = self.list("Job").await.into_iter().filter(of).collect();
        jobs.sort_by_key(|j| j["metadata"]["creationTimestamp"].as_str().unwrap().to_owned());
        jobs
    }

    /// Deletes what the test wrote: sessions and configurations, then Repositories. Each group must be gone within 30
    /// seconds, with everything that was made for it. Only claims and Secrets of the test itself may stay, and claims
    /// that it requested by a template. Every test ends with this check.
    pub async fn leaves_nothing(&self) {
        self.leaves_nothing_within(30).await;
    }

    /// The same, with this many seconds for each of the two groups.
    pub async fn leaves_nothing_within(&self, seconds: u64) {
        if let Err(left) = self.all_is_gone(seconds).await {
            panic!("{left}");
        }
    }

    async fn all_is_gone(&self, seconds: u64) -> Result<(), String> {
        const MADE: [&str; 8] =
            ["Job", "Pod", "PersistentVolumeClaim", "Secret", "ServiceAccount", "Role", "RoleBinding", "Snapshot"];
        self.all_go(
            seconds,
            &["RestoreSession", "RestoreBatch", "BackupConfiguration", "BackupBatch", "BackupSession"],
            &MADE[..7],
            |o| o["metadata"]["labels"]["lifeboat.stash.appscode.com/session-kind"] != "Repository",
        )
        .await?;
        self.all_go(seconds, &["Repository"], &MADE, |_| true).await
    }

    async fn all_go(
        &self,
        seconds: u64,
        written: &[&str],
        made: &[&str],
        counts: impl Fn(&Value) -> bool,
    ) -> Result<(), String> {
        for kind in written {
            for object in self.list(kind).await {
                self.try_delete(kind, object["metadata"]["name"].as_str().unwrap()).await;
            }
        }
        // A claim made from a template was requested by the test: it stays with its data.
        let ours = |o: &Value| {
            o["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "stash.appscode.com"
                && o["metadata"]["annotations"]["lifeboat.stash.appscode.com/template"].is_null()
        };
        let named = |kind: &str, o: &Value| format!("{kind} {}", o["metadata"]["name"]);
        let left_behind = async |all: bool| {
            let mut left = vec![];
            for kind in written.iter().chain(made) {
                let counts = |o: &&Value| written.contains(kind) || ours(o) && counts(o);
                left.extend(self.list(kind).await.iter().filter(counts).map(|o| named(kind, o)));
                if !all && !left.is_empty() {
                    break;
                }
            }
            left
        };
        // A single object that is left is reason enough to check again.
        let clean = eventually(seconds, async || left_behind(false).await.is_empty().then_some(()));
        match clean.await {
            Some(()) => Ok(()),
            None => Err(format!("left behind in {}: {:?}", self.namespace, left_behind(true).await)),
        }
    }

    /// Warnings with this reason about a session, each with its note and its count, once there is one: an event is
    /// written after the status that it is about. None if there is none for ten seconds.
    pub async fn warnings(&self, session: &str, reason: &str) -> Vec<(String, i64)> {
        let of = |e: &Value| e["type"] == "Warning" && e["reason"] == reason && e["involvedObject"]["name"] == session;
        let said = |e: &Value| e["series"]["count"].as_i64().or(e["count"].as_i64()).unwrap_or(1).max(1);
        let note = |e: &Value| e["message"].as_str().unwrap_or_default().to_owned();
        let told = eventually(10, async || {
            let all = self.list("Event").await;
            let told: Vec<_> = all.iter().filter(|e| of(e)).map(|e| (note(e), said(e))).collect();
            (!told.is_empty()).then_some(told)
        });
        told.await.unwrap_or_default()
    }

    /// The pod of a session's newest Job for a step, once its container runs.
    pub async fn running(&self, session: &str, step: &str) -> Value {
        let is_agent = |c: &Value| c["name"] == "agent" && c["state"]["running"].is_object();
        let pod = eventually(60, async || {
            let pods = self.list("Pod").await;
            pods.into_iter().find(|p| {
                p["metadata"]["annotations"]["lifeboat.stash.appscode.com/session-name"] == session
                    && p["metadata"]["labels"]["lifeboat.stash.appscode.com/step"] == step
                    && p["metadata"]["deletionTimestamp"].is_null()
                    && p["status"]["containerStatuses"].as_array().is_some_and(|all| all.iter().any(is_agent))
            })
        });
        pod.await.unwrap_or_else(|| panic!("no pod runs for step {step} of {session}"))
    }

    /// Jobs of sessions: all Jobs except those of a Repository itself.
    pub async fn jobs_of_sessions(&self) -> Vec<Value> {
        let kind = |j: &Value| j["metadata"]["labels"]["lifeboat.stash.appscode.com/session-kind"].clone();
        self.list("Job").await.into_iter().filter(|j| kind(j) != "Repository").collect()
    }

    /// The folder behind a claim, seen from the host, once the claim is bound.
    pub async fn folder(&self, claim: &str) -> PathBuf {
        self.state.join("volumes").join(self.folder_on_node(claim).await.file_name().unwrap())
    }

    /// The same folder, as the node sees it.
    pub async fn folder_on_node(&self, claim: &str) -> PathBuf {
        let bound = self.until("PersistentVolumeClaim", claim, 60, "bound", |c| phase(c) == "Bound").await;
        let volume = self.get("PersistentVolume", bound["spec"]["volumeName"].as_str().unwrap()).await;
        PathBuf::from(volume["spec"]["hostPath"]["path"].as_str().unwrap())
    }

    /// A folder of this test for host paths: the path that pods use, and the folder behind it on each of these nodes.
    pub fn disks(&self, nodes: usize) -> (String, Vec<PathBuf>) {
        let own = |disk: PathBuf| disk.join(&self.namespace);
        let folders = (1..=nodes).map(|n| match n {
            1 => own(self.state.join("disk")),
            n => own(self.state.join(format!("node{n}/disk"))),
        });
        let folders: Vec<PathBuf> = folders.collect();
        folders.iter().for_each(|f| std::fs::create_dir_all(f).unwrap());
        (folders[0].display().to_string(), folders)
    }

    /// Makes a claim, and gives its folder. The claim is bound at once, as if a pod had been scheduled with it.
    pub async fn claim(&self, name: &str) -> PathBuf {
        self.create(&super::manifests::claim(name)).await;
        let node = self.list("Node").await[0]["metadata"]["name"].clone();
        let chosen = json!({ "volume.kubernetes.io/selected-node": node });
        self.patch("PersistentVolumeClaim", name, json!({ "metadata": { "annotations": chosen } })).await;
        self.folder(name).await
    }

    /// A fact about the S3 server.
    pub fn s3(&self, key: &str) -> String {
        self.fact("s3.json", key)
    }

    /// Address at which pods reach this process.
    pub fn host_address(&self) -> String {
        self.fact("cluster.json", "hostAddress")
    }

    fn fact(&self, file: &str, key: &str) -> String {
        let facts: Value = serde_json::from_slice(&std::fs::read(self.state.join(file)).unwrap()).unwrap();
        facts[key].as_str().unwrap_or_else(|| panic!("{file} has no {key}")).to_owned()
    }

    /// The bucket of this test, as a folder.
    pub fn bucket(&self) -> PathBuf {
        let bucket = self.state.join("s3").join(&self.namespace);
        std::fs::create_dir_all(&bucket).unwrap();
        bucket
    }

    /// Path of the control group that has the processes of this cluster, and of no other.
    pub fn control_group(&self) -> String {
        let facts: Value = serde_json::from_slice(&std::fs::read(self.state.join("cluster.json")).unwrap()).unwrap();
        let first = facts["netns"][0].as_str().unwrap();
        format!("/{}/", first.strip_suffix("-1").unwrap())
    }

    /// Runs a command among the cluster's mounts, on its node.
    pub fn on_node(&self, words: &[&str]) -> String {
        output(cluster(&self.state).args(["exec", "--"]).args(words))
    }

    /// Stops, starts or kills a component of the cluster.
    pub fn component(&self, name: &str, action: &str) {
        component(&self.state, name, action);
    }

    /// Asks the container runtime of a node.
    pub fn containerd(&self, node: &str, words: &[&str]) -> String {
        let config = std::fs::read_to_string(self.state.join(node).join("containerd.toml")).unwrap();
        let socket = config.lines().find_map(|l| l.trim().strip_prefix("address = ")).unwrap().trim_matches('\'');
        let mut command = Command::new(self.bin("ctr"));
        output(command.args(["--address", socket, "--namespace", "k8s.io"]).args(words))
    }

    /// Kills the container of a Job's pod on its node, as the kernel does: its processes report nothing any more.
    pub fn kill_agent(&self, pod: &Value) {
        let (name, node) = (pod["metadata"]["name"].as_str().unwrap(), pod["spec"]["nodeName"].as_str().unwrap());
        let running = self.containerd(node, &["tasks", "list", "--quiet"]);
        let is_agent = |id: &&str| {
            let facts: Value = serde_json::from_str(&self.containerd(node, &["containers", "info", id])).unwrap();
            let labels = &facts["Labels"];
            labels["io.kubernetes.pod.name"] == name && labels["io.kubernetes.container.name"] == "agent"
        };
        let agent = running.lines().find(is_agent).expect("the container of the pod runs");
        self.containerd(node, &["tasks", "kill", "--signal", "SIGKILL", agent]);
    }

    /// A restic command on the repository of the test's bucket, without the code under test. It reaches the store by
    /// this endpoint, and ends with the test.
    pub fn restic(&self, endpoint: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.bin("restic"));
        command
            .env("RESTIC_PASSWORD", super::manifests::PASSWORD)
            .env("AWS_ACCESS_KEY_ID", self.s3("accessKey"))
            .env("AWS_SECRET_ACCESS_KEY", self.s3("secretKey"))
            .env("RESTIC_REPOSITORY", format!("s3:{endpoint}/{}/a/b", self.namespace))
            .arg("--no-cache")
            .stdout(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn bin(&self, name: &str) -> PathBuf {
        self.state.ancestors().nth(2).unwrap().join("bin").join(name)
    }

    /// Creates objects as a user does. Returns what kubectl prints, warnings first.
    pub fn apply_by_kubectl(&self, yaml: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), yaml).unwrap();
        let out = self.kubectl_command(&["apply", "-f", file.path().to_str().unwrap()]).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout))
    }

    pub fn kubectl(&self, words: &[&str]) -> String {
        output(&mut self.kubectl_command(words))
    }

    /// The whole log of a pod; none if the pod is gone, as are pods of a Repository's Jobs as soon as they are read.
    pub fn log_of(&self, pod: &str) -> Option<String> {
        let out = self.kubectl_command(&["logs", pod]).output().unwrap();
        let is_gone = String::from_utf8_lossy(&out.stderr).contains("NotFound");
        assert!(out.status.success() || is_gone, "the log of {pod}: {}", String::from_utf8_lossy(&out.stderr));
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// Commands of a page, run as they are written there by a shell that finds kubectl and restic.
    pub fn shell(&self, commands: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new("bash");
        command.args(["-euc", commands]).env("PATH", format!("{}:{path}", self.bin("").display()));
        command
    }

    pub fn kubectl_command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.bin("kubectl"));
        command.args(["--namespace", &self.namespace]).args(words);
        command
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for what in ["pods,jobs", "events", "restoresessions,restorebatches,backupsessions"] {
                eprintln!("--- {what} of {}\n{}", self.namespace, self.kubectl(&["get", what, "-o", "wide"]));
            }
        }
        let stays = std::env::var("KEEP").is_ok_and(|keep| !keep.is_empty());
        if !stays && !self.left.load(Ordering::SeqCst) {
            let failed = std::thread::panicking();
            let left =
                if failed { Ok(()) } else { block_in_place(|| Handle::current().block_on(self.all_is_gone(30))) };
            // A test may have taken the API server away, so an error here does not count.
            let words = ["delete", "namespace", &self.namespace, "--wait=false", "--ignore-not-found"];
            drop(self.kubectl_command(&words).output());
            if let Err(left) = left {
                panic!("{left}");
            }
        }
    }
}

/// Stops, starts or kills a component of the cluster in this folder.
pub fn component(state: &Path, name: &str, action: &str) {
    output(cluster(state).args(["component", name, action]));
}

fn cluster(state: &Path) -> Command {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().and_then(Path::parent).unwrap().join("examples/cluster");
    let mut command = Command::new(program);
    command.env("NAME", state.file_name().unwrap()).env("LIFEBOAT_DIR", state.ancestors().nth(2).unwrap());
    command
}

fn output(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // While a test fails, an error here must not hide why the test fails.
    let fine = out.status.success() || std::thread::panicking();
    assert!(fine, "{command:?}: {}{text}", String::from_utf8_lossy(&out.stderr));
    text
}

pub fn phase(object: &Value) -> &str {
    object["status"]["phase"].as_str().unwrap_or_default()
}

/// Status, reason and message of a condition; empty where it is not set.
pub fn condition(object: &Value, kind: &str) -> (String, String, String) {
    let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.into_iter().find(|c| c["type"] == kind).unwrap_or_default();
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}
