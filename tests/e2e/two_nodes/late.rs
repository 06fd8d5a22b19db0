//! Definitions, a webhook and an operator that come late, and an operator with the wrong time of day.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::Turn;
use crate::front::Front;
use crate::harness::{Site, condition, eventually};
use crate::manifests::{LATEST, of_claim, restore, store};
use crate::operator::Operator;
use crate::store::{assert_tree, prepared, wipe};

const DEFINITION: &str = "restoresessions.stash.appscode.com";

/// The installed operator, taken away. It is put back however the test ends.
struct Away<'s>(&'s Site);

impl<'s> Away<'s> {
    fn take(site: &'s Site) -> Self {
        let away = Self(site);
        away.scale(0);
        away.system(&["wait", "--for=delete", "pod", "--selector=app.kubernetes.io/name=lifeboat", "--timeout=60s"]);
        away
    }

    fn scale(&self, replicas: u8) {
        self.system(&["scale", "deployment/lifeboat", &format!("--replicas={replicas}")]);
    }

    fn system(&self, words: &[&str]) -> String {
        self.0.kubectl(&[&["--namespace=lifeboat-system"], words].concat())
    }

    fn define(&self) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/restoresessions.yaml");
        self.0.kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", file.to_str().unwrap()]);
        let definition = format!("crd/{DEFINITION}");
        self.0.kubectl(&["wait", "--for=condition=Established", &definition, "--timeout=60s"]);
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        self.define();
        self.scale(1);
        self.system(&["rollout", "status", "deployment/lifeboat", "--timeout=90s"]);
    }
}

/// Proves: B07.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster of its own: make test-e2e"]
async fn b07_definitions_and_a_webhook_that_come_late_are_waited_for() {
    let _turn = Turn::alone().await;
    let site = Site::new("b07").await;
    let trees = prepared(&site).await;
    store(&site).await;
    let folder = site.claim("data").await;

    let away = Away::take(&site);
    site.kubectl(&["delete", "crd", DEFINITION, "--timeout=60s"]);
    away.scale(1);
    let waits = eventually(60, async || {
        let words = ["--namespace=lifeboat-system", "logs", "deployment/lifeboat", "--tail=-1"];
        let log = site.kubectl_command(&words).output().unwrap();
        String::from_utf8_lossy(&log.stdout).contains("custom resource definitions are not served yet").then_some(())
    });
    assert!(waits.await.is_some(), "the operator does not say what it waits for");
    let ready = away.system(&["get", "deployment/lifeboat", "-o", "jsonpath={.status.readyReplicas}"]);
    assert!(["", "0"].contains(&ready.as_str()), "ready without definitions: {ready}");
    drop(away);

    // No operator answers for the webhook while a session is created.
    let away = Away::take(&site);
    let held = restore("data", &of_claim("m0", "data", LATEST), "")
        .replace("{name: data}\nspec", "{name: data, finalizers: [example.com/somebody-elses]}\nspec");
    site.create(&held).await;
    drop(away);
    site.succeeded("RestoreSession", "data").await;
    assert_tree(&folder, &trees[0]);
    site.delete("RestoreSession", "data").await;
    let let_go = |s: &Value| s["metadata"]["finalizers"] == json!(["example.com/somebody-elses"]);
    site.until("RestoreSession", "data", 30, "let go by the operator", let_go).await;
    site.patch("RestoreSession", "data", json!({ "metadata": { "finalizers": null } })).await;
    let gone = eventually(30, async || site.find("RestoreSession", "data").await.is_none().then_some(())).await;
    assert!(gone.is_some(), "it stays");
}

/// Proves: C12.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster of its own: make test-e2e"]
async fn c12_an_operator_whose_clock_is_an_hour_off_restores_and_keeps_deadlines() {
    let _turn = Turn::alone().await;
    let site = Site::new("c12").await;
    let trees = prepared(&site).await;
    store(&site).await;
    let folder = site.claim("data").await;
    let image = "jsonpath={.spec.template.spec.containers[0].image}";
    let image = site.kubectl(&["--namespace=lifeboat-system", "get", "deployment/lifeboat", "-o", image]);
    let _away = Away::take(&site);
    // Over plain HTTP: no certificate is valid for a clock like this.
    let front = Front::new(&site.client).await;
    for hours in [1, -1] {
        drop(std::fs::remove_file(Operator::log("skewed")));
        let operator = Operator::skewed(&front.kubeconfig, &image, hours * 3600).await;
        wipe(&folder);
        let (name, late) = (format!("data{hours}"), format!("late{hours}"));
        site.create(&restore(&late, &of_claim("m0", "nowhere", LATEST), "  timeOut: 5s\n")).await;
        site.create(&restore(&name, &of_claim("m0", "data", LATEST), "")).await;
        let done = site.succeeded("RestoreSession", &name).await;
        assert_tree(&folder, &trees[0]);
        assert_eq!(done["status"]["stats"][0]["attempt"], 1, "{:#}", done["status"]);
        let began: Timestamp = done["status"]["run"]["startTime"].as_str().unwrap().parse().unwrap();
        let created: Timestamp = done["metadata"]["creationTimestamp"].as_str().unwrap().parse().unwrap();
        assert!(began.duration_since(created).abs().as_secs() < 60, "it goes by the API server's clock: {began}");
        let text = site.failed("RestoreSession", &late, "FailedToCompleteWithinDeadline").await;
        assert!(text.contains("nowhere"), "{text}");
        let session = site.get("RestoreSession", &late).await;
        assert_eq!(condition(&session, "DeadlineExceeded").0, "True");
        drop(operator);
        // The operator's own clock must have been as wrong as intended. Otherwise this test proves nothing.
        let log = std::fs::read_to_string(Operator::log("skewed")).unwrap();
        let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        let said: Timestamp = line["timestamp"].as_str().unwrap().parse().unwrap();
        let off = said.duration_since(Timestamp::now()).as_secs() - hours * 3600;
        assert!(off.abs() < 300, "the operator's clock is {off} s off what it should be");
    }
}
