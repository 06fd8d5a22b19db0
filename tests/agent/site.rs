//! One folder for a test: a repository, its Secret, data, and a place to restore to; and the agent that runs on them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lifeboat::contract::restic::{
    Answer, Backup, Counts, HostQuery, PinnedSnapshot, Pins, Preflight, RepositoryAccess, Restore, Restored, Settings,
    SnapshotMade, Step, Work,
};
use lifeboat::contract::{self, Class, Failure, Found, OUTCOME_LIMIT, Outcome, Part, Run, TASK_ENV, Task};

use super::quick_repository;
use super::support::tree::{describe, difference};

pub const PASSWORD: &str = "correct horse battery staple";

/// Absolute path of restic: without it, the agent looks for programs where its image has them.
pub fn restic() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = std::env::var("LIFEBOAT_RESTIC").unwrap_or_else(|_| "restic".into());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join(&program)).find(|file| file.is_file());
        let program = found.map_or(program, |file| file.to_str().unwrap().to_owned());
        let version = Command::new(&program).arg("version").output();
        assert!(
            version.is_ok_and(|v| v.status.success()),
            "these tests need restic 0.17 or newer: put it on the PATH or set LIFEBOAT_RESTIC to it (tried {program:?})"
        );
        program
    })
}

/// A repository, its Secret, and a place to restore to.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub url: String,
}

/// Result of a step.
pub struct Ended {
    pub outcome: Outcome,
    pub code: i32,
    pub log: String,
}

impl Ended {
    pub fn failure(&self) -> &Failure {
        self.outcome
            .failure
            .as_ref()
            .unwrap_or_else(|| panic!("it should have failed: {:?}\n{}", self.outcome, self.log))
    }

    pub fn failed(&self, class: Class, reason: &str) -> &Failure {
        let failure = self.failure();
        assert_eq!((failure.class, failure.reason.as_str()), (class, reason), "{failure:?}\n{}", self.log);
        assert_eq!(self.code, 1);
        failure
    }

    fn whole(&self) -> &contract::Answer {
        assert_eq!(self.outcome.failure, None, "{}", self.log);
        assert_eq!(self.code, 0);
        self.outcome.answer.as_ref().unwrap()
    }

    /// The answer of a step of restic.
    pub fn answer(&self) -> &Answer {
        self.whole();
        self.own().unwrap_or_else(|| panic!("{:?}", self.outcome))
    }

    /// Like [`Self::answer`], whether the step failed or not.
    pub fn own(&self) -> Option<&Answer> {
        match self.outcome.answer.as_ref()? {
            contract::Answer::Restic(answer) => Some(answer),
            _ => None,
        }
    }

    pub fn restored(&self) -> Restored {
        self.whole();
        let restored = self.counts().unwrap_or_else(|| panic!("{:?}", self.outcome));
        assert_eq!(restored.planned, restored.restored);
        restored
    }

    /// The counts, whether the step failed or not.
    pub fn counts(&self) -> Option<Restored> {
        match self.outcome.answer.as_ref()? {
            contract::Answer::Did(did) => Restored::of(&did.tallies),
            _ => None,
        }
    }

    pub fn hosts(&self) -> Vec<Host> {
        let contract::Answer::Found(hosts) = self.whole() else { panic!("{:?}", self.outcome) };
        hosts.iter().map(Host::of).collect()
    }
}

/// Result of a preflight for a host.
#[derive(Clone, Debug)]
pub struct Host {
    pub snapshots: Vec<PinnedSnapshot>,
    pub pins: Pins,
    pub planned: Option<Counts>,
    pub failure: Option<Failure>,
    pub warnings: Vec<String>,
}

impl Host {
    fn of(found: &Found) -> Self {
        let pins = Pins::read(found.pin.as_ref());
        Self {
            snapshots: pins.snapshots.clone(),
            pins,
            planned: Counts::of_planned(&found.planned),
            failure: found.failure.clone(),
            warnings: found.warnings.clone(),
        }
    }
}

/// The work of restic in a task.
pub fn work(task: &mut Task) -> &mut Work {
    match &mut task.work {
        contract::Work::Restic(work) => work,
        contract::Work::Application(_) => panic!("the task is not one of restic"),
    }
}

impl Site {
    pub fn empty() -> Self {
        restic();
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("repo").to_str().unwrap().to_owned();
        let site = Self { dir, url };
        for folder in ["secret", "work", "root"] {
            fs::create_dir_all(site.path(folder)).unwrap();
        }
        fs::write(site.path("secret/RESTIC_PASSWORD"), PASSWORD).unwrap();
        site
    }

    /// A site with an empty repository.
    pub fn new() -> Self {
        let site = Self::empty();
        for folder in ["data", "index", "locks", "snapshots"] {
            fs::create_dir_all(site.path("repo").join(folder)).unwrap();
        }
        quick_repository::make(&site.path("repo"), PASSWORD);
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder to be backed up, `data` below the site, and its absolute path.
    pub fn data(&self, name: &str) -> (PathBuf, String) {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        let text = path.to_str().unwrap().to_owned();
        (path, text)
    }

    /// The place of a restored path; the mount is created.
    pub fn target(&self, path: &str) -> PathBuf {
        let target = self.path("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(&target).unwrap();
        target
    }

    pub fn task(&self, step: Step) -> Task {
        let run = Run { id: "run-1".into(), kind: "RestoreSession".into(), namespace: "ns".into(), name: "rs".into() };
        let verb = step.verb();
        let hosts = if let Step::Preflight(step) = &step { step.hosts.len() } else { 1 };
        let parts = (0..hosts).map(|i| Part { member: 0, name: format!("host-{i}") }).collect();
        let repository = RepositoryAccess { url: self.url.clone(), ..RepositoryAccess::default() };
        let work = Work { repository, settings: Settings::default(), step };
        Task::new(run, verb, parts, contract::Work::Restic(Box::new(work)))
    }

    pub fn command(&self, task: &str, wrapper: &[&str]) -> Command {
        let mut argv: Vec<&str> = wrapper.to_vec();
        argv.extend([env!("CARGO_BIN_EXE_lifeboat"), "agent"]);
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).args(["--restic", restic(), "--progress-port", "0"]);
        for (argument, place) in [
            ("--secret-dir", "secret"),
            ("--work-dir", "work"),
            ("--restore-root", "root"),
            ("--outcome-file", "outcome"),
        ] {
            command.arg(argument).arg(self.path(place));
        }
        command.env(TASK_ENV, task).env("RUST_LOG", "debug").stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    pub fn finish(&self, child: Child) -> Ended {
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = fs::read_to_string(self.path("outcome")).unwrap_or_else(|e| panic!("no outcome: {e}\n{log}"));
        assert!(text.len() <= OUTCOME_LIMIT);
        assert!(!log.contains(PASSWORD) && !text.contains(PASSWORD), "the password is in {log}\n{text}");
        Ended { outcome: Outcome::decode(&text).unwrap(), code: output.status.code().unwrap_or(-1), log }
    }

    /// Runs the agent through another program, as a user that could not create the outcome's file.
    pub fn run_behind(&self, wrapper: &[&str], task: &Task) -> Ended {
        fs::write(self.path("outcome"), "").unwrap();
        fs::set_permissions(self.path("outcome"), PermissionsExt::from_mode(0o666)).unwrap();
        self.finish(self.command(&task.encode(), wrapper).spawn().unwrap())
    }

    pub fn run_task(&self, task: &Task) -> Ended {
        let _ = fs::remove_file(self.path("outcome"));
        self.finish(self.command(&task.encode(), &[]).spawn().unwrap())
    }

    pub fn run(&self, step: Step) -> Ended {
        self.run_task(&self.task(step))
    }

    /// Like [`Self::run_task`], with a shell script in the place of restic, in which `$RESTIC` is restic.
    pub fn run_through(&self, script: &str, task: &Task) -> Ended {
        let program = self.path("through");
        replace(&program, format!("#!/bin/sh\nRESTIC='{}'\n{script}\n", restic()).as_bytes());
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let _ = fs::remove_file(self.path("outcome"));
        let mut command = self.command(&task.encode(), &[]);
        self.finish(command.arg("--restic").arg(&program).args(["--lock-watch", "0"]).spawn().unwrap())
    }

    /// A step of another run.
    pub fn task_of(&self, run: &str, step: Step) -> Task {
        let mut task = self.task(step);
        task.run.id = run.into();
        task
    }

    /// The snapshots that `latest` selects for a host.
    pub fn latest(&self, host: &str, mounts: &[&str]) -> Vec<String> {
        let query = HostQuery {
            source_host: host.into(),
            snapshots: vec!["latest".into()],
            mounts: strings(mounts),
            ..HostQuery::default()
        };
        let ended = self.resolve(query);
        let mut ids: Vec<String> = ended.hosts()[0].snapshots.iter().map(|s| s.id.clone()).collect();
        ids.sort();
        ids
    }

    pub fn backup(&self, host: &str, paths: &[&str]) -> Vec<SnapshotMade> {
        let step = Backup { host: host.into(), paths: strings(paths), ..Backup::default() };
        let ended = self.run(Step::Backup(step));
        let Answer::BackedUp(made) = ended.answer() else { panic!() };
        made.clone()
    }

    pub fn resolve(&self, query: HostQuery) -> Ended {
        self.run(Step::Preflight(Preflight { hosts: vec![query], ..Preflight::default() }))
    }

    /// A restore of the newest snapshots of these paths of host-0, mounted where they were.
    pub fn step(&self, paths: &[&str]) -> Restore {
        let query = HostQuery {
            source_host: "host-0".into(),
            paths: strings(paths),
            mounts: strings(paths),
            ..HostQuery::default()
        };
        let ended = self.resolve(query);
        let host = &ended.hosts()[0];
        assert_eq!(host.failure, None);
        Restore { planned: None, ..restore_of(host, paths) }
    }

    /// Puts keys of a store into the Secret; the stores of this site do not check them.
    pub fn give_keys(&self) {
        fs::write(self.path("secret/AWS_ACCESS_KEY_ID"), "AKIDEXAMPLE").unwrap();
        fs::write(self.path("secret/AWS_SECRET_ACCESS_KEY"), "not-for-the-log").unwrap();
    }

    pub fn restic(&self, args: &[&str]) -> Command {
        let mut command = Command::new(restic());
        command
            .args(["--repo", &self.url, "--no-cache", "--password-file"])
            .arg(self.path("secret/RESTIC_PASSWORD"))
            .args(args);
        command
    }

    /// The number of locks of a local repository. A lock that is still being written has a longer name, and does not
    /// count: if restic is killed then, it leaves a file that no command reads.
    pub fn locks(&self) -> usize {
        let is_lock = |entry: &fs::DirEntry| entry.file_name().len() == 64;
        fs::read_dir(self.path("repo/locks")).unwrap().flatten().filter(is_lock).count()
    }

    /// The pack files, largest first.
    pub fn packs(&self) -> Vec<PathBuf> {
        let mut packs: Vec<(u64, PathBuf)> = Vec::new();
        for dir in fs::read_dir(self.path("repo/data")).unwrap() {
            for file in fs::read_dir(dir.unwrap().path()).unwrap() {
                let file = file.unwrap();
                packs.push((file.metadata().unwrap().len(), file.path()));
            }
        }
        packs.sort_by(|a, b| b.cmp(a));
        packs.into_iter().map(|(_, p)| p).collect()
    }
}

/// A restore of the snapshots that a preflight has found and counted for a host.
pub fn restore_of(found: &Host, mounts: &[&str]) -> Restore {
    Restore {
        snapshots: found.snapshots.clone(),
        mounts: strings(mounts),
        planned: found.planned,
        ..Restore::default()
    }
}

pub fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

pub fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "this test must run as root");
}

pub fn assert_equal(want: &BTreeMap<String, String>, have: &Path) {
    let have = describe(have);
    let different = difference(want, &have);
    assert!(different.is_empty(), "{} differences:\n{}", different.len(), different.join("\n"));
}

/// restic that does not wait for a lock.
pub const HASTY: &str =
    r#"for a in "$@"; do shift; [ "$a" = 2m ] && a=1s; set -- "$@" "$a"; done; exec "$RESTIC" "$@""#;

pub fn wait_for(mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(90), "waited too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Process id of the restic that a process has started and whose dry run is over.
pub fn wait_for_restic(parent: u32, word: &str) -> u32 {
    let mut found = 0;
    wait_for(|| {
        let children = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
        for pid in children {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let ppid =
                stat.rsplit(')').next().and_then(|s| s.split_whitespace().nth(1)).and_then(|s| s.parse::<u32>().ok());
            let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let argv = String::from_utf8_lossy(&argv).replace('\0', " ");
            if ppid == Some(parent) && argv.contains(word) && argv.contains("restore") && !argv.contains("--dry-run") {
                found = pid;
            }
        }
        found != 0
    });
    found
}

pub fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

/// Command that runs a program as [`USER`], without capabilities.
pub const AS_USER: [&str; 5] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
/// A user other than root.
pub const USER: u32 = 65_534;

/// Gives another user access to the site.
pub fn give_to(site: &Site, uid: u32, target: &Path) {
    for dir in [site.dir.path().to_owned(), site.path("secret"), site.path("root"), site.path("repo")] {
        fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut todo = vec![site.path("repo"), site.path("work")];
    while let Some(path) = todo.pop() {
        std::os::unix::fs::chown(&path, Some(uid), Some(uid)).unwrap();
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    // The parents of the mount belong to the container and stay root's.
    for parent in target.ancestors().skip(1).take_while(|p| p.starts_with(site.path("root"))) {
        fs::set_permissions(parent, PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::chown(target, Some(uid), Some(uid)).unwrap();
}

/// Overwrites a file that restic made read-only.
pub fn replace(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}
