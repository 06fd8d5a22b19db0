//! Servers that accept no connection without TLS, and whose certificate is checked.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use super::servers::{Kind, Server};
use super::{LATEST, Site, dump, quick_store};
use crate::manifests::{backup_session, configuration, restore};

/// The certificates of these authorities are accepted for an AppBinding.
async fn trust(site: &Site, binding: &str, ca: &str) {
    let bundle = json!({ "spec": { "clientConfig": { "caBundle": BASE64_STANDARD.encode(ca) } } });
    site.patch("AppBinding", binding, bundle).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn a_server_with_tls_is_dumped_and_loaded_only_if_its_certificate_is_trusted() {
    let site = Site::new("db-tls").await;
    quick_store(&site).await;
    let servers = [
        ("pg", Kind::Postgres15, "postgres", "CREATE TABLE t AS SELECT 42 AS x;", "DROP TABLE t;", "SELECT x FROM t;"),
        (
            "my",
            Kind::MariaDb,
            "mariadb",
            "CREATE DATABASE d; CREATE TABLE d.t AS SELECT 42 AS x;",
            "DROP DATABASE d;",
            "SELECT x FROM d.t;",
        ),
        ("kv", Kind::Valkey, "redis", "SET x 42", "DEL x", "GET x"),
    ];
    for (name, kind, addon, fill, lose, read) in servers {
        let host = format!("{name}.{}.svc", site.namespace);
        let [own, other] = [(); 2].map(|()| rcgen::generate_simple_self_signed(vec![host.clone()]).unwrap());
        let files =
            json!({ "tls.crt": own.cert.pem(), "ca.crt": own.cert.pem(), "tls.key": own.signing_key.serialize_pem() });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": format!("{name}-tls") }, "stringData": files });
        site.create(&secret.to_string()).await;
        let server = Server::start_with_tls(&site, name, kind).await;
        server.sql("", fill);

        let task = format!("{{name: {addon}-backup}}");
        trust(&site, name, &other.cert.pem()).await;
        let refused = format!("{name}-refused");
        site.create(&configuration(&refused, &server.target(&refused, ""), &format!("  task: {task}\n"))).await;
        site.create(&backup_session(&refused, "BackupConfiguration", &refused)).await;
        let text = site.failed("BackupSession", &refused, "LoginFailed").await;
        assert!(text.contains("certificate"), "{text}");

        trust(&site, name, &own.cert.pem()).await;
        dump(&site, name, &server.target(name, ""), &task).await;
        server.sql("", lose);
        let task = format!("  task: {{name: {addon}-restore}}\n");
        site.create(&restore(name, &server.target(name, LATEST), &task)).await;
        site.succeeded("RestoreSession", name).await;
        assert_eq!(server.sql("", read), "42", "{name}");
    }
    site.leaves_nothing().await;
}
