//! docs/howto.md, as a reader runs it: its manifests and commands, with the names of this cluster in place of the
//! page's.

use std::fs;
use std::path::Path;
use std::process::Command;

use k8s_openapi::jiff::Timestamp;

use super::harness::Site;
use super::manifests::{PASSWORD, backup_session, deployment};
use super::store::{assert_tree, seed, wipe};
use super::support::tree::describe;

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The n-th block of a section of the page.
pub fn block(title: &str, n: usize) -> String {
    let page = page("docs/howto.md");
    let section = page.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no section {title}"));
    let section = section.split("\n## ").next().unwrap();
    let fenced = section.split("\n```").skip(1).step_by(2).nth(n);
    fenced.unwrap_or_else(|| panic!("{title} has no block {n}")).split_once('\n').unwrap().1.to_owned()
}

/// A text of the page, adapted to this test: its store, its namespaces `demo` and `staging`, and its time.
fn told(text: &str, store: &Site, demo: &Site, staging: &Site, time: &str) -> String {
    let bucket = store.bucket();
    let bucket = bucket.file_name().unwrap().to_str().unwrap();
    let endpoint = store.s3("endpoint");
    text.replace("s3:https://s3.amazonaws.com/my-backups", &format!("s3:{endpoint}/{bucket}"))
        .replace("endpoint: s3.amazonaws.com", &format!("endpoint: '{endpoint}'"))
        .replace("bucket: my-backups", &format!("bucket: {bucket}"))
        .replace("eu-central-1", "us-east-1")
        .replace("RESTIC_PASSWORD: change-me", &format!("RESTIC_PASSWORD: {PASSWORD}"))
        .replace("AWS_ACCESS_KEY_ID: change-me", &format!("AWS_ACCESS_KEY_ID: {}", store.s3("accessKey")))
        .replace("AWS_SECRET_ACCESS_KEY: change-me", &format!("AWS_SECRET_ACCESS_KEY: {}", store.s3("secretKey")))
        .replace("storage: 1Gi", "storage: 64Mi")
        .replace("2026-11-20T16:00:00Z", time)
        .replace("namespace: demo", &format!("namespace: {}", demo.namespace))
        .replace("-n demo ", &format!("-n {} ", demo.namespace))
        .replace("namespace: staging", &format!("namespace: {}", staging.namespace))
        .replace("\"staging\"", &format!("\"{}\"", staging.namespace))
}

/// Runs a block of commands in a folder; gives what it prints.
fn run(folder: &Path, script: &str) -> String {
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", script]).current_dir(folder);
    let out = shell.output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn the_how_tos_do_what_they_say() {
    let (demo, staging, far) = (Site::new("howto").await, Site::new("howto-to").await, Site::new("howto-far").await);
    let scratch = tempfile::tempdir().unwrap();
    let here = |text: &str, time: &str| told(text, &demo, &demo, &staging, time);

    // The application, and two backups of it.
    let folder = demo.claim("uploads").await;
    demo.create(&deployment("wordpress", 1, &[("uploads", "/var/www/html")])).await;
    demo.create(&here(&page("examples/repository-s3.yaml"), "")).await;
    demo.create(&here(&page("examples/backupconfiguration.yaml"), "")).await;
    let (mut trees, mut times) = (vec![], vec![]);
    for n in [1, 2] {
        wipe(&folder);
        fs::write(folder.join("wp-config.php"), format!("version {n}")).unwrap();
        trees.push(seed(&folder, n, 20_000));
        let name = format!("backup-{n}");
        demo.create(&backup_session(&name, "BackupConfiguration", "wordpress")).await;
        demo.succeeded("BackupSession", &name).await;
        times.push(Timestamp::now().to_string());
    }

    // Restores elsewhere, while the application goes back to an earlier state.
    run(scratch.path(), &here(&block("Restore in another namespace", 0), ""));
    staging.create(&here(&block("Restore in another namespace", 1), "")).await;
    let there = |text: &str| told(text, &demo, &far, &staging, "");
    far.create(&there(&block("Restore in another cluster", 0))).await;
    far.create(&there(&block("Restore in another cluster", 2))).await;
    demo.create(&here(&block("Restore what was there at a time", 0), &times[0])).await;
    demo.succeeded("RestoreSession", "wordpress-as-it-was").await;
    assert_tree(&folder, &trees[0]);
    staging.succeeded("RestoreSession", "wordpress-copy").await;
    assert_tree(&staging.folder("uploads").await, &trees[1]);
    far.succeeded("RestoreSession", "wordpress-moved").await;
    assert_tree(&far.folder("uploads").await, &trees[1]);
    run(scratch.path(), &there(&block("Restore in another cluster", 1)));

    demo.create(&here(&block("Restore one file", 0), "")).await;
    demo.succeeded("RestoreSession", "wordpress-one-file").await;
    assert_eq!(fs::read_to_string(folder.join("wp-config.php")).unwrap(), "version 2");
    let others = |tree: &super::store::Tree| {
        let mut tree = tree.clone();
        tree.retain(|path, line| line.contains(" sha256=") && !path.contains("wp-config.php"));
        tree
    };
    assert_eq!(others(&describe(&folder)), others(&trees[0]), "one file came back, and no other");

    let said = run(scratch.path(), &here(&block("Look into a backup with restic", 0), ""));
    assert!(said.contains("/var/www/html/wp-config.php"), "{said}");
    assert_eq!(fs::read_to_string(scratch.path().join("wp-config.php")).unwrap(), "version 2");
}
