//! What goes wrong with a database: each fault has its own reason, none is a success, none hangs.

use serde_json::Value;

use super::servers::{Kind, Server, target};
use super::{LATEST, Site, TABLES, dump, fill, quick_store};
use crate::harness::{eventually, phase};
use crate::manifests::{backup_session, configuration, restore};
use crate::store::Small;

/// Number of snapshots in the repository.
fn snapshots(site: &Site) -> usize {
    std::fs::read_dir(site.bucket().join("a/b/snapshots")).map_or(0, Iterator::count)
}

/// Starts a backup of a target, and gives the name of its session.
async fn begin(site: &Site, name: &str, target: &str, more: &str) {
    site.create(&configuration(name, target, &format!("  task: {{name: postgres-backup}}\n{more}"))).await;
    site.create(&backup_session(name, "BackupConfiguration", name)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_dump_that_fails_leaves_no_snapshot() {
    let site = Site::new("pg-dump").await;
    quick_store(&site).await;
    let server = Server::start(&site, "pg", Kind::Postgres17).await;
    fill(&server, 500);

    let with_user = |name: &str, user: &str, password: &str| {
        format!(
            "apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
stringData: {{user: {user}, password: {password}}}
---
apiVersion: appcatalog.appscode.com/v1alpha1
kind: AppBinding
metadata: {{name: {name}}}
spec:
  type: kubedb.com/postgres
  clientConfig: {{url: 'postgresql://pg:5432'}}
  secret: {{name: {name}}}
  secretTransforms: [{{renameKey: {{from: user, to: username}}}}]
"
        )
    };
    site.create(&with_user("wrong", "postgres", "not-the-password")).await;
    begin(&site, "wrong", &target("wrong", "a", ""), "").await;
    let text = site.failed("BackupSession", "wrong", "LoginFailed").await;
    assert!(text.contains("AppBinding wrong") && !text.contains("not-the-password"), "{text}");
    site.create(&with_user("weak", "app", "'of the app'")).await;
    begin(&site, "weak", &target("weak", "b", ""), "").await;
    site.failed("BackupSession", "weak", "PrivilegeMissing").await;

    // A table is locked for longer than the deadline.
    let mut lock = server.hold("shop", "BEGIN; LOCK TABLE no_key; SELECT pg_sleep(300)");
    let is_locked = eventually(30, async || {
        (server.sql("shop", "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted;") != "0")
            .then_some(())
    });
    is_locked.await.expect("the table is not locked");
    begin(&site, "late", &server.target("c", ""), "  timeOut: 15s\n").await;
    site.failed("BackupSession", "late", "FailedToCompleteWithinDeadline").await;
    assert_eq!(snapshots(&site), 0, "no dump that failed is stored");

    // The server is killed in the middle of a dump, which waits for the lock. The next attempt succeeds.
    begin(&site, "killed", &server.target("d", ""), "").await;
    site.running("killed", "backup").await;
    let dumps = eventually(60, async || {
        let sql =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lifeboat' AND wait_event_type = 'Lock';";
        (server.try_sql("", sql).ok()? != "0").then_some(())
    });
    dumps.await.expect("the dump does not wait for the lock");
    server.kill();
    lock.kill().unwrap();
    lock.wait().unwrap();
    let session = site.succeeded("BackupSession", "killed").await;
    let host = &session["status"]["targets"][0]["stats"][0];
    assert!(host["attempt"].as_i64() > Some(1), "{host:#}");
    assert_eq!(snapshots(&site), 2, "a dump and its manifest");
    site.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_load_that_is_cut_off_is_repeated_and_one_without_room_fails() {
    let site = Site::new("pg-load").await;
    quick_store(&site).await;
    let server = Server::start(&site, "pg", Kind::Postgres17).await;
    fill(&server, 30_000);
    // The index is not loaded as long as this file exists.
    server.sql(
        "shop",
        "CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
         'BEGIN WHILE (pg_stat_file(''/tmp/hold'', true)).size IS NOT NULL LOOP PERFORM pg_sleep(0.1); END LOOP; RETURN $1; END';
         CREATE TABLE one (i int); INSERT INTO one VALUES (1); CREATE INDEX ON one (public.slow(i));",
    );
    let hold = || site.kubectl(&["exec", "pg", "--", "touch", "/tmp/hold"]);
    let release = || site.kubectl(&["exec", "pg", "--", "rm", "-f", "/tmp/hold"]);
    let before = server.sql("shop", TABLES);
    dump(&site, "pg", &server.target("pg", ""), "{name: postgres-backup}").await;
    let repeated = |session: &Value| {
        assert!(session["status"]["stats"][0]["attempt"].as_i64() > Some(1), "{:#}", session["status"]);
    };
    let loads = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND state = 'active';";
        let began = eventually(90, async || (server.try_sql("", sql).ok()? != "0").then_some(()));
        began.await.expect("the load does not come to the index");
    };
    hold();
    site.create(&restore("killed", &server.target("pg", LATEST), "")).await;
    loads().await;
    server.kill();
    release();
    repeated(&site.succeeded("RestoreSession", "killed").await);
    assert_eq!(server.sql("shop", TABLES), before);

    // The connection is cut.
    hold();
    site.create(&restore("cut", &server.target("pg", LATEST), "")).await;
    loads().await;
    server.sql("", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lifeboat' AND datname = 'shop';");
    release();
    repeated(&site.succeeded("RestoreSession", "cut").await);
    assert_eq!(server.sql("shop", TABLES), before);

    // The volume of another server is too small.
    let room = Small::new(&site, "72m").await;
    let full = Server::start_on(&site, "full", Kind::Postgres17, "persistentVolumeClaim: {claimName: small}").await;
    site.create(&restore("full", &full.target("pg", LATEST), "")).await;
    let session = site.ended("RestoreSession", "full").await;
    assert_eq!(phase(&session), "Failed");
    let why = session["status"]["stats"][0]["reason"].as_str().unwrap().to_owned();
    assert_eq!(why, "ServerDiskFull", "{:#}", session["status"]);
    site.delete("Pod", "full").await;
    drop(room);
    site.leaves_nothing().await;
}
