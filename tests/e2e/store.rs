//! Data: put into volumes, taken away, backed up, damaged.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tokio::sync::OnceCell;

use super::harness::Site;
use super::manifests::{PASSWORD, backup_session, batch, claim, configuration, of_claim, store, store_at};
use super::proxy::Proxy;
use super::quick_repository;
use super::support::tree::{describe, difference, write_noise};

pub type Tree = BTreeMap<String, String>;

/// A few small files and one of `size` bytes, all different for each seed. Gives the tree.
pub fn seed(folder: &Path, seed: u64, size: u64) -> Tree {
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    for n in 0..4 {
        fs::write(folder.join(format!("deep/er/{n}.txt")), format!("{seed} {n}")).unwrap();
    }
    fs::write(folder.join("who"), seed.to_string()).unwrap();
    write_noise(&folder.join("noise"), size, seed);
    describe(folder)
}

/// Takes everything out of a folder, and changes the folder itself.
pub fn wipe(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir_all(entry.path()).unwrap();
        } else {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
}

/// Asserts that the folder holds this tree and nothing else.
pub fn assert_tree(folder: &Path, want: &Tree) {
    let wrong = difference(want, &describe(folder));
    assert!(wrong.is_empty(), "{} entries differ:\n{}", wrong.len(), wrong[..wrong.len().min(8)].join("\n"));
}

/// Names of the ordinary files of a tree.
pub fn files(tree: &Tree) -> Vec<&str> {
    tree.iter().filter(|(_, line)| line.contains(" sha256=")).map(|(path, _)| path.as_str()).collect()
}

/// Backs a target up into Repository `repo`; the configuration has the name of the session.
pub async fn back_up(site: &Site, name: &str, target: &str) -> Value {
    site.create(&configuration(name, target, "")).await;
    site.create(&backup_session(name, "BackupConfiguration", name)).await;
    site.succeeded("BackupSession", name).await
}

/// Secret `store` and Repository `repo`, with an empty repository that opens quickly. Without
/// this empty repository, the Jobs of a test create one.
pub async fn quick_store(site: &Site) {
    let place = site.bucket().join("a/b");
    if !place.join("config").exists() {
        quick_repository::make(&place, PASSWORD);
    }
    store(site).await;
}

/// Puts a repository with snapshots of the hosts m0 to m3 into the test's bucket, where `manifests::store` looks.
/// Gives their trees. m1 has nearly all the data. The backup is taken once and copied, to spare each test a backup.
pub async fn prepared(site: &Site) -> &'static [Tree] {
    static MADE: OnceCell<(PathBuf, Vec<Tree>)> = OnceCell::const_new();
    let (made, trees) = MADE
        .get_or_init(|| async {
            let site = Site::new("prepared").await;
            quick_store(&site).await;
            let (mut trees, mut targets) = (vec![], vec![]);
            for n in 0..4 {
                let name = format!("m{n}");
                let folder = site.claim(&name).await;
                trees.push(seed(&folder, n, if n == 1 { 3_000_000 } else { 20_000 }));
                targets.push(of_claim(&name, &name, ""));
            }
            let retention = "retentionPolicy: {name: keep, keepLast: 5, prune: false}";
            site.create(&batch("BackupBatch", "all", retention, &targets)).await;
            site.create(&backup_session("all", "BackupBatch", "all")).await;
            site.succeeded("BackupSession", "all").await;
            (site.bucket().join("a"), trees)
        })
        .await;
    let copied = Command::new("cp").arg("-a").arg(made).arg(site.bucket()).status().unwrap();
    assert!(copied.success());
    trees
}

/// A site with a prepared repository, which its Jobs reach through a proxy.
pub async fn prepared_behind_a_proxy(name: &str) -> (Site, &'static [Tree], Proxy) {
    let site = Site::new(name).await;
    let trees = prepared(&site).await;
    let proxy = Proxy::start(&site).await;
    store_at(&site, &proxy.endpoint).await;
    (site, trees, proxy)
}

/// The largest file of a folder of the repository.
fn largest(bucket: &Path, of: &str) -> PathBuf {
    let mut files: Vec<PathBuf> = vec![];
    let mut open = vec![bucket.join("a/b").join(of)];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    files.into_iter().max_by_key(|p| fs::metadata(p).unwrap().len()).unwrap()
}

/// Number of locks of the repository of the test's bucket. The store keeps no folder if there is none.
pub fn locks(site: &Site) -> usize {
    fs::read_dir(site.bucket().join("a/b/locks")).map_or(0, Iterator::count)
}

/// Removes the largest pack.
pub fn remove_largest_pack(bucket: &Path) {
    fs::remove_file(largest(bucket, "data")).unwrap();
}

/// Cuts the largest index to half.
pub fn halve_the_index(bucket: &Path) {
    let index = fs::OpenOptions::new().write(true).open(largest(bucket, "index")).unwrap();
    index.set_len(index.metadata().unwrap().len() / 2).unwrap();
}

/// Flips bytes in the middle of the largest pack of the repository.
pub fn damage_largest_pack(bucket: &Path) {
    let largest = largest(bucket, "data");
    let middle = fs::metadata(&largest).unwrap().len() / 2;
    let mut pack = fs::OpenOptions::new().write(true).open(&largest).unwrap();
    pack.seek(SeekFrom::Start(middle)).unwrap();
    pack.write_all(&[0x5a; 4096]).unwrap();
}

/// Claim `small` on a volume that has only this much room. It is removed when the test has ended.
pub struct Small<'s> {
    site: &'s Site,
    /// Path of the volume on the node.
    pub place: String,
}

impl<'s> Small<'s> {
    pub async fn new(site: &'s Site, size: &str) -> Self {
        let name = &site.namespace;
        let place = format!("/run/{name}");
        site.on_node(&["sh", "-c", &format!("mkdir -p {place} && mount -t tmpfs -o size={size} none {place}")]);
        let small = Self { site, place };
        let volume = format!(
            "apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 64Mi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ''
  claimRef: {{namespace: {name}, name: small}}
  hostPath: {{path: {}}}
",
            small.place
        );
        site.create(&volume).await;
        site.create(&claim("small").replace("spec: {", "spec: {storageClassName: '', ")).await;
        small
    }

    /// Takes all the room of the volume, as another program would.
    pub fn fill(&self) {
        let filled = self.site.on_node(&["sh", "-c", &format!("cat /dev/zero > {0}/filler; df {0}", self.place)]);
        assert!(filled.contains("100%"), "{filled}");
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Pods of the test may still use the volume.
        self.site.on_node(&["sh", "-c", &format!("umount -l {0} && rmdir {0}", self.place)]);
        self.site.kubectl(&["delete", "persistentvolume", &self.site.namespace, "--wait=false"]);
    }
}
