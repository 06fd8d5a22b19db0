//! Tests of the local test cluster itself: that it starts, survives what tests do to it, and leaves nothing behind.
//!
//! They need root, and several minutes if the programs of the cluster have to be built first.

// A helper of a test may fail the test.
#![allow(clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A cluster of a test. Taken down when the test ends, in every case.
struct Cluster {
    name: String,
}

#[derive(serde::Deserialize)]
struct Row {
    name: String,
    state: String,
    pid: Option<i32>,
    restarts: u32,
    ready: bool,
}

impl Cluster {
    fn new(name: &str) -> Self {
        assert_eq!(
            std::env::var("LIFEBOAT_E2E").as_deref(),
            Ok("1"),
            "set LIFEBOAT_E2E=1: this test starts clusters on this machine"
        );
        let cluster = Self { name: format!("test-{name}") };
        cluster.ok(&["down"]);
        cluster
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(tool())
            .args(words)
            .args(["--name", &self.name])
            // Settings of the developer's environment must not affect the test.
            .env_remove("NODES")
            .env_remove("CLUSTER")
            .output()
            .expect("cannot run the cluster tool")
    }

    fn ok(&self, words: &[&str]) -> String {
        let out = self.run(words);
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{words:?} of {}: {errors}", self.name);
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    fn up(&self, nodes: u8) {
        self.ok(&["up", "--nodes", &nodes.to_string()]);
    }

    fn dir(&self) -> PathBuf {
        home().join("state").join(&self.name)
    }

    fn json(&self, file: &str) -> serde_json::Value {
        let text = fs::read_to_string(self.dir().join(file)).expect("no such file");
        serde_json::from_str(&text).expect("not JSON")
    }

    fn supervisor(&self) -> i32 {
        let pid = self.json("supervisor.json")["pid"].as_i64().expect("no pid");
        i32::try_from(pid).expect("not a pid")
    }

    fn components(&self) -> Vec<Row> {
        let out = self.run(&["status", "--json"]);
        serde_json::from_slice(&out.stdout).expect("status is not JSON")
    }

    fn component(&self, name: &str) -> Row {
        self.components().into_iter().find(|c| c.name == name).expect("no such component")
    }

    fn kubectl(&self, words: &[&str]) -> Output {
        Command::new(home().join("bin/kubectl"))
            .arg("--kubeconfig")
            .arg(self.dir().join("kubeconfig"))
            .args(words)
            .output()
            .expect("cannot run kubectl")
    }

    fn kubectl_ok(&self, words: &[&str]) -> String {
        let out = self.kubectl(words);
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "kubectl {words:?}: {errors}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let out = self.run(&["down"]);
        if !out.status.success() {
            eprintln!("{} is left behind: {}", self.name, String::from_utf8_lossy(&out.stderr));
        }
    }
}

fn home() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("LIFEBOAT_DIR").map_or_else(|| root.join(".lifeboat"), PathBuf::from)
}

/// The tool in the same folder as this test.
fn tool() -> PathBuf {
    let own = std::env::current_exe().expect("no own path");
    let profile = own.parent().and_then(Path::parent).expect("no target folder");
    let tool = profile.join("examples/cluster");
    assert!(tool.exists(), "build it first: cargo build --example cluster");
    tool
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        sleep(Duration::from_millis(100));
    }
}

const APP: &str = "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: app}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: app
    image: localhost/lifeboat-test-app:1
    command: [sh, -c, 'echo $RANDOM > /data/started; exec sleep infinity']
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
";

fn run_app(cluster: &Cluster) {
    let file = tempfile::NamedTempFile::new().expect("no temporary file");
    fs::write(file.path(), APP).expect("cannot write a manifest");
    cluster.kubectl_ok(&["apply", "-f", &file.path().display().to_string()]);
    eventually("the app runs", || cluster.kubectl(&["exec", "app", "--", "true"]).status.success());
}

/// Everything outside of the cluster's folder that a cluster could leave behind.
struct Traces {
    dir: PathBuf,
    id: String,
    subnet: String,
}

impl Traces {
    fn of(cluster: &Cluster) -> Self {
        let settings = cluster.json("cluster.json");
        let netns = settings["netns"][0].as_str().expect("no namespace");
        let id = netns.trim_start_matches("lifeboat-").trim_end_matches("-1").to_owned();
        let subnet = settings["hostAddress"].as_str().expect("no address").to_owned();
        Self { dir: cluster.dir(), id, subnet }
    }

    fn assert_gone(&self) {
        let text = self.dir.display().to_string();
        assert!(!self.dir.exists(), "{text} is there");
        for entry in fs::read_dir("/proc").expect("no /proc").flatten() {
            let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            assert!(!line.contains(&text), "still runs: {line}");
            let groups = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            assert!(!groups.contains(&format!("lifeboat-{}", self.id)), "still in cgroup: {line}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("no mountinfo");
        assert!(!mounts.contains(&text) && !mounts.contains(&self.id), "mounts are left");
        assert!(!Path::new("/sys/class/net").join(format!("lb{}", self.id)).exists(), "veth");
        let addresses = fs::read_to_string("/proc/net/fib_trie").expect("no routes");
        assert!(!addresses.contains(&format!("{}\n", self.subnet)), "address is left");
        for dir in ["/run", "/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/pids"] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                assert!(!name.contains(&self.id), "{dir}/{name} is there");
            }
        }
    }
}

#[test]
#[ignore = "needs root: run by make test-cluster"]
fn up_twice_is_one_cluster_and_down_leaves_nothing() {
    let cluster = Cluster::new("twice");
    cluster.up(1);
    let first = cluster.supervisor();
    let started = Instant::now();
    let said = cluster.ok(&["up"]);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(cluster.supervisor(), first);
    assert_eq!(said, format!("export KUBECONFIG={}\n", cluster.dir().join("kubeconfig").display()));
    run_app(&cluster);

    let traces = Traces::of(&cluster);
    cluster.ok(&["down"]);
    traces.assert_gone();
    // There is nothing to take down, which is not an error.
    cluster.ok(&["down"]);
}

#[test]
#[ignore = "needs root: run by make test-cluster"]
fn a_killed_supervisor_is_recovered_with_all_data() {
    let cluster = Cluster::new("crash");
    cluster.up(1);
    run_app(&cluster);
    let before = cluster.kubectl_ok(&["get", "pod", "app", "-o", "jsonpath={.metadata.uid}"]);
    let traces = Traces::of(&cluster);

    let old = cluster.supervisor();
    kill(Pid::from_raw(old), Signal::SIGKILL).expect("cannot kill the supervisor");
    eventually("components die with their supervisor", || {
        !cluster.kubectl(&["get", "--raw", "/readyz"]).status.success()
    });
    cluster.up(1);

    assert_ne!(cluster.supervisor(), old);
    let after = cluster.kubectl_ok(&["get", "pod", "app", "-o", "jsonpath={.metadata.uid}"]);
    assert_eq!(before, after);
    eventually("the app runs again", || {
        cluster.kubectl(&["exec", "app", "--", "cat", "/data/started"]).status.success()
    });
    cluster.ok(&["down"]);
    traces.assert_gone();
}

#[test]
#[ignore = "needs root: run by make test-cluster"]
fn a_cluster_kept_starts_again_with_its_objects() {
    let cluster = Cluster::new("kept");
    cluster.up(0);
    cluster.kubectl_ok(&["create", "namespace", "remembered"]);
    cluster.ok(&["down", "--keep"]);
    assert!(!cluster.kubectl(&["get", "--raw", "/readyz"]).status.success());
    cluster.up(0);
    cluster.kubectl_ok(&["get", "namespace", "remembered"]);
}

#[test]
#[ignore = "needs root: run by make test-cluster"]
fn a_dead_component_is_started_again_and_a_stopped_one_is_not() {
    let cluster = Cluster::new("component");
    cluster.up(0);
    let before = cluster.component("apiserver");
    let pid = before.pid.expect("no process");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("cannot kill the API server");
    eventually("the API server is back", || {
        let now = cluster.component("apiserver");
        now.ready && now.pid != before.pid && now.restarts == before.restarts + 1
    });
    cluster.kubectl_ok(&["get", "namespaces"]);

    cluster.ok(&["component", "etcd", "stop"]);
    eventually("etcd is stopped", || cluster.component("etcd").state == "stopped");
    eventually("the API server notices", || !cluster.component("apiserver").ready);
    assert_eq!(cluster.component("etcd").state, "stopped");
    cluster.ok(&["component", "etcd", "start"]);
    cluster.ok(&["up"]);
    cluster.kubectl_ok(&["get", "namespaces"]);

    let unknown = cluster.run(&["component", "nonsense", "stop"]);
    assert!(!unknown.status.success());
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are: etcd"));
}

#[test]
#[ignore = "needs root: run by make test-cluster"]
fn two_clusters_do_not_meet() {
    let one = Cluster::new("one");
    let two = Cluster::new("two");
    one.up(1);
    two.up(2);
    one.kubectl_ok(&["create", "namespace", "only-in-one"]);
    assert!(!two.kubectl(&["get", "namespace", "only-in-one"]).status.success());
    let nodes = two.kubectl_ok(&["get", "nodes", "-o", "name"]);
    assert_eq!(nodes, "node/node1\nnode/node2\n");
    run_app(&one);
    run_app(&two);

    let traces = Traces::of(&two);
    two.ok(&["down"]);
    traces.assert_gone();
    assert!(one.components().iter().all(|c| c.ready));
    one.kubectl_ok(&["exec", "app", "--", "cat", "/data/started"]);
}

#[test]
#[ignore = "needs root: run by make test-cluster"]
fn what_a_half_finished_up_left_is_no_obstacle() {
    let cluster = Cluster::new("half");
    cluster.up(0);
    let traces = Traces::of(&cluster);
    kill(Pid::from_raw(cluster.supervisor()), Signal::SIGKILL).expect("cannot kill");
    // As after a reboot: the record contains a process id that now belongs to another process, and the name of a
    // namespace that no longer exists.
    let mut record = cluster.json("supervisor.json");
    record["pid"] = std::process::id().into();
    fs::write(cluster.dir().join("supervisor.json"), record.to_string()).expect("cannot write");
    fs::remove_file(cluster.dir().join("pki/complete")).expect("cannot remove");
    let stray = format!("/run/netns/lifeboat-{}-2", traces.id);
    fs::write(&stray, "").expect("cannot write");

    cluster.up(0);
    cluster.kubectl_ok(&["get", "namespaces"]);
    cluster.ok(&["down"]);
    traces.assert_gone();
}
