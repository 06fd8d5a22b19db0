//! Rights that the operator uses in no other test: `tests/afterwards.rs` requires that each right is used.

use serde_json::Value;

use super::harness::{Site, condition, eventually, phase};
use super::manifests::{LATEST, batch, configuration, of_claim, restore};

/// Proves: D11.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn d11_the_finalizer_that_stash_left_on_a_configuration_is_taken_off() {
    let site = Site::new("d11").await;
    let left = |yaml: String, name: &str| {
        yaml.replace(&format!("{{name: {name}}}"), &format!("{{name: {name}, finalizers: [stash.appscode.com]}}"))
    };
    let target = of_claim("m0", "data", "");
    site.create(&left(configuration("old", &target, ""), "old")).await;
    let retention = "retentionPolicy: {name: keep, keepLast: 5, prune: false}";
    site.create(&left(batch("BackupBatch", "older", retention, &[target]), "older")).await;
    for (kind, name) in [("BackupConfiguration", "old"), ("BackupBatch", "older")] {
        site.delete(kind, name).await;
        let gone = eventually(60, async || site.find(kind, name).await.is_none().then_some(())).await;
        assert!(gone.is_some(), "{kind} {name} is still there");
    }
}

/// Proves: D11.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn d11_a_blueprint_is_told_that_it_is_not_built_and_a_daemon_set_is_looked_for() {
    let site = Site::new("d11-kinds").await;
    let name = site.namespace.clone();
    site.create(&format!(
        "apiVersion: stash.appscode.com/v1beta1
kind: BackupBlueprint
metadata: {{name: {name}}}
spec:
  repoNamespace: {name}
  backend: {{s3: {{endpoint: 'http://s3', bucket: b}}, storageSecretName: store}}
  retentionPolicy: {{name: keep, keepLast: 5, prune: false}}
"
    ))
    .await;
    site.until("BackupBlueprint", &name, 30, "refused", |b| phase(b) == "Invalid").await;
    site.delete("BackupBlueprint", &name).await;

    super::manifests::store(&site).await;
    let target = format!(
        "{{alias: logs, ref: {{apiVersion: apps/v1, kind: DaemonSet, name: logs}}, \
         volumeMounts: [{{name: data, mountPath: /data}}]{LATEST}}}"
    );
    site.create(&restore("logs", &target, "")).await;
    let waits = |s: &Value| condition(s, "Ready").2.contains("DaemonSet/logs");
    site.until("RestoreSession", "logs", 30, "waiting for the DaemonSet", waits).await;
}
