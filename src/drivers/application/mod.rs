//! Applications: databases that are dumped into, and loaded from, a repository of restic.
//!
//! A backup is a success only if every client ended well and its dump and manifest are stored. A restore is a success
//! only if the client ended well, every byte of the dump was read, and everything that the manifest names is there
//! afterwards. Nothing is stored on the way.

mod credentials;
mod failure;
pub mod meter;
mod mysql;
mod postgres;
mod process;
mod prologue;
mod redis;
mod server;
mod stream;

use std::path::PathBuf;

pub use credentials::Folders;

use crate::contract::application::{Addon, Contents, DUMP_TAG_PREFIX, Dump, Load, MANIFEST_FILE, Manifest, Step, Work};
use crate::contract::restic::{Answer, PinnedSnapshot, SnapshotMade};
use crate::contract::{Class, Did, Failure, Progress, Tallies, Tally, Task};
use crate::drivers::application::credentials::Credentials;
use crate::drivers::application::failure::Doing;
use crate::drivers::application::meter::{Order, Report};
use crate::drivers::application::mysql::Mysql;
use crate::drivers::application::postgres::Postgres;
use crate::drivers::application::prologue::Prologue;
use crate::drivers::application::redis::Redis;
use crate::drivers::application::server::{Dumped, Facts, Plan, Server, some};
use crate::drivers::application::stream::{Opened, Piped, pipe};
use crate::drivers::done::Done;
use crate::drivers::restic::args::Save;
use crate::drivers::restic::snapshot::Snapshot;
use crate::drivers::restic::{Repository, repository};
use crate::names::reason;

/// PATH of clients.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Files that a backup stores for one host: the dump and its manifest.
const FILES: usize = 2;
/// Version of the manifest.
const MANIFEST_VERSION: u32 = 1;
/// Type of what is counted besides files and bytes.
const OBJECTS: &str = "objects";

/// Dumps or loads an application. `myself` is the program of the agent, which restic runs as the source of a dump.
pub async fn act(repository: &Repository, work: &Work, task: &Task, folders: &Folders, myself: PathBuf) -> Done {
    let credentials = match Credentials::load(&work.connection, folders) {
        Ok(credentials) => credentials,
        Err(failure) => return Done::untouched(failure),
    };
    let stop = repository.control().stop.clone();
    let server = Server { work, credentials: &credentials, stop };
    let mut env: Vec<(String, String)> = ["PATH", "HOME", "LC_ALL"]
        .into_iter()
        .zip([PROGRAMS.to_owned(), folders.work.display().to_string(), "C.UTF-8".to_owned()])
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    env.extend(std::env::var("TZ").ok().map(|zone| ("TZ".to_owned(), zone)));
    match &work.step {
        Step::Dump(step) => dump(repository, &server, step, task, &env, myself).await,
        Step::Load(step) => load(repository, &server, step, &env).await,
    }
}

/// The clients of one application.
enum Clients<'a> {
    Postgres(Postgres<'a>),
    Mysql(Mysql<'a>),
    Redis(Redis<'a>),
}

impl<'a> Clients<'a> {
    fn of(server: &'a Server<'a>, env: &[(String, String)]) -> Result<Self, Failure> {
        Ok(match server.addon() {
            Addon::Postgres => Self::Postgres(Postgres::new(server, env)?),
            Addon::Mysql => Self::Mysql(Mysql::new(server, env)?),
            Addon::Redis => Self::Redis(Redis::new(server, env)),
        })
    }

    async fn facts(&self, only: &[&str], with_tables: bool) -> Result<Facts, Failure> {
        match self {
            Self::Postgres(clients) => clients.facts(only, with_tables).await,
            Self::Mysql(clients) => clients.facts(only, with_tables).await,
            Self::Redis(clients) => clients.facts().await,
        }
    }

    fn dump(&self, facts: &Facts) -> Plan {
        match self {
            Self::Postgres(clients) => clients.dump(facts.number.unwrap_or(0)),
            Self::Mysql(clients) => clients.dump(facts),
            Self::Redis(clients) => clients.dump(),
        }
    }
}

async fn dump(
    repository: &Repository,
    server: &Server<'_>,
    step: &Dump,
    task: &Task,
    env: &[(String, String)],
    myself: PathBuf,
) -> Done {
    let mut made = vec![];
    let failure = store(repository, server, step, task, env, myself, &mut made).await.err();
    if made.is_empty() {
        return failure.map_or_else(Done::default, Done::failed);
    }
    Done::of(Answer::BackedUp(made), failure)
}

/// Stores the dump and its manifest. `made` gets what is stored.
async fn store(
    repository: &Repository,
    server: &Server<'_>,
    step: &Dump,
    task: &Task,
    env: &[(String, String)],
    myself: PathBuf,
    made: &mut Vec<SnapshotMade>,
) -> Result<(), Failure> {
    let selection = &server.work.selection;
    let clients = Clients::of(server, env)?;
    let databases = selection.databases();
    let before = clients.facts(&databases, !selection.is_partial).await?;
    if let Some(missing) = databases.iter().find(|d| !before.contents.databases.contains_key(**d)) {
        return Err(server.refuse(reason::NOTHING_TO_BACK_UP, &format!("there is no database {missing}.")));
    }
    before.warnings.iter().for_each(|text| repository.warn(text.clone()));
    let plan = clients.dump(&before);
    if plan.clients.is_empty() {
        return Err(server.refuse(reason::NOTHING_TO_BACK_UP, "the server has no database and no user to back up."));
    }
    repository.reach().await?;
    repository.own_locks_removed().await;
    let credentials = server.credentials;
    let order = Order { clients: plan.clients, report: credentials.path("report.json") };
    let _ = std::fs::remove_file(&order.report);
    let text = serde_json::to_string(&order).unwrap_or_default();
    let file = credentials.keep("order.json", &text)?;
    let addon = server.addon();
    let command = vec![myself.display().to_string(), "meter".to_owned(), file.display().to_string()];
    let save = Save {
        host: &step.host,
        run: &task.run,
        files: FILES,
        tags: vec![],
        args: &step.args,
        file: addon.file(),
        command,
    };
    let progress = repository.control().progress.clone();
    let tell = |bytes| {
        progress.send_replace(Progress { bytes_done: bytes, ..Progress::default() });
    };
    let saved = repository.save(&save, tell).await;
    let report = std::fs::read(&order.report).ok().and_then(|text| serde_json::from_slice::<Report>(&text).ok());
    let (saved, report) = match (saved, report) {
        (Ok(saved), Some(report)) if report.failed.is_none() => (saved, report),
        // The client says more than restic about why there is no snapshot.
        (Err(failure), Some(Report { failed: Some(ended), .. })) if failure.reason != reason::TERMINATED => {
            return Err(server.failure(Doing::Dumping, &ended));
        }
        (Err(failure), _) => return Err(failure),
        (Ok(_), _) => {
            let text = "restic stored a dump, but the clients did not report its end.";
            return Err(Failure::new(Class::Fatal, reason::AGENT_FAILED, text));
        }
    };
    report.messages.iter().for_each(|text| tracing::warn!("{text}"));
    let read = saved.total_bytes;
    let dump = saved.id.clone();
    made.push(saved);
    if read != report.bytes {
        let text = format!("restic stored {read} bytes of a dump of {} bytes.", report.bytes);
        return Err(Failure::new(Class::Fatal, reason::DUMP_FAILED, text));
    }
    // What was dropped while the dump ran is not in the dump.
    let after = clients.facts(&databases, !selection.is_partial).await?;
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        addon,
        snapshot: dump.clone(),
        bytes: report.bytes,
        sha256: report.sha256,
        server: before.version.clone(),
        server_number: before.number,
        format: plan.format,
        contents: contents(&before, &after, selection.is_partial),
    };
    let text = serde_json::to_string_pretty(&manifest).unwrap_or_default();
    let file = credentials.keep("manifest.json", &text)?;
    let command = vec!["cat".to_owned(), file.display().to_string()];
    let tags = vec![format!("{DUMP_TAG_PREFIX}{dump}")];
    let save = Save { tags, file: MANIFEST_FILE, command, ..save };
    made.push(repository.save(&save, |_| {}).await?);
    Ok(())
}

/// What a restore of the dump must bring back.
fn contents(before: &Facts, after: &Facts, is_partial: bool) -> Contents {
    let both = before.contents.clone().and(&after.contents);
    // A dump of the roles alone, for example, has no databases.
    if is_partial { Contents::default() } else { both }
}

/// A dump, with its manifest.
struct Found {
    pin: PinnedSnapshot,
    bytes: Option<u64>,
    manifest: Option<Manifest>,
    planned: u64,
}

async fn load(repository: &Repository, server: &Server<'_>, step: &Load, env: &[(String, String)]) -> Done {
    let found = match find(repository, server, step).await {
        Ok(found) => found,
        Err(failure) => return Done::untouched(failure),
    };
    let clients = match Clients::of(server, env) {
        Ok(clients) => clients,
        Err(failure) => return Done::untouched(failure),
    };
    let mut loaded = Loaded::default();
    let failure = bring_back(repository, server, &clients, &found, &mut loaded).await.err();
    if let Some(failure) = failure.as_ref().filter(|_| !loaded.has_begun) {
        return Done::untouched(failure.clone());
    }
    let (files, manifest) = (u64::from(loaded.is_complete), u64::from(found.manifest.is_some()));
    let total = found.bytes.unwrap_or(loaded.bytes) + (found.planned - found.bytes.unwrap_or(found.planned));
    let read = loaded.bytes + (total - found.bytes.unwrap_or(loaded.bytes));
    let mut tallies = Tallies::default()
        .with("files", Tally::of(files + manifest, 1 + manifest))
        .with("bytes", Tally::of(read.min(total), total));
    if let Some((there, wanted)) = loaded.objects {
        tallies = tallies.with(OBJECTS, Tally::of(there, wanted));
    }
    Done::of(crate::contract::Answer::Did(Did { tallies }), failure)
}

/// The pinned dump, and its manifest, which names the dump.
async fn find(repository: &Repository, server: &Server<'_>, step: &Load) -> Result<Found, Failure> {
    let addon = server.addon();
    let is = |pin: &&PinnedSnapshot, file: &str| pin.path.as_deref() == Some(file);
    let dumps: Vec<&PinnedSnapshot> = step.snapshots.iter().filter(|p| !is(p, MANIFEST_FILE)).collect();
    let [pin] = dumps.as_slice() else {
        let text = format!(
            "{} snapshots are selected, and one dump is loaded. Select one snapshot of {}. Nothing was changed.",
            dumps.len(),
            addon.file()
        );
        return Err(server.refuse(reason::INVALID, &text));
    };
    if pin.path.as_deref().is_some_and(|path| path != addon.file()) {
        let text = format!(
            "snapshot {} contains {}, which is not a dump of {} ({}). Nothing was changed.",
            pin.short(),
            pin.path.as_deref().unwrap_or_default(),
            addon.name(),
            addon.file()
        );
        return Err(Failure::new(Class::Data, reason::WRONG_DUMP, text));
    }
    repository.reach().await?;
    repository.unlocked().await?;
    let tag = format!("{DUMP_TAG_PREFIX}{}", pin.id);
    let all: Vec<Snapshot> = repository.snapshots(&[]).await?;
    let planned = step.planned.map_or(0, |p| p.bytes);
    let Some(snapshot) = all.iter().find(|s| s.tags().contains(&tag)) else {
        repository.warn(format!("Snapshot {} has no manifest, so it is not known what a restore must bring back: only the client's own success is checked.", pin.short()));
        return Ok(Found { pin: (*pin).clone(), bytes: None, manifest: None, planned });
    };
    let manifest_pin = snapshot.pin(None);
    let text = repository.file(&manifest_pin, MANIFEST_FILE).await?;
    let manifest: Manifest = repository::read_document(&text, "the manifest of a dump")?;
    if manifest.addon != addon || manifest.snapshot != pin.id {
        let text = format!(
            "snapshot {} is a dump of {}, and cannot be loaded into {}. Nothing was changed.",
            pin.short(),
            manifest.addon.name(),
            addon.name()
        );
        return Err(Failure::new(Class::Data, reason::WRONG_DUMP, text));
    }
    let bytes = Some(manifest.bytes);
    Ok(Found { pin: (*pin).clone(), bytes, planned: planned.max(manifest.bytes), manifest: Some(manifest) })
}

/// What was loaded so far.
#[derive(Default)]
struct Loaded {
    /// The server may have changed.
    has_begun: bool,
    /// Every byte was read, and has the digest of the manifest.
    is_complete: bool,
    /// Bytes that were read.
    bytes: u64,
    /// What the manifest names: how much is there, and how much there must be.
    objects: Option<(u64, u64)>,
}

async fn bring_back(
    repository: &Repository,
    server: &Server<'_>,
    clients: &Clients<'_>,
    found: &Found,
    loaded: &mut Loaded,
) -> Result<(), Failure> {
    let mut opened = Opened::open(repository, &found.pin, server.addon().file(), found.bytes).await?;
    let dumped = Dumped { manifest: found.manifest.as_ref(), head: opened.head() };
    if let Err(failure) = recognized(server, dumped) {
        opened.cancel().await;
        return Err(failure);
    }
    let prepared = match clients {
        Clients::Postgres(clients) => {
            let checked = async { clients.load(dumped, clients.version().await?.1).await };
            checked.await.map(|l| (l.command, l.target, l.prologue))
        }
        Clients::Mysql(clients) => {
            let checked = async {
                clients.version().await?;
                clients.load(dumped).await
            };
            checked.await.map(|command| (command, None, Some(Prologue::of_mysql(clients.user()))))
        }
        Clients::Redis(clients) => {
            let bytes = found.bytes.unwrap_or(found.planned);
            let sent = clients.load(&mut opened, &found.pin, bytes).await;
            loaded.bytes = opened.read_bytes();
            loaded.has_begun = !matches!(sent, Err((_, false)));
            let digest = sent.map_err(|(failure, _)| failure)?;
            whole(found, loaded, &digest)?;
            return there(server, clients_facts(clients).await?, found, loaded);
        }
    };
    let (command, target, prologue) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            opened.cancel().await;
            return Err(failure);
        }
    };
    loaded.has_begun = true;
    let Piped { bytes, sha256, result } = pipe(server, opened, &command, prologue).await;
    loaded.bytes = bytes;
    result?;
    whole(found, loaded, &sha256)?;
    let Some(manifest) = &found.manifest else { return Ok(()) };
    let contents = match clients {
        Clients::Postgres(clients) => clients.found(&manifest.contents, target.as_deref()).await?,
        Clients::Mysql(clients) => clients.found(&manifest.contents).await?,
        Clients::Redis(_) => Contents::default(),
    };
    there(server, contents, found, loaded)
}

async fn clients_facts(clients: &Redis<'_>) -> Result<Contents, Failure> {
    Ok(clients.facts().await?.contents)
}

/// Checks that a dump is one of this application, by its first bytes.
fn recognized(server: &Server<'_>, dumped: Dumped<'_>) -> Result<(), Failure> {
    if dumped.manifest.is_some() {
        return Ok(());
    }
    let head = String::from_utf8_lossy(dumped.head);
    let is_postgres = head.starts_with("PGDMP") || head.contains("PostgreSQL database");
    let is_mysql =
        ["-- MySQL dump", "-- MariaDB dump", "enable the sandbox mode"].iter().any(|sign| head.contains(sign));
    let is_redis = head.starts_with("REDIS") || head.starts_with("VALKEY");
    let (is_right, is_other) = match server.addon() {
        Addon::Postgres => (is_postgres, is_mysql || is_redis),
        Addon::Mysql => (is_mysql, is_postgres || is_redis),
        Addon::Redis => (is_redis, true),
    };
    if is_right || !is_other {
        return Ok(());
    }
    let text = format!("The snapshot is not a dump of {}. Nothing was changed.", server.addon().name());
    Err(Failure::new(Class::Data, reason::WRONG_DUMP, text))
}

/// Checks that the whole dump was read.
fn whole(found: &Found, loaded: &mut Loaded, sha256: &str) -> Result<(), Failure> {
    if let Some(manifest) = &found.manifest
        && (manifest.bytes != loaded.bytes || manifest.sha256 != sha256)
    {
        let text = format!(
            "Of snapshot {}, {} bytes were read, and its manifest says {} bytes with another digest: the dump is not the one that was made.",
            found.pin.short(),
            loaded.bytes,
            manifest.bytes
        );
        return Err(Failure::new(Class::Data, reason::DUMP_INCOMPLETE, text));
    }
    loaded.is_complete = true;
    Ok(())
}

/// Checks that everything that the manifest names is there.
fn there(server: &Server<'_>, contents: Contents, found: &Found, loaded: &mut Loaded) -> Result<(), Failure> {
    let Some(manifest) = &found.manifest else { return Ok(()) };
    let wanted = &manifest.contents;
    let keys = |c: &Contents| c.keys.unwrap_or(0);
    let total = wanted.databases.len() as u64 + wanted.tables() + wanted.roles.len() as u64 + keys(wanted);
    let missing: Vec<String> = wanted.missing(&contents).collect();
    let lost = missing.len() as u64 + keys(wanted).saturating_sub(keys(&contents));
    loaded.objects = Some((total.saturating_sub(lost), total));
    if lost == 0 {
        return Ok(());
    }
    let what = if missing.is_empty() { format!("{lost} keys") } else { some(&missing) };
    let text = format!(
        "The dump was loaded, but AppBinding {} does not have everything that its manifest names: {what}.",
        server.work.connection.binding
    );
    Err(Failure::new(Class::Data, reason::INCOMPLETE, text))
}
