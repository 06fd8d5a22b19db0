//! README's first backup and first restore: its manifests and its commands, exactly as they are written.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use lifeboat::contract::restic::Step;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::jobs;
use super::operator::Operator;

/// Blocks of a section of README in this language, in order.
fn blocks(title: &str, language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let section = page.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no section {title}"));
    let section = section.split("\n## ").next().unwrap();
    let fenced = section.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap());
    let found: Vec<String> = fenced.filter(|(l, _)| *l == language).map(|(_, text)| text.to_owned()).collect();
    assert!(!found.is_empty(), "{title} has no {language}");
    found
}

/// Runs one line of commands, as it is written.
async fn shell(command: &str) -> String {
    let line = command.to_owned();
    let shell = tokio::task::spawn_blocking(move || {
        let mut shell = Command::new("timeout");
        shell.args(["60", "bash", "-o", "pipefail", "-c", &line]).current_dir(env!("CARGO_MANIFEST_DIR"));
        shell.output().unwrap()
    });
    let out = shell.await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{command}\n{}{}", text(&out.stdout), text(&out.stderr));
    text(&out.stdout)
}

/// Repeatedly ends every Job of a namespace with success; lists of snapshots are left to the Repository.
async fn end_all(cluster: &Cluster, namespace: &str) {
    let mut ended = std::collections::BTreeSet::new();
    loop {
        for job in jobs::all(cluster, namespace).await {
            let is_list = matches!(jobs::work(&job).step, Step::List(_));
            if !is_list && ended.insert(job.uid()) {
                jobs::end(cluster, &job, &jobs::success(&job)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Output of each line of a block, run by a shell in the folder of the sources.
async fn run(cluster: &Cluster, block: &str) -> Vec<String> {
    let mut said = vec![];
    for line in block.lines().filter(|l| !l.is_empty()) {
        said.push(tokio::select! {
            out = shell(line) => out,
            () = end_all(cluster, "demo") => panic!("it goes on for ever"),
        });
    }
    said
}

#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn the_first_backup_and_restore_go_as_the_readme_has_them() {
    let cluster = Cluster::alone().await;
    let _operator = Operator::leading(&cluster).await;
    cluster.ensure_namespace("demo").await;
    let labels = json!({ "app": "wordpress" });
    let meta = |name: &str| json!({ "name": name, "namespace": "demo" });
    let web = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("wordpress"), "spec": {
        "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
            "containers": [{ "name": "c", "image": "localhost/none:1" }],
            "volumes": [{ "name": "uploads", "persistentVolumeClaim": { "claimName": "uploads" } }] } } } });
    let uploads = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("uploads"),
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    let mut made: Vec<Value> = vec![uploads, web.clone()];
    for section in ["A first backup", "A first restore"] {
        for block in blocks(section, "yaml") {
            made.extend(lifeboat::yaml::read(&block).unwrap());
        }
        for object in &made {
            cluster.apply(object).await.unwrap();
        }
        if section == "A first backup" {
            for block in blocks(section, "sh") {
                run(&cluster, &block).await;
            }
        }
    }

    let block = &blocks("Reading the status", "sh")[0];
    let (wait, rest) = block.split_once('\n').unwrap();
    run(&cluster, wait).await;
    // No controller sets the status of its pods here.
    let now = cluster.get(&web).await;
    let status = json!({ "observedGeneration": now["metadata"]["generation"], "replicas": 1, "updatedReplicas": 1,
        "readyReplicas": 1, "availableReplicas": 1 });
    let api = cluster.api_of(&web);
    api.patch_status("wordpress", &PatchParams::default(), &Patch::Merge(json!({ "status": status }))).await.unwrap();
    let said = run(&cluster, rest).await;
    let has = |n: usize, words: &[&str]| {
        assert!(words.iter().all(|w| said[n].contains(w)), "{words:?}: {}", said[n]);
    };
    has(0, &["restoresession.stash.appscode.com/wordpress-back", "Succeeded", "Restored 1 host: 7 entries, 70 B."]);
    has(0, &["repository.stash.appscode.com/local-repo", "backupconfiguration.stash.appscode.com/wordpress"]);
    has(1, &["Snapshots:", "Events:", "Succeeded"]);
    let first = said[1].lines().map(str::trim).find(|l| l.starts_with("Type:")).unwrap();
    assert!(first.ends_with(" Ready"), "it stands first: {first}");
    has(2, &["successfully rolled out"]);

    // The events of the application say which session stopped it.
    let told = run(&cluster, "kubectl -n demo describe deployment wordpress").await;
    for text in
        ["Scaling from 1 to 0 replicas for RestoreSession demo/wordpress-back", "Scaled back to 1 replica after"]
    {
        assert_eq!(told[0].matches(text).count(), 1, "{text}: {}", told[0]);
    }
    let done = cluster.get(made.last().unwrap()).await;
    let all = done["status"]["conditions"].as_array().unwrap();
    assert_eq!(all[0]["type"], "Ready");
    let texts: std::collections::BTreeSet<_> = all.iter().map(|c| c["message"].to_string()).collect();
    assert_eq!(texts.len(), all.len(), "each condition says something of its own: {all:#?}");
    for object in made.iter().rev() {
        cluster.delete(object).await;
    }
}

/// Deletes what other tests have left: rights of operators for some namespaces, which the chart would find, and a Service.
async fn no_other_lifeboat(cluster: &Cluster) {
    let roles = cluster.api("rbac.authorization.k8s.io/v1", "ClusterRole", "");
    for role in roles.list_metadata(&ListParams::default()).await.unwrap() {
        if role.name_any().starts_with("lifeboat.") {
            roles.delete(&role.name_any(), &DeleteParams::default()).await.unwrap();
        }
    }
    // The Service that other tests have created instead of the chart's own would conflict.
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "lifeboat", "namespace": "lifeboat-system" } });
    if !cluster.get(&service).await.is_null() {
        cluster.delete(&service).await;
        cluster.until(&service, "gone", Value::is_null).await;
    }
}

/// Two Lifeboats in one namespace would both run every session.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn an_installation_beside_another_in_the_same_namespace_is_refused() {
    let cluster = Cluster::alone().await;
    no_other_lifeboat(&cluster).await;
    let own = "lifeboat charts/lifeboat --namespace lifeboat-system --set webhook.enabled=false";
    let shop = "shop charts/lifeboat --namespace lifeboat-shop --create-namespace --set webhook.enabled=false";
    let refused = async |command: &str, why: &str| {
        let told = shell(&format!("! helm {command} 2>&1")).await;
        assert!(told.contains(why), "{command}: {told}");
    };
    shell(&format!("helm install {own}")).await;
    refused(
        &format!("install {shop} --set 'watchNamespaces={{default}}'"),
        "There is a Lifeboat for all namespaces (lifeboat, installed in namespace lifeboat-system)",
    )
    .await;
    // The one may be limited. Then another may work in other namespaces, and only there.
    shell(&format!("helm upgrade {own}")).await;
    shell(&format!("helm upgrade {own} --set 'watchNamespaces={{default}}'")).await;
    let both = "--set 'watchNamespaces={default,kube-public}'";
    refused(&format!("install {shop} {both}"), "Another Lifeboat (lifeboat.lifeboat-system, installed in namespace lifeboat-system) works in namespace default").await;
    shell(&format!("helm install {shop} --set 'watchNamespaces={{kube-public}}'")).await;
    shell(&format!("helm upgrade {shop} --set 'watchNamespaces={{kube-public}}'")).await;
    refused(
        &format!("upgrade {own}"),
        "There is a Lifeboat for some namespaces (lifeboat.lifeboat-shop, installed in namespace lifeboat-shop)",
    )
    .await;
    shell("helm uninstall shop --namespace lifeboat-shop").await;
    shell(&format!("helm upgrade {own}")).await;
    shell("helm uninstall lifeboat --namespace lifeboat-system").await;
}

/// The three ways to install: each as it is written. The created objects use the given image, also for Jobs.
#[tokio::test]
#[ignore = "needs an API server: make test-api"]
async fn it_is_installed_by_the_commands_of_the_readme() {
    let cluster = Cluster::alone().await;
    let own = blocks("Install", "sh");
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let plain = "kubectl apply -k config";
    assert!(page.contains(&format!("`{plain}`")) && own.len() == 2, "{own:?}");
    let built = "registry.example.com/lifeboat:dev";
    no_other_lifeboat(&cluster).await;
    for (install, image, remove) in [
        (own[0].as_str(), built, "helm uninstall lifeboat --namespace lifeboat-system"),
        (plain, "localhost/lifeboat:0.1.0", "kubectl delete --wait=false -f config/install.yaml"),
        (own[1].as_str(), built, "kubectl delete --wait=false -f config/install.yaml"),
    ] {
        shell(install).await;
        let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "lifeboat", "namespace": "lifeboat-system" } });
        let made = cluster.get(&deployment).await;
        let container = &made["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], image, "{install}");
        let jobs = container["env"].as_array().unwrap().iter().find(|e| e["name"] == "LIFEBOAT_JOB_IMAGE");
        assert_eq!(jobs.unwrap()["value"], image, "{install}");
        shell(remove).await;
        cluster.until(&deployment, "removed", Value::is_null).await;
    }
}
