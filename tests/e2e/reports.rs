//! Problems that users have reported of restores on Kubernetes, on a real node: many inputs at once, in one namespace
//! per test.
//!
//! Cases that need no node are in `tests/agent/reports.rs` and `tests/agent/arguments.rs`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use serde_json::{Value, json};

use super::harness::{Site, condition, eventually, phase};
use super::manifests::{
    LATEST, PASSWORD, backup_session, configuration, deployment, of_claim, repository, restore, secret, store,
};
use super::proxy::Proxy;
use super::store::{assert_tree, prepared, seed, wipe};
use super::support::tree::describe;

const SESSION_NAME: &str = "lifeboat.stash.appscode.com/session-name";

/// The same object, on another Repository than `repo`.
fn on(repository: &str, yaml: &str) -> String {
    yaml.replace("{name: repo}", &format!("{{name: {repository}}}"))
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let found = path.symlink_metadata().unwrap();
    (found.mode() & 0o7777, found.uid(), found.gid())
}

fn give(path: &Path, mode: u32, id: u32) {
    chown(path, Some(id), Some(id)).unwrap();
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Closes: R16, R10, R42, R21, R26, R11, R01 of the reports.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn what_is_asked_for_is_what_is_saved_restored_and_removed() {
    let site = Site::new("reports").await;
    site.create(&secret(&site, "store", PASSWORD, "")).await;
    let endpoint = site.s3("endpoint");
    // Unescaped in a URL, all three would be `shop`.
    let shops = [("green", "shop#green"), ("blue", "shop#blue"), ("query", "shop?blue")];
    let (mut folders, mut trees) = (vec![], vec![]);
    for (n, (name, prefix)) in (1..).zip(shops) {
        site.create(&repository(&site, name, &endpoint, &format!("'{prefix}'"))).await;
        let folder = site.claim(name).await;
        seed(&folder, n, 20_000);
        symlink("deep", folder.join("current")).unwrap();
        fs::create_dir_all(folder.join("p/q")).unwrap();
        fs::write(folder.join("p/q/f"), "f").unwrap();
        give(&folder.join("p"), 0o710, 999);
        give(&folder.join("p/q"), 0o750, 1234);
        trees.push(describe(&folder));
        folders.push(folder);
    }
    let green = &folders[0];
    let label = |path: &Path| lgetxattr(path, "security.selinux", &mut [0; 64]).is_ok();
    fs::create_dir(green.join("odd")).unwrap();
    assert!(Command::new("mknod").arg(green.join("odd/zero")).args(["c", "1", "5"]).status().unwrap().success());
    trees[0] = describe(green);
    lsetxattr(green.join("who"), "security.selinux", b"theirs", XattrFlags::empty()).unwrap();
    for (name, _) in shops {
        site.create(&on(name, &configuration(name, &of_claim(name, name, ""), ""))).await;
        site.create(&backup_session(name, "BackupConfiguration", name)).await;
    }
    let like = of_claim("green", "green", &format!(", args: ['--iinclude=*.TXT']{LATEST}"));
    let refused = site.try_create(&on("green", &restore("like", &like, ""))).await.expect_err("it is refused");
    assert!(refused.to_string().contains("rules[].include"), "{refused}");
    for (name, prefix) in shops {
        site.succeeded("BackupSession", name).await;
        assert!(site.bucket().join(prefix).join("config").exists(), "the data of {name} is not at {prefix}");
    }
    // A path that is a link, and a path that goes through the link.
    for (name, path) in [("link", "current"), ("beyond", "current/er")] {
        let target = of_claim(name, "green", &format!(", paths: [/stash-data/{path}]"));
        site.create(&on("query", &configuration(name, &target, ""))).await;
        site.create(&backup_session(name, "BackupConfiguration", name)).await;
    }
    for name in ["link", "beyond"] {
        let text = site.failed("BackupSession", name, "PathIsLink").await;
        assert!(text.contains("/stash-data/current is a symbolic link to deep"), "{text}");
    }

    // The Repository `blue` goes with its data, and no other data goes.
    site.delete("BackupSession", "blue").await;
    site.delete("BackupConfiguration", "blue").await;
    site.patch("Repository", "blue", json!({ "spec": { "wipeOut": true } })).await;
    site.delete("Repository", "blue").await;
    // A snapshot of a machine whose clock is wrong.
    let mut made = site.restic(&endpoint);
    made.env("RESTIC_REPOSITORY", format!("s3:{endpoint}/{}/shop%23green", site.namespace)).stderr(Stdio::inherit());
    made.args(["rewrite", "--new-time", "2037-01-01 00:00:00", "latest"]);
    assert!(made.status().await.unwrap().success());
    let gone = eventually(90, async || site.find("Repository", "blue").await.is_none().then_some(())).await;
    assert!(gone.is_some(), "{:#}", site.get("Repository", "blue").await);
    let left = fs::read_dir(site.bucket().join("shop#blue/snapshots")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "wipeOut leaves snapshots");

    for folder in [&folders[0], &folders[2]] {
        wipe(folder);
    }
    fs::create_dir(green.join("p")).unwrap();
    give(&green.join("p"), 0o2700, 888);
    fs::write(green.join("who"), "spoiled").unwrap();
    for (name, repo, rules) in [
        ("part", "green", "rules: [{paths: [/stash-data/p/q, /stash-data/who]}]"),
        ("device", "green", "rules: [{paths: [/stash-data/odd]}]"),
        ("query", "query", "rules: [{snapshots: [latest]}]"),
    ] {
        let claim = if repo == "query" { "query" } else { "green" };
        site.create(&on(repo, &restore(name, &of_claim(repo, claim, &format!(", {rules}")), ""))).await;
    }
    let part = site.succeeded("RestoreSession", "part").await;
    let pinned = part["status"]["stats"][0]["snapshots"].to_string();
    assert!(!pinned.contains("2037"), "the snapshot of 2037 was taken: {pinned}");
    assert_eq!(fs::read_to_string(green.join("who")).unwrap(), "1");
    assert!(part["status"]["stats"][0]["warnings"].to_string().contains("2037-01-01"), "{:#}", part["status"]);
    assert_eq!(owner(&green.join("p")), (0o2700, 888, 888), "a folder above is as it was");
    assert_eq!(owner(&green.join("p/q")), (0o750, 1234, 1234));
    assert!(!label(&green.join("who")), "a label of a node was restored");
    let text = site.failed("RestoreSession", "device", "DevicesNotPossible").await;
    assert!(text.contains("/stash-data/odd/zero") && text.contains("MKNOD"), "{text}");
    assert_eq!(site.jobs("device", "restore").await.len(), 0, "it is known before anything is touched");
    site.succeeded("RestoreSession", "query").await;
    assert_tree(&folders[2], &trees[2]);

    // Restores everything from the repository whose name begins like that of the wiped one.
    wipe(green);
    let all = of_claim("green", "green", ", rules: [{paths: [/stash-data], exclude: [odd]}]");
    site.create(&on("green", &restore("all", &all, ""))).await;
    site.succeeded("RestoreSession", "all").await;
    trees[0].retain(|path, _| !path.starts_with("./odd"));
    assert_tree(green, &trees[0]);
    site.leaves_nothing().await;
}

/// Policies that add containers to pods of some sessions, as service meshes and scanners do. Dropping this value
/// deletes them.
struct Added<'s>(&'s Site);

impl<'s> Added<'s> {
    async fn new(site: &'s Site) -> Self {
        let container = |list: &str, name: &str, script: &str| {
            format!(
                "Object.spec.{list}{{name: \"{name}\", image: \"localhost/lifeboat-test-app:1\", \
                imagePullPolicy: \"IfNotPresent\", command: [\"sh\", \"-c\", {script}]}}"
            )
        };
        let of_session = format!("object.metadata.annotations[\"{SESSION_NAME}\"]");
        let script = format!("{of_session} == \"slow\" ? \"sleep 3; exit 1\" : \"sleep infinity\"");
        // A kubelet reports containers in the order of their names: this container comes before the agent.
        let beside = container("containers", "a-proxy", &script);
        let before = container("initContainers", "vault", "\"exit 2\"");
        let added = Self(site);
        let add = |path: &str, value: &str| format!("JSONPatch{{op: \"add\", path: \"{path}\", value: {value}}}");
        let first = add("/spec/initContainers", "[]");
        for (suffix, sessions, patch) in [
            ("beside", "[\"slow\", \"stays\"]", format!("[{}]", add("/spec/containers/0", &beside))),
            ("before", "[\"init\"]", format!("[{first}, {}]", add("/spec/initContainers/-", &before))),
        ] {
            let name = format!("{}-{suffix}", site.namespace);
            let space = json!({ "matchLabels": { "kubernetes.io/metadata.name": site.namespace } });
            let pods =
                json!({ "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"] });
            let which = format!(
                "has(object.metadata.annotations) && \"{SESSION_NAME}\" in object.metadata.annotations && {of_session} in {sessions}"
            );
            let policy = json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingAdmissionPolicy",
                "metadata": { "name": name },
                "spec": {
                    "failurePolicy": "Fail",
                    "reinvocationPolicy": "Never",
                    "matchConstraints": { "namespaceSelector": space, "resourceRules": [pods] },
                    "matchConditions": [{ "name": "sessions", "expression": which }],
                    "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": patch } }],
                },
            });
            let binding = json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingAdmissionPolicyBinding",
                "metadata": { "name": name },
                "spec": { "policyName": name },
            });
            let said = site.apply_by_kubectl(&format!("{policy}\n---\n{binding}"));
            assert_eq!(said.matches("created").count(), 2, "{said}");
        }
        // The API server applies the policies after a moment.
        for (session, list) in [("stays", "containers"), ("init", "initContainers")] {
            let pod = json!({ "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": "probe", "annotations": { SESSION_NAME: session } },
                "spec": { "containers": [{ "name": "agent", "image": "localhost/lifeboat-test-app:1" }] } });
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), pod.to_string()).unwrap();
            let names = format!("jsonpath={{.spec.{list}[*].name}}");
            let words = ["create", "--dry-run=server", "-o", &names, "-f", file.path().to_str().unwrap()];
            let seen = eventually(30, async || {
                let out = site.kubectl_command(&words).output().unwrap();
                let named = String::from_utf8_lossy(&out.stdout).into_owned();
                (named.contains("a-proxy") || named.contains("vault")).then_some(())
            });
            assert!(seen.await.is_some(), "no container is added to pods of {session}");
        }
        added
    }
}

impl Drop for Added<'_> {
    fn drop(&mut self) {
        for suffix in ["beside", "before"] {
            for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
                let name = format!("{}-{suffix}", self.0.namespace);
                drop(self.0.kubectl_command(&["delete", kind, &name, "--wait=false"]).output());
            }
        }
    }
}

/// Closes: R04, R03, R28, R24 of the reports.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn added_containers_decide_nothing_and_a_finalizer_that_is_taken_off_comes_back() {
    let site = Site::new("added").await;
    let trees = prepared(&site).await;
    store(&site).await;
    let _added = Added::new(&site).await;
    let (slow, gone) = (Proxy::start(&site).await, Proxy::start(&site).await);
    let mut folders = vec![];
    for (name, proxy) in [("slow", &slow), ("gone", &gone)] {
        site.create(&repository(&site, name, &proxy.endpoint, "a/b")).await;
        folders.push(site.claim(name).await);
        site.create(&deployment(name, 1, &[(name, "/srv")])).await;
    }
    for name in ["slow", "gone"] {
        site.until("Deployment", name, 60, "available", |d| d["status"]["availableReplicas"] == 1).await;
    }
    let into = |name: &str, more: &str| {
        format!(
            "{{alias: m1, ref: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}, \
            volumeMounts: [{{name: {name}, mountPath: /stash-data}}]{more}{LATEST}}}"
        )
    };
    slow.hold_after(1_000_000);
    gone.hold_after(1_000_000);
    site.create(&on("slow", &restore("slow", &into("slow", ""), ""))).await;
    site.create(&on("gone", &restore("gone", &into("gone", ", afterFailure: ScaleBack"), ""))).await;
    let stays = site.claim("stays").await;
    site.claim("init").await;
    site.create(&restore("stays", &of_claim("m0", "stays", LATEST), "")).await;
    site.create(&restore("init", &of_claim("m2", "init", LATEST), "")).await;

    // The added container ends with an error while the agent writes.
    slow.held().await;
    let pod = site.running("slow", "restore").await;
    let of_added = |p: &Value| {
        let all = p["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|c| c["name"] == "a-proxy").unwrap_or_default()
    };
    let has_ended = |p: &Value| of_added(p)["state"]["terminated"]["exitCode"] == 1;
    site.until("Pod", pod["metadata"]["name"].as_str().unwrap(), 30, "without the added container", has_ended).await;

    // Meanwhile a user replaces another session by its manifest, and deletes it.
    gone.held().await;
    let held = |s: &Value| s["metadata"]["finalizers"][0].is_string();
    site.until("RestoreSession", "gone", 10, "held", held).await;
    assert_eq!(site.get("Deployment", "gone").await["spec"]["replicas"], 0);
    site.patch("RestoreSession", "gone", json!({ "metadata": { "finalizers": null } })).await;
    site.until("RestoreSession", "gone", 15, "held again", held).await;
    site.delete("RestoreSession", "gone").await;
    let left = eventually(60, async || site.find("RestoreSession", "gone").await.is_none().then_some(())).await;
    assert!(left.is_some(), "{:#}", site.get("RestoreSession", "gone").await);
    assert_eq!(site.get("Deployment", "gone").await["spec"]["replicas"], 1, "the workload stays down");

    let session = site.get("RestoreSession", "slow").await;
    assert_eq!((phase(&session), condition(&session, "Quiesced").0.as_str()), ("Running", "True"));
    assert_eq!(site.get("Deployment", "slow").await["spec"]["replicas"], 0, "scaled back under a writer");
    slow.release();
    let session = site.succeeded("RestoreSession", "slow").await;
    assert_eq!((&session["status"]["stats"][0]["attempt"], site.jobs("slow", "restore").await.len()), (&json!(1), 1));
    assert_tree(&folders[0], &trees[1]);
    site.until("Deployment", "slow", 60, "back", |d| d["status"]["availableReplicas"] == 1).await;

    // A pod whose added container never ends by itself goes once the agent has reported its end.
    site.succeeded("RestoreSession", "stays").await;
    assert_tree(&stays, &trees[0]);
    let of_stays = |p: &&Value| p["metadata"]["annotations"][SESSION_NAME] == "stays" && phase(p) == "Running";
    let ended = eventually(60, async || site.list("Pod").await.iter().find(of_stays).is_none().then_some(())).await;
    assert!(ended.is_some(), "a pod runs on with the claim mounted");
    let text = site.failed("RestoreSession", "init", "InitContainerFailed").await;
    assert!(text.contains("Init container vault of pod ") && text.contains("exit code 2 (Error)"), "{text}");
    site.leaves_nothing().await;
}
