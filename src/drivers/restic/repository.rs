//! One repository: its access, and the environment of restic commands.
//!
//! The environment is built from scratch. Users may set variables of the Job, so only a short list is passed on:
//! proxies, the time zone, memory limits of the Go runtime and, only if the Secret has no keys, the cloud credentials
//! of the pod. This file never writes to a repository, except for stale locks.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::contract::restic::{PASSWORD_KEY, RepositoryAccess, Settings};
use crate::contract::{Class, Failure, Task};
use crate::drivers::control::Control;
use crate::drivers::restic::args;
use crate::drivers::restic::bucket::Bucket;
use crate::drivers::restic::error;
use crate::drivers::restic::output::Message;
use crate::drivers::restic::place::{Place, endpoint};
use crate::drivers::restic::run::{End, Invocation, LOOK, Limit, Ran, run};
use crate::drivers::restic::secrets::Secrets;
use crate::drivers::restic::tuning::Memory;
use crate::names::reason;

/// Timeout for a TCP connection to the storage, so that a wrong address is reported at once.
const CONNECT: Duration = Duration::from_secs(5);
/// Age at which restic considers a lock stale (restic, `internal/restic/lock.go`).
const STALE_LOCK: SignedDuration = SignedDuration::from_mins(30);
/// Exit codes of a command that found no repository, and that could not open it.
const NO_REPOSITORY: i32 = 10;
const WRONG_PASSWORD: i32 = 12;
/// Maximum number of warnings of a step.
const MOST_WARNINGS: usize = 8;
/// Exit code of a command that did not get its lock.
const LOCKED: i32 = 11;
/// Maximum number of locks that are read: each one opens the repository once.
const MOST_LOCKS: usize = 8;
/// Attempts to remove a stale lock: its process id may be in use by another process here, but changes with each start
/// of restic.
const UNLOCKS: usize = 3;
/// PATH for restic, nice and ionice: users may set the PATH of the Job, and write files to its volumes.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables of the Job that are passed to restic. Trusted certificates are not among them: they come from the Secret
/// (`CA_CERT_DATA`).
const PASSED_ON: &[&str] = &[
    "TZ",
    "GOMEMLIMIT",
    "GOMAXPROCS",
    "GOGC",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
/// Variables with which a cloud assigns a role to a pod. Paths and names; the tokens are in files.
const AMBIENT: &[&str] = &[
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_REGION",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];
/// Of these, variables with the path of a file whose content is sent to the cloud. Only files in the folders of
/// clouds are used: another path of a user could be the backend Secret.
const AMBIENT_FILES: &[&str] =
    &["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "GOOGLE_APPLICATION_CREDENTIALS"];
/// Below this, Kubernetes and the webhooks of clouds mount tokens.
const TOKENS: &str = "/var/run/secrets/";

/// Paths in the Job's container.
#[derive(Clone, Debug)]
pub struct Places {
    /// Name or path of restic.
    pub program: String,
    /// Folder of the backend Secret.
    pub secret_dir: PathBuf,
    /// Writable scratch space.
    pub work_dir: PathBuf,
    /// PVC for cache and temporary files, if the step has one.
    pub interim_dir: PathBuf,
    /// Folder below which the volumes of a restore are mounted.
    pub restore_root: PathBuf,
    /// How long an old lock is watched before it counts as stale. A running command replaces its lock every five
    /// minutes.
    pub lock_watch: Duration,
}

/// A repository that commands can be run on.
#[derive(Debug)]
pub struct Repository {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    endpoint: Option<(String, u16)>,
    secrets: Secrets,
    control: Control,
    remote: bool,
    /// Its location, for messages.
    place: Place,
    lock_watch: Duration,
    /// A restic process with this hostname was killed, and no other one can be running.
    died: AtomicBool,
    /// The repository opens with the unchanged password of the Secret, including spaces and line breaks at its ends.
    untrimmed: OnceCell<bool>,
    /// Its bucket; `None` without a bucket, or behind a proxy.
    bucket: Option<Bucket>,
    /// A bucket that does not exist may be created.
    create_bucket: bool,
    /// There was a repository before: if there is none now, it is lost, and must not be created.
    known: bool,
    /// The name of its bucket is not valid.
    bad_bucket: AtomicBool,
    warnings: Mutex<Vec<String>>,
    /// Folder below which the volumes of a restore are mounted.
    pub restore_root: PathBuf,
}

/// The variables of the Job (from `given`) that are passed to restic.
fn passed_on(ambient: bool, given: &dyn Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let take = |name: &&str| Some(((*name).to_owned(), given(name)?));
    let mut env: Vec<(String, String)> = PASSED_ON.iter().filter_map(take).collect();
    if ambient {
        env.extend(AMBIENT.iter().filter_map(take));
        let is_token = |(_, path): &(String, String)| path.starts_with(TOKENS) && !path.contains("..");
        env.extend(AMBIENT_FILES.iter().filter_map(take).filter(is_token));
    }
    env
}

impl Repository {
    /// Prepares files of credentials, folders and arguments for commands.
    pub fn new(
        access: &RepositoryAccess,
        settings: &Settings,
        task: &Task,
        places: &Places,
        control: Control,
    ) -> Result<Self, Failure> {
        let work = &places.work_dir;
        // Derived credentials are in the scratch volume, which is deleted with the pod; a PVC is not.
        let room = if settings.interim { places.interim_dir.join("data") } else { work.clone() };
        for folder in [work.clone(), room.join("cache"), room.join("tmp")] {
            std::fs::create_dir_all(&folder).map_err(|e| {
                let text = format!(
                    "Could not create the work folder {}: {e}. The user of the Job must be able to write there: see runtimeSettings.pod.securityContext.fsGroup.",
                    folder.display()
                );
                Failure::new(Class::Invalid, reason::PERMISSION_DENIED, text)
            })?;
        }
        let secrets = Secrets::load(&places.secret_dir, work, &access.url)?;
        let mut argv = args::priority(&task.process);
        argv.push(places.program.clone());
        argv.extend(args::global(access, settings, &secrets.args, &room.join("cache")));
        let memory = Memory::look();
        argv.extend(memory.options(&access.url));

        let mut env = passed_on(secrets.ambient, &|name| std::env::var(name).ok());
        env.push(("PATH".into(), PROGRAMS.into()));
        if let Some(bytes) = memory.go_limit().filter(|_| !env.iter().any(|(name, _)| name == "GOMEMLIMIT")) {
            env.push(("GOMEMLIMIT".into(), bytes));
        }
        env.push(("HOME".into(), work.to_string_lossy().into_owned()));
        env.push(("TMPDIR".into(), room.join("tmp").to_string_lossy().into_owned()));
        // One status a second; restic's default for JSON is sixty.
        env.push(("RESTIC_PROGRESS_FPS".into(), "1".into()));
        if let Some(region) = &access.region {
            env.push(("AWS_DEFAULT_REGION".into(), region.clone()));
        }
        env.extend(secrets.env.clone());
        let proxied = env.iter().any(|(k, _)| ["http_proxy", "https_proxy"].contains(&k.to_lowercase().as_str()));
        let endpoint = if proxied { None } else { endpoint(&access.url) };
        let (keys, ca) = (secrets.keys.clone(), secrets.ca.clone());
        let bucket =
            Bucket::of(&access.url, access.region.as_deref(), keys, ca, access.insecure_tls).filter(|_| !proxied);
        Ok(Self {
            argv,
            env,
            endpoint,
            secrets,
            control,
            remote: !access.url.starts_with('/'),
            place: Place::of(access),
            lock_watch: places.lock_watch,
            died: AtomicBool::new(task.after_death),
            untrimmed: OnceCell::new(),
            bucket,
            create_bucket: access.create_bucket,
            known: access.known,
            bad_bucket: AtomicBool::new(false),
            warnings: Mutex::default(),
            restore_root: places.restore_root.clone(),
        })
    }

    /// Fails fast if no server listens at the address of the storage.
    pub async fn reach(&self) -> Result<(), Failure> {
        let Some((host, port)) = &self.endpoint else { return Ok(()) };
        let error = match tokio::time::timeout(CONNECT, TcpStream::connect((host.as_str(), *port))).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {} s", CONNECT.as_secs()),
        };
        Err(Failure::new(
            Class::Transient,
            reason::REPOSITORY_UNREACHABLE,
            format!(
                "The storage does not answer at {host}:{port}: {error}. Check the endpoint of the backend, DNS and network policies."
            ),
        ))
    }

    /// Reports progress.
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Runs a command whose lines go to `sink`.
    pub async fn lines(&self, args: Vec<String>, limit: Limit, sink: &mut (dyn FnMut(&Message) + Send)) -> Ran {
        self.run(args, limit, false, sink).await
    }

    /// Runs a command whose standard output is one document.
    pub async fn document(&self, args: Vec<String>) -> Ran {
        self.document_within(args, Limit::Whole(LOOK)).await
    }

    /// The same, with another limit.
    pub async fn document_within(&self, args: Vec<String>, limit: Limit) -> Ran {
        self.run(args, limit, true, &mut |_| {}).await
    }

    async fn run(
        &self,
        command: Vec<String>,
        limit: Limit,
        document: bool,
        sink: &mut (dyn FnMut(&Message) + Send),
    ) -> Ran {
        let what = self.invocation(command, self.opens_untrimmed().await, limit, document);
        let ran = self.invoke(&what, sink).await;
        if matches!(ran.end, End::Killed(_)) {
            self.died.store(true, Ordering::Relaxed);
            self.own_locks_removed().await;
        }
        // The lock is taken first, so the command has had no effect and no output yet.
        if ran.end == End::Exited(LOCKED) && self.stale_locks_removed().await {
            return self.invoke(&what, sink).await;
        }
        ran
    }

    async fn invoke(&self, what: &Invocation, sink: &mut (dyn FnMut(&Message) + Send)) -> Ran {
        tracing::debug!(argv = %what.argv.join(" "), "run");
        let ran = run(what, &self.control.stop, sink).await;
        tracing::debug!(end = ?ran.end, errors = ran.report.errors, "ran");
        ran
    }

    /// Runs a command that takes no lock, and returns its document.
    async fn look(&self, command: Vec<String>) -> Ran {
        let what = self.invocation(command, self.opens_untrimmed().await, Limit::Whole(LOOK), true);
        self.invoke(&what, &mut |_| {}).await
    }

    fn invocation(&self, command: Vec<String>, untrimmed: bool, limit: Limit, document: bool) -> Invocation {
        let (mut argv, mut env) = (self.argv.clone(), self.env.clone());
        match self.secrets.untrimmed.as_ref().filter(|_| untrimmed) {
            Some(password) => env.push(("RESTIC_PASSWORD".into(), password.clone())),
            None => argv.extend(self.secrets.password_file.clone()),
        }
        argv.extend(command);
        Invocation { argv, env, limit, document }
    }

    /// Whether the repository opens with the unchanged password of the Secret. Stash passes it unchanged to restic,
    /// and `echo` adds a line break to it; from a file, restic reads it without the line break.
    async fn opens_untrimmed(&self) -> bool {
        if self.secrets.untrimmed.is_none() {
            return false;
        }
        let opens = self.untrimmed.get_or_try_init(async || {
            let what = self.invocation(args::cat_config(), true, Limit::Whole(LOOK), true);
            match self.invoke(&what, &mut |_| {}).await.end {
                End::Exited(0) => {
                    self.warn(format!("The value of key {PASSWORD_KEY} of the backend Secret begins or ends with spaces or a line break, and the repository was created with them: other programs must use the same value."));
                    Ok(true)
                }
                End::Exited(WRONG_PASSWORD | NO_REPOSITORY) => Ok(false),
                // Not known; the command itself reports the cause.
                _ => Err(()),
            }
        });
        opens.await.is_ok_and(|opens| *opens)
    }

    /// Adds a warning of the step.
    pub fn warn(&self, text: String) {
        let mut all = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST_WARNINGS && !all.contains(&text) {
            tracing::warn!("{text}");
            all.push(text);
        }
    }

    /// All warnings of the step.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Removes stale locks by restic; otherwise every backup would wait for them until its deadline. Returns whether
    /// a retry may succeed.
    ///
    /// restic uses the clock of this machine to decide that a lock is stale. A wrong clock must not remove the lock
    /// of a running command, so an old lock is first watched for longer than the interval at which a running command
    /// replaces it.
    async fn stale_locks_removed(&self) -> bool {
        if self.own_locks_removed().await {
            return true;
        }
        let before = self.locks().await;
        let old = before.iter().filter(|(_, lock)| lock.is_old()).count();
        if old == 0 {
            return false;
        }
        tracing::info!(locks = old, seconds = self.lock_watch.as_secs(), "watching old locks");
        let mut stop = self.control.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(self.lock_watch) => {}
            Ok(_) = stop.wait_for(|stop| *stop) => return false,
        }
        let after = self.locks().await;
        if after.iter().any(|(id, lock)| lock.is_old() && !before.iter().any(|(known, _)| known == id)) {
            tracing::warn!("a lock that looks old was renewed: the clocks of two machines differ");
            return false;
        }
        let ran = self.look(args::unlock()).await;
        tracing::warn!(end = ?ran.end, "stale locks removed");
        ran.end == End::Exited(0)
    }

    /// If a restic process with this hostname was killed: removes its lock by restic, which considers it stale at
    /// once (same host, no such process). Returns whether there was a lock, and none is left.
    pub async fn own_locks_removed(&self) -> bool {
        if !self.died.load(Ordering::Relaxed) {
            return false;
        }
        let me = host_name();
        for tried in 0..=UNLOCKS {
            let locks = self.locks().await;
            if !locks.iter().any(|(_, lock)| lock.hostname == me) {
                return tried > 0;
            }
            // restic would also remove old locks of other hosts, and these must be watched first.
            if tried == UNLOCKS || locks.iter().any(|(_, lock)| lock.hostname != me && lock.is_old()) {
                break;
            }
            let ran = self.look(args::unlock()).await;
            tracing::warn!(end = ?ran.end, "removing the lock of a command that no longer runs");
        }
        false
    }

    /// The locks that can be read.
    async fn locks(&self) -> Vec<(String, Lock)> {
        let ran = self.look(args::locks()).await;
        let mut locks = Vec::new();
        for id in String::from_utf8_lossy(&ran.document).split_whitespace().take(MOST_LOCKS) {
            let ran = self.look(args::lock(id)).await;
            if let Ok(lock) = read_document::<Lock>(&ran.document, "cat lock") {
                locks.push((id.to_owned(), lock));
            }
        }
        locks
    }

    /// Whether to repeat a command that found damage; otherwise its failure. A prune may have moved the missing data
    /// meanwhile: a new process reads the new index.
    ///
    /// # Errors
    /// The failure, if it is not damage, or occurred again. The lock, if a prune is still running.
    pub async fn once_more(&self, failure: Failure, again: &mut bool) -> Result<(), Failure> {
        if failure.reason != reason::DATA_CORRUPT {
            return Err(failure);
        }
        self.unlocked().await?;
        if std::mem::replace(again, true) { Err(failure) } else { Ok(()) }
    }

    /// The error, without secrets.
    pub fn failure(&self, ran: &Ran, doing: &str) -> Failure {
        let mut failure = error::failure(ran, doing, self.remote, &self.place);
        self.secrets.blot(&mut failure.message);
        failure
    }

    /// Opens the repository and lists its snapshots of all hosts, or only those of `ids`.
    pub async fn snapshots<T: DeserializeOwned>(&self, ids: &[String]) -> Result<Vec<T>, Failure> {
        self.reach().await?;
        let mut again = false;
        loop {
            let ran = self.document_within(args::snapshots(ids), Limit::Looking(LOOK)).await;
            if ran.end == End::Exited(0) {
                return read_document(&ran.document, "snapshots");
            }
            self.once_more(self.opening_failure(&ran).await, &mut again).await?;
        }
    }

    /// Checks that no command that removes data is running. Such a command has an exclusive lock, and renews it every
    /// five minutes; a lock that is not renewed is stale, and ignored.
    ///
    /// # Errors
    /// The lock to wait for. A lock that cannot be read is ignored.
    pub async fn unlocked(&self) -> Result<(), Failure> {
        for (_, lock) in self.locks().await {
            if lock.exclusive && !lock.is_old() {
                return Err(Failure::new(
                    Class::Transient,
                    reason::REPOSITORY_LOCKED,
                    format!(
                        "The repository is locked by a command that may remove data ({}, process {}, since {}). Lifeboat waits for it until the deadline, and never removes the lock of a running command.",
                        lock.hostname, lock.pid, lock.time
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// A lock of restic.
#[derive(Debug, Deserialize)]
struct Lock {
    time: Timestamp,
    #[serde(default)]
    exclusive: bool,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    pid: i64,
}

impl Lock {
    /// Whether the lock was not renewed for a long time, by the clock of this machine.
    fn is_old(&self) -> bool {
        Timestamp::now().duration_since(self.time) >= STALE_LOCK
    }
}

/// Name of this machine, or container, as in restic's locks.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// `restic stats --json`.
#[derive(Debug, Deserialize)]
pub struct Stats {
    /// Bytes in the storage.
    #[serde(default)]
    pub total_size: u64,
    /// The same before compression.
    #[serde(default)]
    pub total_uncompressed_size: u64,
}

/// Reads a JSON document of restic.
pub fn read_document<'a, T: Deserialize<'a>>(text: &'a [u8], what: &str) -> Result<T, Failure> {
    serde_json::from_slice(text).map_err(|e| {
        Failure::new(Class::Fatal, reason::RESTIC_FAILED, format!("restic's output for {what} cannot be parsed: {e}."))
    })
}

mod opening;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
