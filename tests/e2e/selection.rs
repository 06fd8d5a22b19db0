//! What is chosen, what there is to choose from, and whether there is room for it.

use super::harness::Site;
use super::manifests::{LATEST, claim, of_claim, repository, restore, store};
use super::store::{assert_tree, files, prepared, seed};
use super::support::tree::describe;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a03_nothing_to_restore_fails_and_touches_nothing() {
    let site = Site::new("a03").await;
    prepared(&site).await;
    store(&site).await;
    site.create(&repository(&site, "fresh", &site.s3("endpoint"), "nobody/was/here")).await;
    let folder = site.claim("data").await;
    let before = seed(&folder, 50, 1_000);
    let nobody = of_claim("nobody", "data", ", rules: [{snapshots: [latest]}]");
    let nothing = of_claim("m0", "data", ", rules: [{snapshots: [latest], include: ['/stash-data/no-such-*']}]");
    let fine = |target: &str| target.replace(", rules", ", allowEmpty: true, rules");

    site.create(&restore("no-host", &nobody, "")).await;
    site.create(&restore("no-match", &nothing, "")).await;
    site.create(&restore("no-repo", &nobody, "").replace("{name: repo}", "{name: fresh}")).await;
    site.create(&restore("fine-host", &fine(&nobody), "")).await;
    site.create(&restore("fine-match", &fine(&nothing), "")).await;

    let text = site.failed("RestoreSession", "no-host", "SnapshotNotFound").await;
    assert!(text.contains("nobody") && text.contains("m0"), "it names the host, and those there are: {text}");
    site.failed("RestoreSession", "no-match", "NothingToRestore").await;
    site.failed("RestoreSession", "no-repo", "RepositoryMissing").await;
    for name in ["no-host", "no-repo"] {
        assert!(site.jobs(name, "restore").await.is_empty(), "{name} came as far as a restore Job");
    }
    for name in ["fine-host", "fine-match"] {
        site.succeeded("RestoreSession", name).await;
    }
    assert_tree(&folder, &before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a06_only_selected_files_come_back() {
    let site = Site::new("a06").await;
    let trees = prepared(&site).await;
    store(&site).await;
    let cases = [
        (
            "include",
            "snapshots: [latest], include: ['/stash-data/deep/**']",
            &["deep/er/0", "deep/er/1", "deep/er/2", "deep/er/3"][..],
        ),
        ("exclude", "snapshots: [latest], exclude: ['*.txt', noise]", &["who"]),
        ("path", "paths: [/stash-data/deep/er]", &["deep/er/0", "deep/er/1", "deep/er/2", "deep/er/3"]),
        ("other", "targetHosts: [mine], sourceHost: m2, paths: [/stash-data], include: ['who']", &["who"]),
    ];
    let mut folders = vec![];
    for (name, rule, _) in &cases {
        folders.push(site.claim(name).await);
        let alias = if *name == "other" { "mine" } else { "m0" };
        site.create(&restore(name, &of_claim(alias, name, &format!(", rules: [{{{rule}}}]")), "")).await;
    }
    for ((name, _, wanted), folder) in cases.iter().zip(&folders) {
        site.succeeded("RestoreSession", name).await;
        let have = describe(folder);
        let names: Vec<&str> =
            files(&have).iter().map(|f| f.trim_start_matches("./").trim_end_matches(".txt")).collect();
        assert_eq!(names, *wanted, "{name}");
        let source = if *name == "other" { &trees[2] } else { &trees[0] };
        for file in files(&have) {
            assert_eq!(have.get(file), source.get(file), "{name}: {file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a05_a_full_volume_is_refused_before_a_byte_is_written() {
    let site = Site::new("a05").await;
    prepared(&site).await;
    store(&site).await;
    let place = format!("/run/{}", site.namespace);
    site.on_node(&["sh", "-c", &format!("mkdir -p {place} && mount -t tmpfs -o size=1m none {place}")]);
    let volume = format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: {0}}}
spec:
  capacity: {{storage: 64Mi}}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ''
  claimRef: {{namespace: {0}, name: small}}
  hostPath: {{path: {place}}}
",
        site.namespace
    );
    site.create(&volume).await;
    site.create(&claim("small").replace("spec: {", "spec: {storageClassName: '', ")).await;
    site.create(&restore("small", &of_claim("m1", "small", LATEST), "")).await;
    let text = site.failed("RestoreSession", "small", "NoSpace").await;
    let left = site.on_node(&["find", &place, "-mindepth", "1"]);
    site.on_node(&["sh", "-c", &format!("umount {place} && rmdir {place}")]);
    site.delete("PersistentVolume", &site.namespace).await;
    assert_eq!(left, "", "something was written: {text}");
    assert!(text.contains("/stash-data"), "it names the volume: {text}");
    assert_eq!(site.jobs("small", "restore").await.len(), 1, "a volume does not grow by trying again");
}
