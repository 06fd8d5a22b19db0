//! Which backup is chosen, which of its files, which choices are listed, and whether there is room for the data.

use super::harness::Site;
use super::manifests::{LATEST, backup_session, batch, of_claim, repository, restore};
use super::store::{Small, Tree, assert_tree, files, prepared, quick_store, seed, wipe};
use super::support::tree::describe;

/// Proves: A03.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a03_nothing_to_restore_fails_and_touches_nothing() {
    let site = Site::new("a03").await;
    prepared(&site).await;
    quick_store(&site).await;
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

/// Proves: A06, scenario 18, scenario 19, invented 14.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a06_only_selected_files_come_back() {
    let site = Site::new("a06").await;
    let trees = prepared(&site).await;
    quick_store(&site).await;
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

/// Proves: A05.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a05_a_full_volume_is_refused_before_a_byte_is_written() {
    let site = Site::new("a05").await;
    prepared(&site).await;
    quick_store(&site).await;
    let small = Small::new(&site, "1m").await;
    site.create(&restore("small", &of_claim("m1", "small", LATEST), "")).await;
    let text = site.failed("RestoreSession", "small", "NoSpace").await;
    let left = site.on_node(&["find", &small.place, "-mindepth", "1"]);
    assert_eq!(left, "", "something was written: {text}");
    assert!(text.contains("/stash-data"), "it names the volume: {text}");
    assert_eq!(site.jobs("small", "restore").await.len(), 1, "a volume does not grow by trying again");
}

/// Three runs of BackupBatch `nightly` over the claims a and b. Gives the trees of each, and a time after each.
async fn three_nights(site: &Site) -> Vec<(Vec<Tree>, String)> {
    let folders = [site.claim("a").await, site.claim("b").await];
    let members = ["a", "b"].map(|n| of_claim(n, n, ""));
    // In order: the snapshot of b determines when the run is over, and that time must count for a as well.
    let settings = "executionOrder: Sequential\n  retentionPolicy: {name: keep, keepLast: 5, prune: false}";
    site.create(&batch("BackupBatch", "nightly", settings, &members)).await;
    let mut nights = vec![];
    for night in 1..=3 {
        let trees = folders.iter().zip(0..).map(|(folder, n)| {
            wipe(folder);
            seed(folder, night * 10 + n, 20_000)
        });
        let trees = trees.collect();
        let name = format!("night-{night}");
        site.create(&backup_session(&name, "BackupBatch", "nightly")).await;
        site.succeeded("BackupSession", &name).await;
        nights.push((trees, k8s_openapi::jiff::Timestamp::now().to_string()));
    }
    nights
}

/// Proves: A02.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a02_a_backup_is_chosen_by_time_place_tag_or_session() {
    let site = Site::new("a02").await;
    quick_store(&site).await;
    let nights = three_nights(&site).await;
    let second = &nights[1].1;
    let tag = format!("lifeboat.session={}/night-2", site.namespace);
    // Host, rule, fields of the session, and the night that is restored.
    let cases = [
        ("as-of", "a", format!("snapshots: [latest], asOf: '{second}'"), String::new(), 2),
        ("path", "a", format!("paths: [/stash-data], asOf: '{second}', previous: 1"), String::new(), 1),
        ("previous", "b", "snapshots: [latest], previous: 2".into(), String::new(), 1),
        ("tags", "b", format!("snapshots: [latest], tags: ['{tag}']"), String::new(), 2),
        ("all-as-of", "b", "snapshots: [latest]".into(), format!("  asOf: '{second}'\n"), 2),
        ("session", "a", "paths: [/stash-data]".into(), "  backupSession: night-1\n".into(), 1),
        ("own", "a", "snapshots: [latest], previous: 0".into(), "  backupSession: night-1\n".into(), 3),
    ];
    site.try_delete("BackupSession", "night-1").await;
    let mut folders = vec![];
    for (name, host, rule, more, _) in &cases {
        folders.push(site.claim(name).await);
        let target = of_claim("into", name, &format!(", rules: [{{sourceHost: {host}, {rule}}}]"));
        site.create(&restore(name, &target, more)).await;
    }
    let nobody = of_claim("c", "as-of", ", rules: [{snapshots: [latest]}]");
    site.create(&restore("nobody", &nobody, "  backupSession: night-2\n")).await;
    for ((name, host, _, _, night), folder) in cases.iter().zip(&folders) {
        let session = site.succeeded("RestoreSession", name).await;
        assert_tree(folder, &nights[night - 1].0[usize::from(*host == "b")]);
        let pinned = session["status"]["stats"][0]["snapshots"][0]["id"].as_str().unwrap();
        assert_eq!(pinned.len(), 64, "{name}: the exact snapshot stands in status");
    }
    let text = site.failed("RestoreSession", "nobody", "SnapshotNotFound").await;
    assert!(text.contains("host \"c\"") && text.contains(&format!("{}/night-2", site.namespace)), "{text}");
    assert!(text.contains("That session has host \"a\""), "{text}");
}

/// Proves: A02.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a02_a_batch_restores_what_its_backup_batch_names_as_it_was_together() {
    let site = Site::new("a02-batch").await;
    quick_store(&site).await;
    let nights = three_nights(&site).await;
    let (a, b) = (site.folder("a").await, site.folder("b").await);
    let again = |name: &str, more: &str| {
        format!(
            "apiVersion: stash.appscode.com/v1beta1
kind: RestoreBatch
metadata: {{name: {name}}}
spec:
  backupBatch: {{name: nightly{more}
"
        )
    };
    for (name, more, night) in [
        ("first", "}\n  backupSession: night-1".to_owned(), 1),
        ("second", format!("}}\n  asOf: '{}'", nights[1].1), 2),
        ("newest", "}".to_owned(), 3),
    ] {
        wipe(&a);
        wipe(&b);
        site.create(&again(name, &more)).await;
        site.succeeded("RestoreBatch", name).await;
        for (folder, tree) in [&a, &b].into_iter().zip(&nights[night - 1].0) {
            assert_tree(folder, tree);
        }
    }
    // Restores one member of the backup.
    wipe(&a);
    site.create(&again("one", ", members: [a]}\n  backupSession: night-2")).await;
    let session = site.succeeded("RestoreBatch", "one").await;
    assert_eq!(session["status"]["members"].as_array().unwrap().len(), 1);
    assert_tree(&a, &nights[1].0[0]);
    assert_tree(&b, &nights[2].0[1]);
}
