//! The agent's list step against a real API server, with thousands of snapshots that a script in place of restic lists.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use lifeboat::contract::restic::{self, List, RepositoryAccess, Settings, Step};
use lifeboat::contract::{Answer, Outcome, Run, Task, Work};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::cluster::Cluster;

/// Snapshots of the repository.
const MANY: usize = 3000;
/// Longest time of a list on a busy machine.
const LIMIT: Duration = Duration::from_mins(5);
/// Most memory that the agent may use, in KiB.
const MEMORY: u64 = 128 << 10;

/// The agent in its own folder.
struct Site {
    folder: TempDir,
    namespace: String,
}

impl Site {
    fn new(namespace: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap(), namespace: namespace.to_owned() };
        fs::create_dir(site.path("secret")).unwrap();
        fs::write(site.path("secret").join("RESTIC_PASSWORD"), "secret-word").unwrap();
        let script = format!("#!/bin/sh\nexec cat {}\n", site.path("listing").display());
        fs::write(site.path("restic"), script).unwrap();
        fs::set_permissions(site.path("restic"), fs::Permissions::from_mode(0o755)).unwrap();
        site
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Sets the snapshots of the repository, by number.
    fn holds(&self, numbers: impl Iterator<Item = usize>) {
        let one = |n: usize| {
            json!({ "id": format!("{n:08x}{:056x}", 7), "time": "2026-11-20T16:40:27.1Z", "tree": "ab".repeat(32),
            "paths": [format!("/data/{n}")], "hostname": format!("host-{}", n % 10), "username": "root" })
        };
        fs::write(self.path("listing"), numbers.map(one).collect::<Value>().to_string()).unwrap();
    }

    fn agent(&self) -> Command {
        let run =
            Run { id: "u-1".into(), kind: "Repository".into(), namespace: self.namespace.clone(), name: "repo".into() };
        let repository = RepositoryAccess { url: "/repository".into(), ..RepositoryAccess::default() };
        let step = Step::List(List { labels: [("team".to_owned(), "a".to_owned())].into() });
        let work = restic::Work { repository, settings: Settings::default(), step };
        let task = Task::new(run, "list", vec![], Work::Restic(Box::new(work)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.arg("agent").env("LIFEBOAT_TASK", task.encode()).stdout(Stdio::null()).stderr(Stdio::null());
        command.arg("--kubeconfig").arg(std::env::var("KUBECONFIG").unwrap()).args(["--progress-port", "0"]);
        for (argument, file) in
            [("restic", "restic"), ("secret-dir", "secret"), ("work-dir", "work"), ("outcome-file", "outcome")]
        {
            command.arg(format!("--{argument}")).arg(self.path(file));
        }
        command
    }

    /// Numbers of snapshots in the repository, written and removed; fails if the agent used more memory than allowed.
    async fn list(&self) -> (u64, u64, u64) {
        let _ = fs::remove_file(self.path("outcome"));
        let mut child = self.agent().spawn().unwrap();
        let status = Path::new("/proc").join(child.id().to_string()).join("status");
        let (begun, mut most) = (std::time::Instant::now(), 0);
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > LIMIT {
                child.kill().unwrap();
                panic!("the list is not over after {LIMIT:?}");
            }
            let now = fs::read_to_string(&status).unwrap_or_default();
            let peak = now.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse().ok());
            most = most.max(peak.unwrap_or(0));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let outcome = Outcome::decode(&fs::read_to_string(self.path("outcome")).unwrap()).unwrap();
        println!("{:?} in {:?}, {most} KiB at most", outcome.answer, begun.elapsed());
        assert!(most > 0 && most < MEMORY, "{most} KiB");
        match (outcome.failure, outcome.answer) {
            (None, Some(Answer::Restic(restic::Answer::Listed { snapshots, written, removed, .. }))) => {
                (snapshots, written, removed)
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn count(cluster: &Cluster, site: &Site, selector: &str) -> usize {
    let api = cluster.api("repositories.stash.appscode.com/v1alpha1", "Snapshot", &site.namespace);
    api.list_metadata(&kube::api::ListParams::default().labels(selector)).await.unwrap().items.len()
}

/// Proves: scenario 30.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn thousands_of_snapshots_are_kept_in_little_memory_and_written_once() {
    let cluster = Cluster::enter().await;
    let site = Site::new(&cluster.namespace("snapshots").await);
    let all = MANY as u64;
    site.holds(0..MANY);
    // An agent that is killed halfway is followed by one that does the rest.
    let mut first = site.agent().spawn().unwrap();
    super::cluster::eventually("the first ones", LIMIT, || async {
        let found = count(&cluster, &site, "repository=repo").await;
        if found > 100 { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    first.kill().unwrap();
    first.wait().unwrap();
    let before = count(&cluster, &site, "repository=repo").await as u64;
    assert!(before < all, "it was over before it was killed");
    let (snapshots, written, removed) = site.list().await;
    assert_eq!((snapshots, removed), (all, 0));
    assert!(
        written >= all - before && written <= all - before + 16,
        "{written} after {before}: only what was not whole"
    );
    assert_eq!(count(&cluster, &site, "repository=repo,team=a").await, MANY);
    assert_eq!(count(&cluster, &site, "hostname=host-3").await, MANY / 10);
    assert_eq!(site.list().await, (all, 0, 0), "nothing is written twice");

    let last = json!({ "apiVersion": "repositories.stash.appscode.com/v1alpha1", "kind": "Snapshot",
        "metadata": { "name": "repo-00000bb7", "namespace": site.namespace } });
    let shown = cluster.get(&last).await;
    assert_eq!(shown["status"]["id"], format!("{:08x}{:056x}", MANY - 1, 7));
    assert_eq!(
        (&shown["status"]["time"], &shown["status"]["paths"][0]),
        (&json!("2026-11-20T16:40:27Z"), &json!("/data/2999"))
    );
    let (columns, cells) = cluster
        .row(&format!("/apis/repositories.stash.appscode.com/v1alpha1/namespaces/{}/snapshots?fieldSelector=metadata.name=repo-00000bb7", site.namespace))
        .await;
    let host = columns.iter().position(|c| c == "Hostname").unwrap();
    assert_eq!(cells[host], "host-9");

    site.holds(MANY / 2..MANY);
    assert_eq!(site.list().await, (all / 2, 0, all / 2));
    assert_eq!(count(&cluster, &site, "repository=repo").await, MANY / 2);
}
