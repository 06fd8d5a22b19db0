//! `Ready` of a Repository and of what is backed up into it, against a store.

use serde_json::{Value, json};

use super::harness::{Site, condition};
use super::manifests::{PASSWORD, backup_session, configuration, of_claim, repository, secret};
use super::store::{prepared, seed};

async fn both(site: &Site, status: &str, why: &str) {
    for (kind, name) in [("Repository", "repo"), ("BackupConfiguration", "data")] {
        let says = |o: &Value| {
            let (found, reason, _) = condition(o, "Ready");
            found == status && (why.is_empty() || reason == why)
        };
        // restic itself retries a wrong protocol for two minutes.
        site.until(kind, name, 240, &format!("Ready {status} {why}"), says).await;
    }
}

/// Closes: B1, B3, B4 of the newcomer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn ready_has_the_reason_that_a_session_has_and_wakes_when_it_is_mended() {
    let site = Site::new("opens").await;
    prepared(&site).await;
    seed(&site.claim("data").await, 1, 1_000);
    let endpoint = site.s3("endpoint");
    site.create(&secret(&site, "store", "not-the-password", "")).await;
    site.create(&repository(&site, "repo", &endpoint, "a/b")).await;
    site.create(&configuration("data", &of_claim("data", "data", ""), "")).await;
    both(&site, "False", "WrongPassword").await;
    site.create(&backup_session("early", "BackupConfiguration", "data")).await;
    site.failed("BackupSession", "early", "WrongPassword").await;
    site.patch("Secret", "store", json!({ "stringData": { "RESTIC_PASSWORD": PASSWORD } })).await;
    both(&site, "True", "").await;

    let bucket = site.bucket().file_name().unwrap().to_str().unwrap().to_owned();
    let tls = endpoint.replace("http://", "https://");
    let cases = [
        ("bucket", "there-is-none", bucket.as_str(), "BucketMissing"),
        ("endpoint", &tls, &endpoint, "RepositoryUnreachable"),
    ];
    for (field, wrong, right, why) in cases {
        let set = |value: &str| json!({ "spec": { "backend": { "s3": { field: value } } } });
        site.patch("Repository", "repo", set(wrong)).await;
        both(&site, "False", why).await;
        site.patch("Repository", "repo", set(right)).await;
        both(&site, "True", "").await;
    }
    site.create(&backup_session("data", "BackupConfiguration", "data")).await;
    site.succeeded("BackupSession", "data").await;
}
