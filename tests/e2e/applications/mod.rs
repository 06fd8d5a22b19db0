//! Databases: dumped by real clients from real servers, lost, loaded, and compared by queries.

mod faults;
mod servers;
mod tls;
mod wordpress;

use serde_json::Value;

use self::servers::{Kind, PASSWORD, Server, target};
use super::harness::{Site, condition};
use super::manifests::{LATEST, backup_session, configuration, restore};
use super::store::quick_store;

/// Backs up a target into Repository `repo`, with this task.
async fn dump(site: &Site, name: &str, target: &str, task: &str) -> Value {
    site.create(&configuration(name, target, &format!("  task: {task}\n"))).await;
    site.create(&backup_session(name, "BackupConfiguration", name)).await;
    site.succeeded("BackupSession", name).await
}

/// One digest for each table of a PostgreSQL database, whatever the order of its rows.
const TABLES: &str = "SELECT n.nspname, c.relname, (xpath('/row/d/text()', query_to_xml(format(
  'SELECT md5(coalesce(string_agg(md5(t::text), '''' ORDER BY md5(t::text)), '''')) AS d FROM %I.%I t', n.nspname, c.relname),
  false, true, '')))[1]::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'v') AND n.nspname !~ '^(pg_|information_schema)' ORDER BY 1, 2;
  SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2;
  SELECT table_schema, table_name, grantee, privilege_type FROM information_schema.role_table_grants
  WHERE table_schema !~ '^(pg_|information_schema)' ORDER BY 1, 2, 3, 4;";

/// Roles of a PostgreSQL server with their passwords, and who owns which database.
const ROLES: &str =
    "SELECT rolname, rolcanlogin, rolcreatedb, rolpassword FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1;
  SELECT datname, pg_get_userbyid(datdba), encoding FROM pg_database WHERE NOT datistemplate ORDER BY 1;";

/// Rows with odd names, encodings, bytes and no key; a sequence, a view, grants; and a table of this many kilobytes.
fn fill(server: &Server<'_>, kilobytes: u32) {
    server.sql(
        "",
        "CREATE ROLE app LOGIN CREATEDB PASSWORD 'of the app'; CREATE ROLE reader NOLOGIN; GRANT reader TO app;
         CREATE DATABASE shop OWNER app; CREATE DATABASE \"Odd 'näme\";
         CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;",
    );
    server.sql(
        "shop",
        &format!(
            "SET ROLE app;
         CREATE TABLE \"Möbel \"\"x\"\"\" (id serial PRIMARY KEY, name text, raw bytea, at timestamptz DEFAULT '2026-11-20');
         INSERT INTO \"Möbel \"\"x\"\"\" (name, raw) SELECT 'é\\\\' || chr(9) || i || E'\\n日本', decode(md5(i::text), 'hex') FROM generate_series(1, 500) i;
         CREATE TABLE no_key (a int, b int); INSERT INTO no_key VALUES (1, NULL), (1, NULL), (2, 3);
         CREATE SCHEMA other; CREATE TABLE other.empty (x json);
         CREATE VIEW cheap AS SELECT count(*) FROM no_key; GRANT SELECT ON cheap, no_key TO reader;
         SELECT setval('\"Möbel \"\"x\"\"_id_seq\"', 4711);
         CREATE TABLE large AS SELECT i, repeat(md5(i::text), 32) AS noise FROM generate_series(1, {kilobytes}) i;
         CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';"
        ),
    );
    server.sql("latin", "SET client_encoding = 'UTF8'; CREATE TABLE t (x text); INSERT INTO t VALUES ('Größe');");
    server.sql("Odd 'näme", "CREATE TABLE \"a b\" (x int); INSERT INTO \"a b\" VALUES (42);");
}

/// What a PostgreSQL server contains.
fn state(server: &Server<'_>) -> Vec<String> {
    let of = |database: &str| server.sql(database, TABLES);
    vec![server.sql("", ROLES), of("shop"), of("latin"), of("Odd 'näme")]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_whole_postgresql_comes_back_with_its_roles() {
    let site = Site::new("pg").await;
    quick_store(&site).await;
    let server = Server::start(&site, "pg", Kind::Postgres17).await;
    fill(&server, 20_000);
    let before = state(&server);
    let session = dump(&site, "whole", &server.target("pg", ""), "{name: postgres-backup-11.9}").await;
    let snapshots = session["status"]["targets"][0]["stats"][0]["snapshots"].as_array().unwrap();
    let paths: Vec<&str> = snapshots.iter().map(|s| s["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["/dumpfile.sql", "/manifest.json"]);

    // A database that is not in the dump stays, and so does its owner's object; the password of the server is another.
    server.sql(
        "",
        "DROP DATABASE latin; DROP DATABASE \"Odd 'näme\"; CREATE DATABASE later OWNER app; ALTER ROLE app PASSWORD 'other';",
    );
    server.sql("shop", "DROP TABLE no_key CASCADE; DELETE FROM large; CREATE TABLE extra (x int);");
    server.sql("later", "CREATE TABLE kept (x int); INSERT INTO kept VALUES (7); ALTER TABLE kept OWNER TO app;");
    site.create(&restore("whole", &server.target("pg", LATEST), "  task: {name: postgres-restore-11.9}\n")).await;
    let session = site.succeeded("RestoreSession", "whole").await;
    assert_eq!(server.sql("later", "SELECT x FROM kept;"), "7");
    server.sql("", "DROP DATABASE later;");
    assert_eq!(state(&server), before, "{:#}", session["status"]);

    // Others are connected.
    let mut other = server.hold("shop", "SELECT pg_sleep(300)");
    site.create(&restore("used", &server.target("pg", LATEST), "")).await;
    let text = site.failed("RestoreSession", "used", "ApplicationInUse").await;
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(text.contains("to database shop") && text.contains("Nothing was changed"), "{text}");

    // An older server, and another application.
    let older = Server::start(&site, "old", Kind::Postgres15).await;
    site.create(&restore("older", &older.target("pg", LATEST), "")).await;
    let text = site.failed("RestoreSession", "older", "DumpTooNew").await;
    assert!(text.contains("PostgreSQL 17") && text.contains("(15)"), "{text}");
    assert_eq!(older.sql("", "SELECT count(*) FROM pg_database WHERE datname = 'shop';"), "0");
    site.create(&servers::connection("my", Kind::MariaDb)).await;
    site.create(&restore("wrong", &target("my", "pg", LATEST), "")).await;
    let text = site.failed("RestoreSession", "wrong", "WrongDump").await;
    assert!(text.contains("dump of PostgreSQL, and cannot be loaded into MariaDB or MySQL"), "{text}");

    let mine = ["get", "pods,jobs,backupsessions,restoresessions,events", "-o", "yaml", "-l", "app!=pg,app!=old"];
    assert!(!site.kubectl(&mine).contains(PASSWORD), "a password is shown");
    site.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn one_database_is_loaded_in_one_transaction_and_into_another_name() {
    let site = Site::new("pg-one").await;
    quick_store(&site).await;
    let server = Server::start(&site, "pg", Kind::Postgres15).await;
    fill(&server, 2_000);
    let before = server.sql("shop", TABLES);
    dump(&site, "one", &server.target("pg", ""), "{name: postgres-backup, params: [{name: databases, value: shop}]}")
        .await;
    server.sql("shop", "DROP TABLE no_key CASCADE; DELETE FROM large;");
    site.create(&restore("same", &server.target("pg", LATEST), "")).await;
    site.succeeded("RestoreSession", "same").await;
    assert_eq!(server.sql("shop", TABLES), before);

    let task = "  task: {name: postgres-restore, params: [{name: args, value: --dbname=copy}]}\n";
    site.create(&restore("copy", &server.target("pg", LATEST), task)).await;
    site.succeeded("RestoreSession", "copy").await;
    assert_eq!(server.sql("copy", TABLES), before);

    // Damaged data: the transaction is never ended, so nothing has changed.
    server.sql("copy", "INSERT INTO no_key VALUES (9, 9);");
    let changed = server.sql("copy", TABLES);
    super::store::damage_largest_pack(&site.bucket());
    site.create(&restore("damaged", &server.target("pg", LATEST), task)).await;
    site.failed("RestoreSession", "damaged", "DataCorrupt").await;
    assert_eq!(server.sql("copy", TABLES), changed);
    site.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn mariadb_comes_back_with_users_routines_triggers_and_events() {
    let site = Site::new("maria").await;
    quick_store(&site).await;
    let server = Server::start(&site, "db", Kind::MariaDb).await;
    server.sql(
        "",
        "CREATE DATABASE shop CHARACTER SET latin1; CREATE DATABASE `odd ``name`;
         CREATE USER 'app'@'%' IDENTIFIED BY 'of the app'; GRANT SELECT, INSERT ON shop.* TO 'app'@'%';
         USE shop;
         CREATE TABLE items (id int PRIMARY KEY AUTO_INCREMENT, name varchar(200) CHARACTER SET utf8mb4, raw blob);
         INSERT INTO items (name, raw) SELECT CONCAT('é\\'\"\\\\ 🚤 ', seq), UNHEX(MD5(seq)) FROM seq_1_to_3000;
         CREATE TABLE no_key (a int, b int); INSERT INTO no_key VALUES (1, NULL), (1, NULL);
         CREATE VIEW cheap AS SELECT COUNT(*) AS n FROM items; CREATE SEQUENCE numbers START WITH 100;
         CREATE PROCEDURE hello() SELECT 'hello';
         CREATE TRIGGER upper_case BEFORE INSERT ON no_key FOR EACH ROW SET NEW.b = NEW.a;
         CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM no_key;
         USE `odd ``name`; CREATE TABLE `a b` (x int); INSERT INTO `a b` VALUES (42);",
    );
    let state = || {
        server.sql(
            "",
            "SET SESSION group_concat_max_len = 10000000;
             SELECT MD5(GROUP_CONCAT(id, name, HEX(raw) ORDER BY id)) FROM shop.items;
             SELECT GROUP_CONCAT(a, ':', COALESCE(b, 'null') ORDER BY 1) FROM shop.no_key; SELECT n FROM shop.cheap;
             SELECT x FROM `odd ``name`.`a b`; SHOW GRANTS FOR 'app'@'%';
             SELECT routine_name FROM information_schema.routines WHERE routine_schema = 'shop';
             SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = 'shop';
             SELECT event_name FROM information_schema.events WHERE event_schema = 'shop';
             SELECT table_name, table_type, auto_increment FROM information_schema.tables WHERE table_schema = 'shop' ORDER BY 1;",
        )
    };
    let before = state();
    dump(&site, "all", &server.target("db", ""), "{name: mariadb-backup-10.6.23}").await;
    server.sql("", "DROP DATABASE shop; DROP DATABASE `odd ``name`; DROP USER 'app'@'%';");
    site.create(&restore("all", &server.target("db", LATEST), "  task: {name: mariadb-restore-10.6.23}\n")).await;
    site.succeeded("RestoreSession", "all").await;
    assert_eq!(state(), before);

    // Two dumps in one file, of which one has no data.
    let lines = "\"$args=--databases shop\\n$args=--databases 'odd `name' --no-data\"";
    let task = format!("{{name: mysql-backup-8.0.14, params: [{{name: multiDumpArgs, value: {lines}}}]}}");
    dump(&site, "two", &server.target("two", ""), &task).await;
    server.sql("", "DELETE FROM shop.items; UPDATE `odd ``name`.`a b` SET x = 1;");
    site.create(&restore("two", &server.target("two", LATEST), "  task: {name: mysql-restore-8.0.14}\n")).await;
    site.succeeded("RestoreSession", "two").await;
    assert_eq!(server.sql("", "SELECT COUNT(*) FROM shop.items; SELECT COUNT(*) FROM `odd ``name`.`a b`;"), "3000\n0");
    site.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn valkey_is_dumped_and_loaded_by_replication() {
    let site = Site::new("valkey").await;
    quick_store(&site).await;
    let server = Server::start(&site, "kv", Kind::Valkey).await;
    server.sql("", "SET a \"1\\x00\\xff\"\nRPUSH list a b c\nHSET hash f v\nZADD z 1 m\nSELECT 3\nSET other x\nXADD stream * k v\n");
    let state = || {
        server.sql("", "GET a\nLRANGE list 0 -1\nHGETALL hash\nZRANGE z 0 -1 WITHSCORES\nDBSIZE\nSELECT 3\nDBSIZE\nXRANGE stream - +\n")
    };
    let before = state();
    dump(&site, "kv", &server.target("kv", ""), "{name: redis-backup-6.2.5}").await;
    server.sql("", "FLUSHALL\nSET later 1\n");
    site.create(&restore("kv", &server.target("kv", LATEST), "  task: {name: redis-restore-6.2.5}\n")).await;
    let session = site.succeeded("RestoreSession", "kv").await;
    assert_eq!(state(), before, "{}", condition(&session, "Ready").2);
    assert!(server.sql("", "ROLE\n").starts_with("master"), "it is a primary again");
    assert_eq!(server.sql("", "CONFIG GET masterauth\nEXISTS later\n"), "masterauth\n\n0");
    site.leaves_nothing().await;
}
