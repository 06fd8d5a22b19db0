//! examples/wordpress, as its files are: the batch of the proposal, with its database.

use std::path::Path;

use serde_json::{Value, json};

use super::Site;
use super::servers::PASSWORD;
use crate::batch::restored;
use crate::harness::eventually;
use crate::manifests::PASSWORD as REPOSITORY;
use crate::store::{assert_tree, seed, wipe};

fn example(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/wordpress").join(name);
    std::fs::read_to_string(file).unwrap()
}

/// Objects of the example, in the namespace and with the storage and images of this test.
async fn create(site: &Site, name: &str) {
    let endpoint = site.s3("endpoint");
    let bucket = site.bucket();
    let text = example(name)
        .replace("endpoint: https://s3.example.com", &format!("endpoint: '{endpoint}'\n      region: us-east-1"))
        .replace("bucket: backups", &format!("bucket: {}", bucket.file_name().unwrap().to_str().unwrap()))
        .replace("RESTIC_PASSWORD: change-me", &format!("RESTIC_PASSWORD: {REPOSITORY}"))
        .replace("AWS_ACCESS_KEY_ID: change-me", &format!("AWS_ACCESS_KEY_ID: {}", site.s3("accessKey")))
        .replace("AWS_SECRET_ACCESS_KEY: change-me", &format!("AWS_SECRET_ACCESS_KEY: {}", site.s3("secretKey")))
        .replace("password: change-me", &format!("password: {PASSWORD}"))
        .replace("storage: 1Gi", "storage: 256Mi")
        .replace("namespace: demo", &format!("namespace: {}", site.namespace));
    for mut object in lifeboat::yaml::read(&text).unwrap() {
        if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0") {
            adapt(container);
        }
        site.create(&object.to_string()).await;
    }
}

/// The images that the cluster has: a real MariaDB, and a pod in place of the web server.
fn adapt(container: &mut Value) {
    container["imagePullPolicy"] = "IfNotPresent".into();
    if container["name"] == "mysql" {
        container["image"] = "localhost/lifeboat-test-databases:1".into();
        container["args"] = json!(["mariadb"]);
        container["env"].as_array_mut().unwrap().push(json!({ "name": "DATA", "value": "/var/lib/mysql" }));
    } else {
        container["image"] = "localhost/lifeboat-test-app:1".into();
        container["command"] = json!(["sh", "-c", "trap exit TERM; sleep infinity & wait"]);
    }
}

fn sql(site: &Site, statements: &str) -> Option<String> {
    let script = "MYSQL_PWD=$MARIADB_ROOT_PASSWORD exec mariadb --skip-ssl -uroot -h127.0.0.1 --batch --skip-column-names -e \"$0\"";
    let exec = ["exec", "sample-mysql-0", "--", "sh", "-c", script, statements];
    let out = site.kubectl_command(&exec).output().unwrap();
    out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

/// Proves: invented 8.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn the_batch_of_the_proposal_backs_up_and_restores_wordpress_in_order() {
    let site = Site::new("wordpress").await;
    create(&site, "wordpress.yaml").await;
    create(&site, "repository.yaml").await;
    let folder = site.folder("wordpress").await;
    let tree = seed(&folder, 7, 200_000);
    eventually(60, async || sql(&site, "SELECT 1")).await.expect("MariaDB does not answer");
    sql(
        &site,
        "CREATE DATABASE wordpress; USE wordpress; CREATE TABLE wp_posts (id int PRIMARY KEY, title text, body longtext);
         INSERT INTO wp_posts SELECT seq, CONCAT('Post ', seq), REPEAT(MD5(seq), 20) FROM seq_1_to_2000",
    )
    .unwrap();
    let posts = "SELECT COUNT(*), MD5(GROUP_CONCAT(MD5(CONCAT(id, title, body)) ORDER BY id)) FROM wordpress.wp_posts";
    let before = sql(&site, posts).unwrap();

    create(&site, "backupbatch.yaml").await;
    create(&site, "backupsession.yaml").await;
    site.succeeded("BackupSession", "wordpress-now").await;

    sql(&site, "DROP DATABASE wordpress").unwrap();
    wipe(&folder);
    create(&site, "restorebatch.yaml").await;
    let batch = site.succeeded("RestoreBatch", "wordpress-restore").await;
    assert_eq!(sql(&site, posts).unwrap(), before);
    assert_tree(&folder, &tree);
    let restored = restored(&site, "wordpress-restore").await;
    let [(_, _, ended), (_, began, _)] = restored.as_slice() else { panic!("{restored:?}") };
    assert!(ended <= began, "the database is loaded before the files are restored: {:#}", batch["status"]);
    site.leaves_nothing().await;
}
