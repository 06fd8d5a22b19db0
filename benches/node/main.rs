//! Waiting time of a user on a real node: a small restore, with the time of each part; and a restore that cannot
//! succeed, until the status says why. `make bench-node`; `docs/performance.md` explains the figures. `ROUNDS=10`
//! restores.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench ends where it cannot go on")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
#![allow(dead_code, missing_docs, reason = "shares the tests' helpers, and not all of them")]

#[path = "../support/figures.rs"]
mod figures;
#[path = "../../tests/chaos/follow.rs"]
mod follow;
#[path = "../../tests/e2e/harness.rs"]
mod harness;
#[path = "../../tests/e2e/manifests.rs"]
mod manifests;
#[path = "../../tests/support/mod.rs"]
mod support;
/// Tests search for secrets in the background; this would slow down what is measured here.
mod watchman {
    pub fn start(_: &std::path::Path) {}
}

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use figures::quantile;
use follow::{Following, follow};
use harness::{Site, eventually, phase};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use lifeboat::contract::Outcome;
use manifests::{LATEST, PASSWORD, backup_session, configuration, of_claim, repository, restore, secret, store};
use support::tree::{build_of, describe, difference};

const STEP: &str = "lifeboat.stash.appscode.com/step";

fn main() {
    // `cargo test --all-targets` also runs benches; only `cargo bench` passes this argument.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let rounds = std::env::var("ROUNDS").map_or(10, |v| v.parse().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let prepared = Prepared::make().await;
        small(&prepared, rounds).await;
        hopeless(&prepared).await;
    });
}

/// A repository with a backup of a small claim.
struct Prepared {
    site: Site,
    tree: BTreeMap<String, String>,
}

impl Prepared {
    async fn make() -> Self {
        let site = Site::new("prepared").await;
        store(&site).await;
        let folder = site.claim("data").await;
        build_of(&folder, 1, 20, 20_000, 4096);
        site.create(&configuration("data", &of_claim("m0", "data", ""), "")).await;
        site.create(&backup_session("data", "BackupConfiguration", "data")).await;
        site.succeeded("BackupSession", "data").await;
        Self { site, tree: describe(&folder) }
    }

    /// Copies the repository into the bucket of another place.
    fn copy_to(&self, site: &Site) {
        let from = self.site.bucket().join("a");
        assert!(Command::new("cp").arg("-a").arg(from).arg(site.bucket()).status().unwrap().success());
    }
}

/// Times of the first observations, in the order of the run.
#[derive(Clone, Default)]
struct Marks(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Marks {
    fn set(&self, what: String) {
        self.0.lock().unwrap().entry(what).or_insert_with(Instant::now);
    }

    fn at(&self, step: &str, what: &str) -> Instant {
        self.0.lock().unwrap()[&format!("{step} {what}")]
    }

    /// Time at which the session was over. A client that has asked the API server may know this before the watch does.
    async fn over(&self) -> Instant {
        let seen = eventually(10, async || self.0.lock().unwrap().get("session over").copied());
        seen.await.expect("the watch does not tell of the session's end")
    }
}

/// Seconds that the agent of a step reports.
type Took = Arc<Mutex<BTreeMap<String, f64>>>;

/// Records times for Jobs, pods and the end of the session of a namespace.
fn watch(site: &Site) -> (Marks, Took, [Following; 3]) {
    let (marks, took) = (Marks::default(), Took::default());
    let (of_jobs, of_pods, seconds) = (marks.clone(), marks.clone(), took.clone());
    let jobs = follow(Api::<Job>::namespaced(site.client.clone(), &site.namespace), move |_, job| {
        if let Some(step) = job.and_then(|j| j.labels().get(STEP)) {
            of_jobs.set(format!("{step} job"));
        }
    });
    let pods = follow(Api::<Pod>::namespaced(site.client.clone(), &site.namespace), move |_, pod| {
        let Some((pod, step)) = pod.and_then(|p| Some((p, p.labels().get(STEP)?))) else { return };
        of_pods.set(format!("{step} pod"));
        if pod.spec.as_ref().is_some_and(|s| s.node_name.is_some()) {
            of_pods.set(format!("{step} scheduled"));
        }
        let mut statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
        if let Some(ended) = statuses.find_map(|s| s.state.as_ref()?.terminated.as_ref()) {
            of_pods.set(format!("{step} ended"));
            let outcome = Outcome::decode(ended.message.as_deref().unwrap_or_default()).unwrap();
            seconds.lock().unwrap().insert(step.clone(), outcome.seconds);
        }
    });
    let of_session = marks.clone();
    let sessions = follow(site.api("RestoreSession"), move |_, session| {
        let session = session.map(|s| serde_json::to_value(s).unwrap()).unwrap_or_default();
        if ["Succeeded", "Failed"].contains(&phase(&session)) {
            of_session.set("session over".to_owned());
        }
    });
    (marks, took, [jobs, pods, sessions])
}

/// Small restores one after another, with the time of each part.
async fn small(prepared: &Prepared, rounds: usize) {
    let mut parts: Vec<(String, Vec<Duration>)> = vec![];
    for _ in 0..rounds {
        let site = Site::new("small").await;
        prepared.copy_to(&site);
        store(&site).await;
        let folder = site.claim("data").await;
        let (marks, took, _following) = watch(&site);
        let begun = Instant::now();
        site.create(&restore("data", &of_claim("m0", "data", LATEST), "")).await;
        site.succeeded("RestoreSession", "data").await;
        let succeeded = marks.over().await;
        assert!(difference(&prepared.tree, &describe(&folder)).is_empty());
        let mut row = |n: usize, name: &str, took: Duration| {
            if parts.len() == n {
                parts.push((name.to_owned(), vec![]));
            }
            parts[n].1.push(took);
        };
        let (mut since, mut n) = (begun, 0);
        for step in ["preflight", "restore"] {
            let agent = Duration::from_secs_f64(took.lock().unwrap()[step]);
            let [job, pod, scheduled, ended] = ["job", "pod", "scheduled", "ended"].map(|what| marks.at(step, what));
            let before = if step == "preflight" { "apply to the Job" } else { "end of the preflight to the Job" };
            for (name, took) in [
                (format!("operator: {before} of the {step}"), job - since),
                (format!("Job controller: pod of the {step}"), pod - job),
                (format!("scheduler: {step}"), scheduled - pod),
                (format!("agent and restic: {step}"), agent),
                (format!("kubelet and containerd: {step}"), (ended - scheduled).saturating_sub(agent)),
            ] {
                row(n, &name, took);
                n += 1;
            }
            since = ended;
        }
        row(n, "operator: end of the restore to Succeeded", succeeded - since);
        row(n + 1, "apply to Succeeded", succeeded - begun);
        site.leaves_nothing().await;
        site.leave().await;
    }
    println!("a restore of {} entries, {rounds} times, p50 and the longest:", prepared.tree.len());
    for (name, all) in &parts {
        let [middle, most] = [0.5, 1.0].map(|q| quantile(all, q).as_secs_f64());
        println!("  {name:<62} {middle:>6.2} {most:>6.2} s");
    }
}

/// Restores that no retry can fix, until the status says why.
async fn hopeless(prepared: &Prepared) {
    type Spoil = fn(&Site, &mut String, &mut String);
    let cases: [(&str, &str, Spoil); 5] = [
        ("wrong password", "WrongPassword", |_, secret, _| *secret = secret.replace(PASSWORD, "another")),
        ("keys that the store refuses", "AccessDenied", |site, secret, _| {
            *secret = secret.replace(&site.s3("secretKey"), "not-the-key");
        }),
        ("a bucket that is not there", "BucketMissing", |site, _, repository| {
            *repository = repository.replace(&format!("bucket: {}", site.namespace), "bucket: not-there");
        }),
        ("no repository at the prefix", "RepositoryMissing", |_, _, repository| {
            *repository = repository.replace("a/b", "elsewhere");
        }),
        ("a repository whose config is noise", "DataCorrupt", |site, _, _| {
            let config = site.bucket().join("a/b/config");
            fs::remove_file(&config).unwrap();
            fs::write(config, [0x5a; 400]).unwrap();
        }),
    ];
    println!("restores that cannot work, from apply to Failed:");
    for (what, reason, spoil) in cases {
        let site = Site::new("hopeless").await;
        prepared.copy_to(&site);
        let mut access = secret(&site, "store", PASSWORD, "");
        let mut place = repository(&site, "repo", &site.s3("endpoint"), "a/b");
        spoil(&site, &mut access, &mut place);
        site.create(&access).await;
        site.create(&place).await;
        site.claim("data").await;
        let (marks, _, _following) = watch(&site);
        let begun = Instant::now();
        site.create(&restore("data", &of_claim("m0", "data", LATEST), "")).await;
        site.failed("RestoreSession", "data", reason).await;
        println!("  {what:<40} {:>6.2} s  {reason}", (marks.over().await - begun).as_secs_f64());
        site.leaves_nothing().await;
        site.leave().await;
    }
}
