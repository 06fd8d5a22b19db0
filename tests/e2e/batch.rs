//! Several members: in order, side by side, and what a failed member means for the others.

use serde_json::Value;

use super::harness::{Site, condition, phase};
use super::manifests::{LATEST, batch, of_claim};
use super::store::{assert_tree, damage_largest_pack, prepared, quick_store, wipe};
use super::support::tree::describe;

/// Restore targets of m0 to m3, each into a claim of its name.
pub fn members() -> Vec<String> {
    (0..4).map(|n| of_claim(&format!("m{n}"), &format!("m{n}"), LATEST)).collect()
}

fn phases(session: &Value) -> Vec<&str> {
    session["status"]["members"].as_array().unwrap().iter().map(|m| m["phase"].as_str().unwrap()).collect()
}

/// Step key of each restore of a session, and when its container began and ended.
pub async fn restored(site: &Site, session: &str) -> Vec<(String, String, String)> {
    let mut all = vec![];
    for pod in site.list("Pod").await {
        let (notes, labels) = (&pod["metadata"]["annotations"], &pod["metadata"]["labels"]);
        if notes["lifeboat.stash.appscode.com/session-name"] == session
            && labels["lifeboat.stash.appscode.com/step"] == "restore"
        {
            let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
            let text = |v: &Value| v.as_str().unwrap().to_owned();
            let key = text(&notes["lifeboat.stash.appscode.com/step-key"]);
            all.push((key, text(&ended["startedAt"]), text(&ended["finishedAt"])));
        }
    }
    all.sort();
    all
}

/// Proves: B01.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn b01_in_order_a_failed_member_stops_those_after_it_unless_told_to_continue() {
    let site = Site::new("b01").await;
    let trees = prepared(&site).await;
    // Only the data is damaged: every snapshot can be resolved, and member 1 fails when it is restored.
    damage_largest_pack(&site.bucket());
    quick_store(&site).await;
    let mut folders = vec![];
    for n in 0..4 {
        folders.push(site.claim(&format!("m{n}")).await);
    }
    let empty: Vec<_> = folders.iter().map(|f| describe(f)).collect();

    site.create(&batch("RestoreBatch", "stops", "maintainOrder: true", &members())).await;
    let text = site.failed("RestoreBatch", "stops", "DataCorrupt").await;
    assert!(text.contains("ember 1 (m1)"), "{text}");
    assert!(text.contains("1 of 4 members restored, 2 not started"), "{text}");
    let session = site.get("RestoreBatch", "stops").await;
    assert_eq!(phases(&session), ["Succeeded", "Failed", "Skipped", "Skipped"]);
    for n in [2, 3] {
        let message = session["status"]["members"][n]["message"].as_str().unwrap();
        assert!(message.contains("member 1 (m1) failed") && message.contains("onFailure"), "{message}");
        assert_tree(&folders[n], &empty[n]);
    }
    let keys: Vec<String> = restored(&site, "stops").await.into_iter().map(|(key, ..)| key).collect();
    assert_eq!(keys, ["restore/0/m0", "restore/1/m1"], "each once, and no Job for those after the failed one");
    assert_tree(&folders[0], &trees[0]);

    wipe(&folders[0]);
    let settings = "executionOrder: Sequential\n  onFailure: Continue";
    site.create(&batch("RestoreBatch", "goes-on", settings, &members())).await;
    site.failed("RestoreBatch", "goes-on", "DataCorrupt").await;
    let session = site.get("RestoreBatch", "goes-on").await;
    assert_eq!(phases(&session), ["Succeeded", "Failed", "Succeeded", "Succeeded"]);
    for n in [0, 2, 3] {
        assert_tree(&folders[n], &trees[n]);
    }
    let jobs = restored(&site, "goes-on").await;
    assert_eq!(jobs.len(), 4);
    for two in jobs.windows(2) {
        assert!(two[0].2 <= two[1].1, "{} began before {} was done: {jobs:?}", two[1].0, two[0].0);
    }
}

/// Proves: B02.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn b02_side_by_side_one_failure_leaves_the_others_alone() {
    let site = Site::new("b02").await;
    let trees = prepared(&site).await;
    damage_largest_pack(&site.bucket());
    quick_store(&site).await;
    let mut folders = vec![];
    // The claim of m3 does not exist yet: this delays no other member.
    for n in 0..3 {
        folders.push(site.claim(&format!("m{n}")).await);
    }
    site.create(&batch("RestoreBatch", "all", "executionOrder: Parallel", &members())).await;
    let settled =
        |s: &Value| s["status"]["members"].is_array() && phases(s)[..3] == ["Succeeded", "Failed", "Succeeded"];
    let session = site.until("RestoreBatch", "all", 120, "done with what is there", settled).await;
    assert_eq!(phase(&session), "Running");
    assert_eq!(phases(&session)[3], "Pending");
    assert_eq!(condition(&session, "Reconciling").0, "True");
    folders.push(site.claim("m3").await);

    let text = site.failed("RestoreBatch", "all", "DataCorrupt").await;
    assert!(text.contains("ember 1 (m1)") && text.contains("3 of 4 members restored"), "{text}");
    let session = site.get("RestoreBatch", "all").await;
    assert_eq!(phases(&session), ["Succeeded", "Failed", "Succeeded", "Succeeded"]);
    for n in [0, 2, 3] {
        assert_tree(&folders[n], &trees[n]);
    }
    let host = &session["status"]["members"][1]["stats"][0];
    assert_eq!((&host["phase"], &host["reason"]), (&"Failed".into(), &"DataCorrupt".into()));
    assert_eq!(restored(&site, "all").await.len(), 4, "damaged data is not tried again");
}
