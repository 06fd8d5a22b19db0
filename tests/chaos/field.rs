//! Where a run takes place: its namespace, its repository, its targets.

use lifeboat::names::annotation::HELD_DOWN;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use super::harness::{Site, eventually};
use super::manifests::{LATEST, backup_session, batch, deployment, of_claim, stateful_set, store, store_at};
use super::proxy::Proxy;
use super::states::Course;
use super::support::tree::{build_of, describe, difference};

pub type Tree = BTreeMap<String, String>;

/// Name of the RestoreBatch, or of the BackupBatch and its session.
pub const RUN: &str = "all";
/// Where restic's files are in the bucket.
pub const PREFIX: &str = "a/b";
/// A run that is not over after this time is called lost. Its own `timeOut` is later, so that it does not hide this.
pub const PATIENCE: u64 = 900;
/// Replicas of Deployment `web` and of StatefulSet `db`.
pub const REPLICAS: i64 = 2;

const RETENTION: &str = "retentionPolicy: {name: keep, keepLast: 5, prune: false}";
/// Hosts in the order of their trees: two claims or workloads with one host, then a StatefulSet's ordinals.
const HOSTS: [&str; 5] = ["m0", "m1", "m2", "db-0", "db-1"];

/// Deployment `web`, which mounts claim `web`.
fn web(more: &str) -> String {
    format!(
        "{{alias: m1, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, \
        volumeMounts: [{{name: web, mountPath: /stash-data}}]{more}}}"
    )
}

/// StatefulSet `db`, whose template `data` is mounted at /data.
fn db(more: &str) -> String {
    format!(
        "{{alias: db, ref: {{apiVersion: apps/v1, kind: StatefulSet, name: db}}, \
        volumeMounts: [{{name: data, mountPath: /data}}]{more}}}"
    )
}

/// Makes StatefulSet `db`, and gives the folders of its claims.
async fn make_db(site: &Site) -> Vec<PathBuf> {
    site.create(&stateful_set("db", i32::try_from(REPLICAS).unwrap())).await;
    vec![site.folder("data-db-0").await, site.folder("data-db-1").await]
}

fn fill(folder: &Path, host: &str) {
    let seed = HOSTS.iter().position(|h| *h == host).unwrap();
    build_of(folder, u32::try_from(seed).unwrap(), 40, 400_000, 2 << 20);
}

/// A repository with a snapshot of each host, taken once by the operator itself.
pub struct Ground {
    pub site: Site,
    /// Trees by host.
    pub trees: BTreeMap<&'static str, Tree>,
}

impl Ground {
    pub async fn prepare() -> Self {
        let site = Site::new("ground").await;
        store(&site).await;
        let (mut folders, mut targets) = (vec![], vec![]);
        for name in &HOSTS[..3] {
            folders.push(site.claim(name).await);
            targets.push(of_claim(name, name, ""));
        }
        folders.extend(make_db(&site).await);
        targets.push(db(", paths: [/data]"));
        let mut trees = BTreeMap::new();
        for (folder, host) in folders.iter().zip(HOSTS) {
            fill(folder, host);
            trees.insert(host, describe(folder));
        }
        site.create(&batch("BackupBatch", RUN, RETENTION, &targets)).await;
        site.create(&backup_session(RUN, "BackupBatch", RUN)).await;
        site.succeeded("BackupSession", RUN).await;
        Self { site, trees }
    }
}

/// A host of a member, and its volume.
pub struct Place {
    pub member: usize,
    pub host: &'static str,
    claim: &'static str,
    folder: PathBuf,
    /// Content of the volume before the run.
    before: Tree,
}

impl Place {
    /// State of a host's volume after a restore. `again`: more than one attempt wrote to the volume.
    pub fn restored(&self, want: &Tree, again: bool) -> Came {
        let have = describe(&self.folder);
        let wrong =
            if again { difference(&without_holes(want), &without_holes(&have)) } else { difference(want, &have) };
        match () {
            () if wrong.is_empty() => Came::Whole,
            () if have == self.before => Came::Untouched,
            () => Came::Other(first(&wrong)),
        }
    }
}

/// State of a host's tree after a run: on its volume for a restore, in the repository for a backup.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    /// As it was backed up, byte for byte.
    Whole,
    /// As it was before the run.
    Untouched,
    /// Neither of the two. The text says what differs from the backup.
    Other(String),
}

/// Everything that belongs to a single run.
pub struct Field {
    pub site: Site,
    pub course: Course,
    pub proxy: Proxy,
    pub places: Vec<Place>,
    /// Kind and name of workloads with [`REPLICAS`] pods.
    pub workloads: Vec<(&'static str, &'static str)>,
    /// File systems that were mounted over folders, by their paths on the node.
    mounted: Mutex<Vec<String>>,
}

impl Field {
    pub async fn new(ground: &Ground, course: Course) -> Self {
        let site = Site::new("run").await;
        if course != Course::Backup {
            let copied = Command::new("cp").arg("-a").arg(ground.site.bucket().join("a")).arg(site.bucket()).status();
            assert!(copied.unwrap().success());
        }
        let proxy = Proxy::start(&site).await;
        store_at(&site, &proxy.endpoint).await;
        let (m0, web) = tokio::join!(site.claim("m0"), site.claim("web"));
        let mut places = vec![(0, "m0", "m0", m0), (1, "m1", "web", web)];
        site.create(&deployment("web", i32::try_from(REPLICAS).unwrap(), &[("web", "/srv")])).await;
        let mut workloads = vec![("Deployment", "web")];
        if course == Course::InOrder {
            places.push((2, "m2", "m2", site.claim("m2").await));
        } else {
            let claims = [("db-0", "data-db-0"), ("db-1", "data-db-1")];
            places.extend(make_db(&site).await.into_iter().zip(claims).map(|(f, (host, claim))| (2, host, claim, f)));
            workloads.push(("StatefulSet", "db"));
        }
        let place = |(member, host, claim, folder): (usize, &'static str, &'static str, PathBuf)| {
            if course == Course::Backup {
                fill(&folder, host);
            }
            let before = describe(&folder);
            Place { member, host, claim, folder, before }
        };
        let places = places.into_iter().map(place).collect();
        let field = Self { site, course, proxy, places, workloads, mounted: Mutex::default() };
        field.available().await;
        field
    }

    /// Waits until all pods of every workload are available, except for a workload that says that it stays down.
    pub async fn available(&self) {
        for (kind, name) in &self.workloads {
            // The judge decides whether the workload may stay down.
            let now = self.site.get(kind, name).await;
            if now["metadata"]["annotations"][HELD_DOWN].is_string() && now["spec"]["replicas"] == 0 {
                continue;
            }
            self.site.until(kind, name, 300, "available", |w| w["status"]["availableReplicas"] == REPLICAS).await;
        }
    }

    /// Mounts a file system that is too small for the data over the last claim's folder. Pods that already have the
    /// folder mounted keep its old content.
    pub async fn fill_last(&self) {
        let claim = self.places[self.places.len() - 1].claim;
        let place = self.site.folder_on_node(claim).await.display().to_string();
        self.site.on_node(&["mount", "-t", "tmpfs", "-o", "size=256k", "none", &place]);
        self.mounted.lock().unwrap().push(place);
    }

    /// Unmounts what was mounted over folders.
    pub fn uncover(&self) {
        for place in self.mounted.lock().unwrap().drain(..) {
            self.site.on_node(&["umount", "--lazy", &place]);
        }
    }

    pub async fn start(&self) {
        let time_out = format!("timeOut: {}s", 2 * PATIENCE);
        if self.course == Course::Backup {
            let members = [of_claim("m0", "m0", ""), web(", paths: [/stash-data]"), db(", paths: [/data]")];
            self.site.create(&batch("BackupBatch", RUN, &format!("{RETENTION}\n  {time_out}"), &members)).await;
            self.site.create(&backup_session(RUN, "BackupBatch", RUN)).await;
            return;
        }
        let (m0, web) = (of_claim("m0", "m0", LATEST), web(LATEST));
        let (ordered, last) = match self.course {
            Course::InOrder => (true, of_claim("m2", "m2", LATEST)),
            _ => (false, db(LATEST)),
        };
        let settings = format!("maintainOrder: {ordered}\n  {time_out}");
        self.site.create(&batch("RestoreBatch", RUN, &settings, &[m0, web, last])).await;
    }

    /// Compares a host's tree with what restic restores of the snapshots that a backup reports, `(id, path)` each.
    pub async fn backed_up(&self, place: &Place, snapshots: &[(String, String)]) -> Came {
        let [(id, path)] = snapshots else { return Came::Other(format!("{} snapshots", snapshots.len())) };
        let target = tempfile::tempdir().unwrap();
        let to = target.path().to_str().unwrap();
        if let Err(why) = self.restic(&["restore", id, "--no-lock", "--sparse", "--target", to]).await {
            return Came::Other(why);
        }
        let wrong = difference(&describe(&place.folder), &describe(&target.path().join(path.trim_start_matches('/'))));
        if wrong.is_empty() { Came::Whole } else { Came::Other(first(&wrong)) }
    }

    /// Whether restic finds the whole repository sound, data and all.
    pub async fn sound(&self) -> Result<(), String> {
        self.restic(&["check", "--read-data", "--no-lock"]).await
    }

    /// Removes all locks, as docs/jobs.md says for a repository that no restic process uses.
    pub async fn unlock(&self) {
        self.restic(&["unlock", "--remove-all"]).await.unwrap();
    }

    /// Runs restic without the code under test, until it succeeds: another run may have stopped the store.
    async fn restic(&self, words: &[&str]) -> Result<(), String> {
        let mut why = String::new();
        let done = eventually(60, async || {
            let mut command = self.site.restic(&self.site.s3("endpoint"));
            let ran = command.args(words).stderr(std::process::Stdio::piped()).output();
            let Ok(out) = tokio::time::timeout(Duration::from_mins(1), ran).await else {
                "no end within a minute".clone_into(&mut why);
                return None;
            };
            let out = out.unwrap();
            why = String::from_utf8_lossy(&out.stderr).into_owned();
            out.status.success().then_some(())
        });
        done.await.ok_or_else(|| format!("restic {words:?}: {why}"))
    }
}

fn first(wrong: &[String]) -> String {
    wrong[..wrong.len().min(4)].join("\n")
}

/// A repeated restore overwrites existing files, so their holes are lost (docs/restore.md, "What a restore changes").
fn without_holes(tree: &Tree) -> Tree {
    tree.iter().map(|(path, line)| (path.clone(), line.replace(" sparse=true", " sparse=false"))).collect()
}
