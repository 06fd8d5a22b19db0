//! What reads text that others wrote, fed with any text at all: no panic, no endless work.
//!
//! Compiled for tests and for `cargo fuzz` only. Each function takes bytes and
//! ends the process, by a panic, if it finds a defect. The unit tests below give them the committed corpus
//! and mutations of it, with a fixed seed, so that a stable compiler and no time to
//! spare are enough; `make fuzz` lets libFuzzer search for as long as it is told to.

#![allow(clippy::missing_panics_doc, reason = "to panic is how a defect is told")]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::admission::review;
use crate::api::{BackupBatch, BackupConfiguration, BackupSession, RestoreBatch, RestoreSession};
use crate::contract::restic::{Companion, HostQuery, Listed};
use crate::contract::{Outcome, Run, Task};
use crate::drivers::restic::{output, repository, select, snapshot};
use crate::plan::backup::run::{BackupRun, Invoker};
use crate::plan::backup::schedule::Schedule;
use crate::plan::repository::slots::queue::Room;
use crate::plan::restore::run::RestoreRun;
use crate::plan::run::duration;
use crate::plan::run::hosts::TargetKind;
use crate::plan::seen::identity::Identity;
use crate::plan::seen::repository::RepositorySeen;
use crate::plan::seen::surroundings::Surroundings;
use crate::plan::seen::target::{ClaimSeen, PodSeen, Target, TargetSeen};
use crate::plan::seen::{Seen, job_status};
use crate::plan::setup::Setup;
use crate::plan::systems::restic::args;
use crate::plan::systems::restic::snapshots::Listing;
use crate::plan::work::pod_security::Level;
use crate::plan::{backup, restore};
use crate::{admission, names};

mod mutate;
pub mod worst;

/// Reads bytes, and panics at a defect.
pub type Body = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const BODIES: [(&str, Body); 6] = [
    ("admission", admission),
    ("plan", plan),
    ("restic", restic),
    ("listing", listing),
    ("outcome", outcome),
    ("names", names),
];

/// First byte of a recipe of a largest object, in place of an object. No JSON begins with it.
const RECIPE: u8 = 0xff;
/// Spec schema and shapes of each kind.
static KITCHEN: LazyLock<Vec<(Value, Vec<worst::Shape>)>> = LazyLock::new(|| {
    let specs = admission::KINDS.iter().map(|(kind, _)| crate::api::spec_of(kind).unwrap_or_default());
    specs.map(|spec| (spec.clone(), worst::shapes(&spec))).collect()
});

/// What a recipe makes: kind, shape (2 bytes), size (2), items around (1), and a change for each 8 bytes that follow.
fn cook(recipe: &[u8]) -> Option<(usize, Value)> {
    let (head, rest) = recipe.split_at_checked(6)?;
    let number = |from: usize| usize::from(head[from]) | usize::from(head[from + 1]) << 8;
    let kind = usize::from(head[0]) % admission::KINDS.len();
    let (spec, shapes) = &KITCHEN[kind];
    let mut shape = shapes.get(number(1) % shapes.len().max(1))?.clone();
    shape.outer = usize::from(head[5]).max(1);
    let mut object = worst::object(admission::KINDS[kind].0, spec, &shape, number(3))?;
    for seed in rest.chunks_exact(8).take(4) {
        let seed = seed.iter().fold(1, |all: u64, byte| all << 8 | u64::from(*byte));
        mutate::mutate_document(&mut object, &mut mutate::Dice(seed.max(1)));
    }
    Some((kind, object))
}

/// Any object, as any kind, or the largest ones of a kind, through default and validate, and through the webhook.
pub fn admission(data: &[u8]) {
    let (only, object) = match data.split_first() {
        Some((&RECIPE, recipe)) => match cook(recipe) {
            Some((kind, object)) => (Some(kind), object),
            None => return,
        },
        _ => match serde_json::from_slice::<Value>(data) {
            Ok(object) => (None, object),
            Err(_) => return,
        },
    };
    let kinds = admission::KINDS.iter().enumerate().filter(|(i, _)| only.is_none_or(|only| only == *i));
    for (_, &(kind, segment)) in kinds {
        let mut once = object.clone();
        admission::default(kind, &mut once);
        let mut twice = once.clone();
        admission::default(kind, &mut twice);
        assert_eq!(once, twice, "{kind}: twice is once");
        let errors = admission::check(kind, &object, None);
        let stored = admission::check(kind, &once, None);
        let text = admission::message(&errors);
        assert!(errors.len() <= 20 && text.len() <= 20_000, "{kind}: {} errors, {} bytes", errors.len(), text.len());
        assert_eq!(text, admission::message(&stored), "{kind}: the webhook changes no verdict");
        admission::check(kind, &object, Some(&once));
        let asked = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": { "uid": "u", "operation": "UPDATE", "namespace": "n", "object": object, "oldObject": {} } });
        let answers = [review::mutate(segment, &asked), review::validate(segment, &asked, None)];
        assert!(!object.is_object() || answers.iter().all(Result::is_ok), "{kind}");
        let _ = review::validate(segment, &object, Some("No."));
    }
}

/// What a plan is asked with.
#[derive(Deserialize)]
struct Scene {
    /// The session.
    object: Value,
    /// The invoker of a backup.
    #[serde(default)]
    invoker: Value,
    #[serde(default)]
    repository: Value,
    #[serde(default)]
    targets: Vec<Value>,
    #[serde(default)]
    jobs: Vec<Value>,
    #[serde(default)]
    pods: Vec<Value>,
    /// Seconds since 1970.
    #[serde(default)]
    now: i64,
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

fn target(value: &Value) -> TargetSeen {
    let number = |key: &str| value[key].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or_default();
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let texts = |key: &str| -> Vec<String> { read(&value[key]).unwrap_or_default() };
    if !value.is_object() {
        return TargetSeen::Missing(String::new());
    }
    let claim = || ClaimSeen { exists: true, access_modes: texts("accessModes"), ..ClaimSeen::default() };
    let pod = |name: String| PodSeen { node: Some(name.clone()), name, ..PodSeen::default() };
    TargetSeen::Found(Box::new(Target {
        display: text("display"),
        kind: text("kind"),
        name: text("name"),
        replicas: number("replicas"),
        first_ordinal: number("firstOrdinal"),
        dormant_ordinals: number("dormantOrdinals"),
        volumes: read(&value["volumes"]).unwrap_or_default(),
        claim_templates: texts("claimTemplates"),
        desired_nodes: value["desiredNodes"].as_i64().and_then(|n| i32::try_from(n).ok()),
        pods: texts("pods").into_iter().map(pod).collect(),
        claims: texts("claims").into_iter().map(|name| (name, claim())).collect(),
        ..Target::default()
    }))
}

/// Passes that one scene is taken through: the status of each is what the next one reads.
const PASSES: usize = 4;

/// Any session, status and surroundings: a plan, whose status reads back, and then the next.
pub fn plan(data: &[u8]) {
    let Ok(scene) = serde_json::from_slice::<Scene>(data) else { return };
    let mut now = Timestamp::from_second(scene.now.clamp(0, 4_000_000_000)).unwrap_or_default();
    let all: Vec<Job> = scene.jobs.iter().filter_map(read).collect();
    let pods: Vec<Pod> = scene.pods.iter().filter_map(read).collect();
    let (all, pods): (Vec<&Job>, Vec<&Pod>) = (all.iter().collect(), pods.iter().collect());
    let found = |spec| RepositorySeen {
        spec,
        first_backup: None,
        known: false,
        secret: Seen::Found(()),
        labels: Seen::Found(BTreeMap::new()),
        unreachable: None,
        not_ready: None,
    };
    let setup = Setup {
        image: "i".into(),
        addons: crate::plan::setup::AddonImages::default(),
        default_timeout: std::time::Duration::from_mins(10),
        max_timeout: std::time::Duration::from_hours(168),
        jobs_per_repository: 16,
        probe_interval: std::time::Duration::from_mins(1),
        sync_every: std::time::Duration::ZERO,
        job_defaults: crate::api::runtime::RuntimeSettings::default(),
    };
    let mut object = scene.object.clone();
    for _ in 0..PASSES {
        let seen = Surroundings {
            refusal: None,
            source: Seen::Missing,
            repository: read(&scene.repository).map_or(Seen::Missing, |spec| Seen::Found(found(spec))),
            targets: scene.targets.iter().map(target).collect(),
            pod_security: Level::Baseline,
            job_defaults: Ok(crate::api::runtime::RuntimeSettings::default()),
            jobs: job_status::see_all(&all, &pods, now),
            room: Room { free: 4, ahead: 0 },
            rooms: std::collections::BTreeMap::new(),
            rivals: vec![],
            writers: vec![],
            refused_claims: BTreeMap::new(),
            refused_scales: BTreeMap::new(),
            refused_holds: BTreeMap::new(),
            refused_revoke: None,
            progress: BTreeMap::new(),
        };
        let Some(plan) = decide(&object, &scene.invoker, &seen, &setup, now) else { return };
        let Some(status) = plan.status else { break };
        object["status"] = status;
        now = now.checked_add(SignedDuration::from_secs(30)).unwrap_or(now);
    }
}

/// None where admission refuses the object, so that no plan is made.
fn decide(
    object: &Value,
    invoker: &Value,
    seen: &Surroundings,
    setup: &Setup,
    now: Timestamp,
) -> Option<crate::plan::effects::Plan> {
    let kind = object["kind"].as_str().unwrap_or_default();
    if !admission::check(kind, object, None).is_empty() {
        return None;
    }
    let mut defaulted = object.clone();
    admission::default(kind, &mut defaulted);
    match kind {
        "RestoreSession" => {
            Some(restore::next(&RestoreRun::of_session(&read::<RestoreSession>(&defaulted)?), seen, setup, now))
        }
        "RestoreBatch" => {
            Some(restore::next(&RestoreRun::of_batch(&read::<RestoreBatch>(&defaulted)?), seen, setup, now))
        }
        "BackupSession" => {
            let session = read::<BackupSession>(&defaulted)?;
            let run = BackupRun {
                id: Identity::of(&session),
                invoker: members_of(invoker),
                state: session.status.clone().unwrap_or_default(),
                ..BackupRun::default()
            };
            Some(backup::next(&run, seen, setup, now))
        }
        _ => None,
    }
}

fn members_of(object: &Value) -> Option<Invoker> {
    let kind = object["kind"].as_str().unwrap_or_default();
    if !admission::check(kind, object, None).is_empty() {
        return None;
    }
    if kind == "BackupBatch" {
        let batch = read::<BackupBatch>(object)?;
        let id = Identity::of(&batch);
        let s = batch.spec;
        return Some(Invoker { id, repository: s.repository, members: s.members, ..Invoker::default() });
    }
    let id = Identity::of(&read::<BackupConfiguration>(object)?);
    let member = read(&object["spec"])?;
    let repository = read(&object["spec"]["repository"]);
    Some(Invoker { id, repository, members: vec![member], ..Invoker::default() })
}

/// What restic prints, in pieces as a pipe gives them.
pub fn restic(data: &[u8]) {
    let size = usize::from(data.first().copied().unwrap_or(1)).max(1);
    let mut lines = output::Lines::new(4096);
    let mut report = output::Report::default();
    let mut take = |line: &[u8]| {
        let line = output::parse(line);
        if let output::Line::Json(message) = &line {
            message.position();
        }
        report.note(&line);
    };
    for piece in data.chunks(size) {
        lines.feed(piece, &mut take);
    }
    lines.finish(&mut take);
    assert!(report.tail().map(str::len).sum::<usize>() <= 1 << 20, "what is kept is bounded");
}

/// What `restic snapshots` lists, and what becomes of it.
pub fn listing(data: &[u8]) {
    let run = Run { id: "u".into(), kind: "Repository".into(), namespace: "n".into(), name: "r".repeat(250) };
    if let Ok(listed) = repository::read_document::<Vec<Listed>>(data, "snapshots") {
        let labels = BTreeMap::new();
        let listing = Listing::new(&run, &labels, &listed);
        for snapshot in listing.to_write(&BTreeMap::new()) {
            let name = snapshot.metadata.name.unwrap_or_default();
            assert!(!name.is_empty() && name.len() <= 253, "{name}");
        }
    }
    let Ok(all) = repository::read_document::<Vec<snapshot::Snapshot>>(data, "snapshots") else { return };
    let paths: Vec<String> = all.iter().flat_map(snapshot::Snapshot::clean_paths).collect();
    let hosts = all.iter().map(|s| s.hostname.clone()).take(4).chain([String::new()]);
    let set: Vec<Companion> =
        hosts.clone().map(|source_host| Companion { source_host, ..Companion::default() }).collect();
    for source_host in hosts {
        for as_of in [None, all.first().map(|s| s.time.clone())] {
            for snapshots in [vec!["latest".to_owned()], all.iter().map(|s| s.id.clone()).take(2).collect()] {
                let query = HostQuery {
                    source_host: source_host.clone(),
                    paths: paths.iter().take(2).cloned().collect(),
                    mounts: paths.iter().take(1).cloned().collect(),
                    previous: all.len() % 3,
                    snapshots,
                    as_of: as_of.clone(),
                    together: as_of.is_some(),
                    ..HostQuery::default()
                };
                let _ = select::resolve(&query, &set, &all);
            }
        }
    }
}

/// A termination message, and the task that asked for it.
pub fn outcome(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Task::decode(text);
    if let Ok(read) = Outcome::decode(text) {
        let again = read.encode();
        assert!(again.len() <= crate::contract::OUTCOME_LIMIT, "{} bytes", again.len());
        let is_short = read.run.len() < 100 && read.failure.is_none_or(|f| f.reason.len() < 100);
        assert!(!is_short || Outcome::decode(&again).is_ok(), "what was written reads back: {again}");
    }
}

/// Names, durations, schedules, arguments and annotations, from any text.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parts: Vec<&str> = text.split('\n').collect();
    let label = names::label_value(&text);
    assert!(label.len() <= 63, "{label:?}");
    assert!(names::child_name("lifeboat", &parts).len() <= 63);
    let _ = names::hash_of(&parts);
    names::is_tracker(&text);
    if let Ok(long) = duration::parse(&text) {
        assert!(duration::parse(&duration::format(long)).is_ok(), "{text:?}: {}", duration::format(long));
    }
    if let Ok(schedule) = Schedule::parse(&text) {
        let now = Timestamp::from_second(1_800_000_000).unwrap_or_default();
        schedule.is_possible();
        assert!(schedule.upcoming(now, now, &TimeZone::UTC).is_none_or(|next| next > now));
    }
    let args: Vec<String> = parts.iter().map(|p| (*p).to_owned()).collect();
    args::tags(&args);
    args::without_tags(&args);
    let _ = args::parse(args::Command::Restore, &args);
    let _ = args::parse(args::Command::Backup, &args);
    TargetKind::of_name(&text);
    let notes: BTreeMap<&str, &str> = [names::annotation::STEP_KEY, names::annotation::ATTEMPT]
        .into_iter()
        .zip(parts.iter().copied().cycle())
        .collect();
    if let Some(job) = read::<Job>(&json!({ "metadata": { "name": "j", "annotations": notes } })) {
        job_status::see(&job, &[], Timestamp::UNIX_EPOCH);
    }
}

#[cfg(test)]
mod tests;
