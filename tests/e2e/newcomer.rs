//! The steps of a user who has only the README: from an existing cluster to a proven restore, and the mistakes on the
//! way, with the texts that the user sees.

use std::fmt::Write as _;
use std::fs;

use serde_json::{Value, json};

use super::harness::{Site, condition, eventually, phase};
use super::howto::block;
use super::manifests::{
    LATEST, PASSWORD, backup_session, batch, configuration, deployment, of_claim, repository, restore, secret, store,
};
use super::store::{assert_tree, prepared, seed};
use super::support::tree::describe;

/// The expected end of a mistake, and words of its message.
struct Breakage {
    /// Kind of the object that reports the mistake.
    kind: &'static str,
    name: &'static str,
    phase: &'static str,
    /// Reason of the condition that reports the mistake; empty: any.
    reason: &'static str,
    words: &'static [&'static str],
}

const fn failed(
    kind: &'static str,
    name: &'static str,
    reason: &'static str,
    words: &'static [&'static str],
) -> Breakage {
    Breakage { kind, name, phase: "Failed", reason, words }
}

/// All are created at once. The objects that cannot work say so, and touch nothing.
const BREAKAGES: &[Breakage] = &[
    // B1, B3: a Secret is wrong.
    failed("RestoreSession", "no-password", "BackendSecretIncomplete", &["RESTIC_PASSWORD", "missing or empty"]),
    failed("BackupSession", "no-password", "BackendSecretIncomplete", &["RESTIC_PASSWORD", "missing or empty"]),
    failed("RestoreSession", "wrong-password", "WrongPassword", &["RESTIC_PASSWORD"]),
    failed("BackupSession", "wrong-password", "WrongPassword", &["RESTIC_PASSWORD"]),
    // B4, B5: the location is wrong.
    failed(
        "RestoreSession",
        "no-bucket",
        "BucketMissing",
        &["bucket nobody-made-this at ", "does not exist", "spec.create"],
    ),
    failed(
        "BackupSession",
        "no-bucket",
        "BucketMissing",
        &["bucket nobody-made-this at ", "does not exist", "spec.create"],
    ),
    failed("RestoreSession", "no-prefix", "RepositoryMissing", &["under prefix c/d of bucket "]),
    // B10, B18c, B11, B2c: the requested item does not exist.
    failed("RestoreSession", "no-path", "NothingToRestore", &["/stash-data/not-there", "Nothing was written"]),
    failed("RestoreBatch", "no-path", "NothingToRestore", &["/stash-data/not-there"]),
    failed("RestoreSession", "no-file", "NothingToRestore", &["*.nothing", "Nothing was written"]),
    failed("RestoreSession", "no-snapshot", "SnapshotNotFound", &["deadbeef", "m0", "newest"]),
    failed("RestoreSession", "no-volume", "", &["\"dat\"", "does not have", "m0"]),
    // B22.
    failed("BackupSession", "no-such-path", "", &["/stash-data/gone"]),
    // B35.
    failed("RestoreSession", "late", "", &["nowhere", "deadline"]),
];

/// Closes: B1 to B11, B18, B21, B22, B24, B25, B35 of the newcomer's page. B6 is `faults`, B12 to B15 `restore` and
/// `interrupted`, B19 `selection`, B20 and B33 `repository`, B23 and B34 `elsewhere` and `targets`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn what_a_newcomer_gets_wrong_is_told_with_what_to_do_and_touches_nothing() {
    let site = Site::new("newcomer").await;
    prepared(&site).await;
    store(&site).await;
    let (data, m0) = (site.claim("data").await, site.claim("m0").await);
    let before = [seed(&data, 60, 1_000), seed(&m0, 61, 1_000)];
    site.create(&deployment("web", 1, &[("m0", "/stash-data")])).await;
    let web = site.until("Deployment", "web", 60, "up", |d| d["status"]["availableReplicas"] == 1).await;

    let endpoint = site.s3("endpoint");
    let bucket = format!("bucket: {}", site.namespace);
    let mut objects = secret(&site, "no-password", PASSWORD, "").replace("RESTIC_PASSWORD", "RESTIC_PASSWORT");
    let mut add = |text: &str| write!(objects, "---\n{text}").unwrap();
    add(&secret(&site, "wrong-password", "not-the-password", ""));
    for name in ["no-password", "wrong-password"] {
        add(&repository(&site, name, &endpoint, "a/b").replace(": store", &format!(": {name}")));
    }
    add(&repository(&site, "no-bucket", &endpoint, "a/b").replace(&bucket, "bucket: nobody-made-this"));
    add(&repository(&site, "no-prefix", &endpoint, "c/d"));
    let at = |name: &str, text: &str| text.replace("{name: repo}", &format!("{{name: {name}}}"));
    for name in ["no-password", "wrong-password", "no-bucket"] {
        add(&at(name, &restore(name, &of_claim("m0", "data", LATEST), "")));
        add(&at(name, &configuration(name, &of_claim(name, "data", ""), "")));
        add(&backup_session(name, "BackupConfiguration", name));
    }
    add(&at("no-prefix", &restore("no-prefix", &of_claim("m0", "data", LATEST), "")));
    let of_web = |rule: &str| {
        format!(
            "{{alias: m0, ref: {{apiVersion: apps/v1, kind: Deployment, name: web}}, volumeMounts: [{{name: m0, mountPath: /stash-data}}], rules: [{{{rule}}}]}}"
        )
    };
    add(&restore("no-path", &of_web("paths: [/stash-data/not-there]"), ""));
    let members = [of_claim("m1", "data", LATEST), of_web("paths: [/stash-data/not-there]")];
    add(&batch("RestoreBatch", "no-path", "maintainOrder: true", &members));
    add(&restore("no-file", &of_web("snapshots: [latest], include: ['*.nothing']"), ""));
    add(&restore("no-snapshot", &of_web("snapshots: [deadbeef]"), ""));
    add(&restore("no-volume", &of_web("snapshots: [latest]").replace("{name: m0, mount", "{name: dat, mount"), ""));
    add(&configuration("no-such-path", &of_claim("elsewhere", "data", ", paths: [/stash-data/gone]"), ""));
    add(&backup_session("no-such-path", "BackupConfiguration", "no-such-path"));
    add(&restore("late", &of_claim("m0", "nowhere", LATEST), "  timeOut: 5s\n"));
    site.create(&objects).await;

    for wrong in BREAKAGES {
        let object = site.ended(wrong.kind, wrong.name).await;
        let (id, ready) = (format!("{} {}", wrong.kind, wrong.name), condition(&object, "Ready"));
        assert_eq!((phase(&object), ready.0.as_str()), (wrong.phase, "False"), "{id}: {:#}", object["status"]);
        assert!(wrong.reason.is_empty() || wrong.reason == ready.1, "{id}: {ready:?}");
        for word in wrong.words {
            assert!(ready.2.contains(word), "{id}: {word:?} is not in {:?}", ready.2);
        }
        let column = object["status"]["summary"].as_str().unwrap_or_default();
        assert!(!column.is_empty(), "{id} shows nothing in kubectl get");
    }
    assert_tree(&data, &before[0]);
    assert_tree(&m0, &before[1]);
    let now = site.get("Deployment", "web").await;
    assert_eq!(now["metadata"]["generation"], web["metadata"]["generation"], "it was never scaled");
    assert!(!site.state.join("s3/nobody-made-this").exists(), "a bucket is not made in passing");
    // Ready reports what a session would report.
    for (name, reason) in [
        ("no-password", "BackendSecretIncomplete"),
        ("wrong-password", "WrongPassword"),
        ("no-bucket", "BucketMissing"),
    ] {
        let why = |r: &Value| condition(r, "Ready").0 == "False" && condition(r, "Ready").1 == reason;
        site.until("Repository", name, 60, reason, why).await;
        let follows = |c: &Value| condition(c, "Ready").0 == "False";
        site.until("BackupConfiguration", name, 60, "not ready", follows).await;
    }

    // B2, B2b, B2d, B2e, B7, B24: these mistakes are refused, or reported at once.
    let fine = of_web("snapshots: [latest]");
    for (yaml, words) in [
        (restore("a", &fine.replace("rules:", "rulez:"), ""), &["unknown field", "rulez"][..]),
        (restore("b", &fine.replace("kind: Deployment", "kind: Deploymnt"), ""), &["Deploymnt", "Deployment"]),
        (restore("c", &fine.replace("apps/v1", "v1"), ""), &["apps/v1"]),
        (configuration("d", &of_claim("d", "data", ""), "  schedule: '0 25 * * *'\n"), &["hour", "25"]),
        (configuration("e", &of_claim("e", "data", ", paths: [/elsewhere]"), ""), &["/elsewhere", "outside"]),
        (
            configuration("f", &of_claim("f", "data", ""), "").replace("keepLast: 5, ", ""),
            &["prune", "nothing to keep"],
        ),
        (restore("g", &fine, "").replace("{name: repo}", "{name: repo, namespace: default}"), &["default", "repo"]),
        (restore("h", &fine, "  hooks: {preRestore: {exec: {command: [ls]}}}\n"), &["hooks", "not"]),
    ] {
        let said = site.apply_by_kubectl(&yaml);
        assert!(words.iter().all(|w| said.contains(w)), "{words:?}: {said}\n{yaml}");
    }

    // B8, B21: a missing object is waited for, and reported once.
    site.create(&restore("waits", &of_claim("m0", "nowhere", LATEST), "")).await;
    site.create(&configuration("waits", &of_claim("waits", "nowhere", ""), "")).await;
    site.until("RestoreSession", "waits", 30, "waiting", |s| {
        s["status"]["summary"].as_str().is_some_and(|t| t.contains("nowhere") && t.contains("does not exist"))
    })
    .await;
    site.until("BackupConfiguration", "waits", 30, "not ready", |c| condition(c, "Ready").0 == "False").await;
    let told = eventually(30, async || {
        let events = site.list("Event").await;
        let of = |kind: &str| {
            events.iter().any(|e| {
                e["type"] == "Warning"
                    && e["involvedObject"]["kind"] == kind
                    && e["involvedObject"]["name"] == "waits"
                    && e["message"].as_str().is_some_and(|m| m.contains("nowhere"))
            })
        };
        (of("RestoreSession") && of("BackupConfiguration")).then_some(())
    });
    assert!(told.await.is_some(), "nobody is told of what is missing: {:#?}", site.list("Event").await);

    // B25: a configuration is edited, and its next backup follows.
    site.create(&configuration("edited", &of_claim("edited", "data", ""), "")).await;
    site.until("BackupConfiguration", "edited", 30, "ready", |c| condition(c, "Ready").0 == "True").await;
    site.patch("BackupConfiguration", "edited", json!({ "spec": { "target": { "exclude": ["noise"] } } })).await;
    site.create(&backup_session("edited", "BackupConfiguration", "edited")).await;
    site.succeeded("BackupSession", "edited").await;
    let back = site.claim("back").await;
    site.create(&restore("edited", &of_claim("edited", "back", LATEST), "")).await;
    site.succeeded("RestoreSession", "edited").await;
    let mut want = before[0].clone();
    want.retain(|path, _| !path.contains("noise"));
    assert_tree(&back, &want);
}

/// The fenced blocks of this language below a heading of README.md.
fn blocks(heading: &str, language: &str) -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let start = readme.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("README has no {heading}"));
    let section = readme[start + 4..].split("\n## ").next().unwrap().to_owned();
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).map(|b| b.split("```").next().unwrap().to_owned()).collect()
}

/// Runs a block of README's commands in a shell, as written.
fn run(site: &Site, commands: &str) -> String {
    let out = site.shell(commands).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{commands}\n{said}");
    said
}

/// Follows the README, word for word, on a cluster that has the operator: from nothing to a proven restore.
/// Closes: A1 to A5 of the newcomer's page.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a node: make test-e2e"]
async fn the_readme_leads_to_a_restore_that_is_proven() {
    let site = Site::named("demo").await;
    let uploads = site.claim("uploads").await;
    let tree = seed(&uploads, 70, 50_000);
    site.create(&deployment("wordpress", 1, &[("uploads", "/var/www/html")])).await;
    site.until("Deployment", "wordpress", 60, "up", |d| d["status"]["availableReplicas"] == 1).await;

    for block in blocks("A first backup", "yaml") {
        let said = site.apply_by_kubectl(&block);
        assert!(!said.contains("rror"), "{said}");
    }
    for commands in blocks("A first backup", "sh") {
        run(&site, &commands);
    }
    site.succeeded("BackupSession", "wordpress-now").await;
    super::store::wipe(&uploads);
    assert_ne!(describe(&uploads), tree);
    for block in blocks("A first restore", "yaml") {
        let said = site.apply_by_kubectl(&block);
        assert!(!said.contains("rror"), "{said}");
    }
    for heading in ["A first restore", "Reading the status"] {
        for commands in blocks(heading, "sh") {
            run(&site, &commands);
        }
    }
    site.succeeded("RestoreSession", "wordpress-back").await;
    assert_tree(&uploads, &tree);
    site.until("Deployment", "wordpress", 60, "up", |d| d["status"]["availableReplicas"] == 1).await;

    // The how-to that continues from there.
    let title = "Look into a backup on a volume";
    let pod = block(title, 0).replace("registry.example.com/lifeboat:dev", &image());
    let said = site.apply_by_kubectl(&pod);
    assert!(!said.contains("rror"), "{said}");
    let said = run(&site, &block(title, 1));
    assert!(said.contains("/var/www/html/who"), "{said}");
}

/// The operator's image.
fn image() -> String {
    std::env::var("IMAGE").unwrap_or_else(|_| "localhost/lifeboat:dev".to_owned())
}
