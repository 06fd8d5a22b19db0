//! Where a run takes place: its namespace, its copy of the repository, its three targets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;

use super::harness::Site;
use super::manifests::{LATEST, backup_session, batch, deployment, of_claim, store, store_at};
use super::proxy::Proxy;
use super::support::tree::{build_of, describe};

pub type Tree = BTreeMap<String, String>;

/// Claims of the members, in order. The second is mounted by Deployment `web`, which runs.
pub const CLAIMS: [&str; 3] = ["m0", "web", "m2"];
/// Pods of Deployment `web`.
pub const REPLICAS: i64 = 2;
/// Name of the RestoreBatch.
pub const BATCH: &str = "all";
/// Where restic's files are in the bucket.
pub const PREFIX: &str = "a/b";
/// A run that is not over by then is called lost. Its own `timeOut` is later: it must not hide that.
pub const PATIENCE: u64 = 900;

const WEB: &str = "{alias: m1, ref: {apiVersion: apps/v1, kind: Deployment, name: web}, \
    volumeMounts: [{name: web, mountPath: /stash-data}], rules: [{snapshots: [latest]}]}";

/// A repository with a snapshot of each of m0, m1 and m2, taken once by the operator itself.
pub struct Ground {
    pub site: Site,
    pub trees: Vec<Tree>,
}

impl Ground {
    pub async fn prepare() -> Self {
        let site = Site::new("ground").await;
        store(&site).await;
        let (mut trees, mut targets) = (vec![], vec![]);
        for n in 0..CLAIMS.len() {
            let name = format!("m{n}");
            let folder = site.claim(&name).await;
            build_of(&folder, u32::try_from(n).unwrap(), 40, 400_000, 2 << 20);
            trees.push(describe(&folder));
            targets.push(of_claim(&name, &name, ""));
        }
        let retention = "retentionPolicy: {name: keep, keepLast: 5, prune: false}";
        site.create(&batch("BackupBatch", "all", retention, &targets)).await;
        site.create(&backup_session("all", "BackupBatch", "all")).await;
        site.succeeded("BackupSession", "all").await;
        Self { site, trees }
    }
}

/// What a run has of its own.
pub struct Field {
    pub site: Site,
    pub proxy: Proxy,
    /// Folders of the claims, from the host.
    pub folders: Vec<PathBuf>,
    /// What was in them before.
    pub before: Vec<Tree>,
    /// What was mounted over them, as the node names it.
    mounted: Mutex<Vec<String>>,
}

impl Field {
    pub async fn new(ground: &Ground) -> Self {
        let site = Site::new("run").await;
        let copied = Command::new("cp").arg("-a").arg(ground.site.bucket().join("a")).arg(site.bucket()).status();
        assert!(copied.unwrap().success());
        let proxy = Proxy::start(&site).await;
        store_at(&site, &proxy.endpoint).await;
        let (m0, web, m2) = tokio::join!(site.claim(CLAIMS[0]), site.claim(CLAIMS[1]), site.claim(CLAIMS[2]));
        let folders = vec![m0, web, m2];
        let before = folders.iter().map(|f| describe(f)).collect();
        site.create(&deployment("web", i32::try_from(REPLICAS).unwrap(), &[("web", "/srv")])).await;
        let field = Self { site, proxy, folders, before, mounted: Mutex::default() };
        field.available().await;
        field
    }

    /// Waits until the workload has all its pods.
    pub async fn available(&self) {
        self.site.until("Deployment", "web", 300, "available", |d| d["status"]["availableReplicas"] == REPLICAS).await;
    }

    /// Puts a file system over a claim's folder that is too small for its data. Pods that have it mounted keep what they have.
    pub async fn fill(&self, claim: &str) {
        let place = self.site.folder_on_node(claim).await.display().to_string();
        self.site.on_node(&["mount", "-t", "tmpfs", "-o", "size=256k", "none", &place]);
        self.mounted.lock().unwrap().push(place);
    }

    /// Takes away what was put over folders.
    pub fn uncover(&self) {
        for place in self.mounted.lock().unwrap().drain(..) {
            self.site.on_node(&["umount", "--lazy", &place]);
        }
    }

    pub async fn start(&self) {
        let members = [of_claim("m0", CLAIMS[0], LATEST), WEB.to_owned(), of_claim("m2", CLAIMS[2], LATEST)];
        let settings = format!("maintainOrder: true\n  timeOut: {}s", 2 * PATIENCE);
        self.site.create(&batch("RestoreBatch", BATCH, &settings, &members)).await;
    }
}
