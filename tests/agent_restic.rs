//! The agent with the real restic, as a Job would run it: one process a step, task by
//! environment, outcome by file.
//!
//! restic is found by `LIFEBOAT_RESTIC` or on the PATH; without it these tests fail
//! rather than pass unseen. Some need root, to give files their owners and to mount a
//! small file system; they say so when it is missing.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use lifeboat::names::reason;
use lifeboat::plan::contract::*;
use support::tree::{build, describe, difference, write_noise};

const PASSWORD: &str = "correct horse battery staple";

/// restic, wherever it is.
fn restic() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = std::env::var("LIFEBOAT_RESTIC").unwrap_or_else(|_| "restic".into());
        let version = Command::new(&program).arg("version").output();
        assert!(
            version.is_ok_and(|v| v.status.success()),
            "these tests need restic 0.17 or newer: put it on the PATH or set LIFEBOAT_RESTIC to it (tried {program:?})"
        );
        program
    })
}

/// A repository, its Secret, and a place to restore to.
struct Site {
    dir: tempfile::TempDir,
    url: String,
}

/// How a step ended.
struct Ended {
    outcome: Outcome,
    code: i32,
    log: String,
}

impl Ended {
    fn failure(&self) -> &Failure {
        self.outcome
            .failure
            .as_ref()
            .unwrap_or_else(|| panic!("it should have failed: {:?}\n{}", self.outcome, self.log))
    }

    fn failed(&self, class: Class, reason: &str) -> &Failure {
        let failure = self.failure();
        assert_eq!((failure.class, failure.reason.as_str()), (class, reason), "{failure:?}\n{}", self.log);
        assert_eq!(self.code, 1);
        failure
    }

    fn answer(&self) -> &Answer {
        assert_eq!(self.outcome.failure, None, "{}", self.log);
        assert_eq!(self.code, 0);
        self.outcome.answer.as_ref().unwrap()
    }

    fn restored(&self) -> Restored {
        let Answer::Restored(restored) = self.answer() else { panic!("{:?}", self.outcome) };
        assert_eq!(restored.planned, restored.restored);
        restored.clone()
    }

    fn hosts(&self) -> &[HostAnswer] {
        let Answer::Preflight(hosts) = self.answer() else { panic!("{:?}", self.outcome) };
        hosts
    }
}

impl Site {
    fn empty() -> Self {
        restic();
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("repo").to_str().unwrap().to_owned();
        let site = Self { dir, url };
        for folder in ["secret", "work", "root"] {
            fs::create_dir_all(site.path(folder)).unwrap();
        }
        fs::write(site.path("secret/RESTIC_PASSWORD"), format!("{PASSWORD}\n")).unwrap();
        site
    }

    /// With a repository made by the agent itself.
    fn new() -> Self {
        let site = Self::empty();
        assert_eq!(*site.run(Step::Prepare(Prepare {})).answer(), Answer::Prepared { created: true });
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A folder to be backed up, `data` below the site, and its absolute path.
    fn data(&self, name: &str) -> (PathBuf, String) {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        let text = path.to_str().unwrap().to_owned();
        (path, text)
    }

    /// Where a backed-up path stands when restored; its mount is made.
    fn target(&self, path: &str) -> PathBuf {
        let target = self.path("root").join(path.trim_start_matches('/'));
        fs::create_dir_all(&target).unwrap();
        target
    }

    fn task(&self, step: Step) -> Task {
        Task {
            version: VERSION,
            run: Run { id: "run-1".into(), kind: "RestoreSession".into(), namespace: "ns".into(), name: "rs".into() },
            repository: RepositoryAccess { url: self.url.clone(), ..RepositoryAccess::default() },
            settings: Settings::default(),
            step,
        }
    }

    fn command(&self, task: &str, wrapper: &[&str]) -> Command {
        let mut argv: Vec<&str> = wrapper.to_vec();
        argv.extend([env!("CARGO_BIN_EXE_lifeboat"), "agent"]);
        let mut command = Command::new(argv[0]);
        command
            .args(&argv[1..])
            .env(TASK_ENV, task)
            .env("LIFEBOAT_RESTIC", restic())
            .env("LIFEBOAT_SECRET_DIR", self.path("secret"))
            .env("LIFEBOAT_WORK_DIR", self.path("work"))
            .env("LIFEBOAT_RESTORE_ROOT", self.path("root"))
            .env("LIFEBOAT_OUTCOME_FILE", self.path("outcome"))
            .env("LIFEBOAT_PROGRESS_PORT", "0")
            .env("RUST_LOG", "debug")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn finish(&self, child: Child) -> Ended {
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        let text = fs::read_to_string(self.path("outcome")).unwrap_or_else(|e| panic!("no outcome: {e}\n{log}"));
        assert!(text.len() <= OUTCOME_LIMIT);
        assert!(!log.contains(PASSWORD) && !text.contains(PASSWORD), "the password is in {log}\n{text}");
        Ended { outcome: Outcome::decode(&text).unwrap(), code: output.status.code().unwrap_or(-1), log }
    }

    fn run_task(&self, task: &Task) -> Ended {
        let _ = fs::remove_file(self.path("outcome"));
        self.finish(self.command(&task.encode(), &[]).spawn().unwrap())
    }

    fn run(&self, step: Step) -> Ended {
        self.run_task(&self.task(step))
    }

    /// The same with another program in the place of restic, a shell script in which `$RESTIC` is restic.
    fn run_through(&self, script: &str, task: &Task) -> Ended {
        let program = self.path("through");
        replace(&program, format!("#!/bin/sh\nRESTIC='{}'\n{script}\n", restic()).as_bytes());
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let _ = fs::remove_file(self.path("outcome"));
        let mut command = self.command(&task.encode(), &[]);
        self.finish(command.env("LIFEBOAT_RESTIC", &program).env("LIFEBOAT_LOCK_WATCH", "0").spawn().unwrap())
    }

    /// A step of another run.
    fn task_of(&self, run: &str, step: Step) -> Task {
        let mut task = self.task(step);
        task.run.id = run.into();
        task
    }

    /// What `latest` of a host is.
    fn latest(&self, host: &str, mounts: &[&str]) -> Vec<String> {
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

    fn backup(&self, host: &str, paths: &[&str]) -> Vec<SnapshotMade> {
        let step = Backup { host: host.into(), paths: strings(paths), ..Backup::default() };
        let ended = self.run(Step::Backup(step));
        let Answer::BackedUp(made) = ended.answer() else { panic!() };
        made.clone()
    }

    fn resolve(&self, query: HostQuery) -> Ended {
        self.run(Step::Preflight(Preflight { hosts: vec![query], ..Preflight::default() }))
    }

    /// A restore of the newest of these paths of host-0, mounted where they were.
    fn step(&self, paths: &[&str]) -> Restore {
        let query = HostQuery {
            host: "host-0".into(),
            source_host: "host-0".into(),
            paths: strings(paths),
            mounts: strings(paths),
            ..HostQuery::default()
        };
        let ended = self.resolve(query);
        let host = &ended.hosts()[0];
        assert_eq!(host.failure, None);
        Restore {
            host: "host-0".into(),
            snapshots: host.snapshots.clone(),
            mounts: strings(paths),
            ..Restore::default()
        }
    }

    fn restic(&self, args: &[&str]) -> Command {
        let mut command = Command::new(restic());
        command
            .args(["--repo", &self.url, "--no-cache", "--password-file"])
            .arg(self.path("secret/RESTIC_PASSWORD"))
            .args(args);
        command
    }

    /// How many locks a local repository has. A lock that is still being written has a longer name, and is none:
    /// restic killed then leaves a file that nothing minds.
    fn locks(&self) -> usize {
        let is_lock = |entry: &fs::DirEntry| entry.file_name().len() == 64;
        fs::read_dir(self.path("repo/locks")).unwrap().flatten().filter(is_lock).count()
    }

    /// The pack files, largest first.
    fn packs(&self) -> Vec<PathBuf> {
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

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

fn need_root() {
    assert!(rustix::process::geteuid().is_root(), "this test must run as root");
}

fn assert_equal(want: &BTreeMap<String, String>, have: &Path) {
    let have = describe(have);
    let different = difference(want, &have);
    assert!(different.is_empty(), "{} differences:\n{}", different.len(), different.join("\n"));
}

// A01
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_tree_comes_back_exactly_and_again() {
    let site = Site::new();
    let (data, path) = site.data("data");
    build(&data, 1);
    let want = describe(&data);
    assert!(
        want.values().any(|l| l.contains("user.lifeboat=")),
        "the file system of the tests keeps no extended attributes"
    );
    assert!(want["./sparse"].contains("sparse=true"));
    site.backup("host-0", &[&path]);
    fs::remove_dir_all(&data).unwrap();

    let target = site.target(&path);
    let step = site.step(&[&path]);
    let first = site.run(Step::Restore(step.clone())).restored();
    assert_equal(&want, &target);
    assert_eq!(first.planned.files, want.len() as u64);

    // Over complete data: all is found equal, and counts are the same.
    let again = site.run(Step::Restore(step.clone()));
    assert_eq!(again.restored(), first);
    assert_equal(&want, &target);

    // Over data that has changed underneath, longer, shorter, missing and of another type.
    fs::write(target.join("dir-0/sub-0/file-0.json"), "changed").unwrap();
    fs::write(target.join("empty-file"), "no longer empty").unwrap();
    fs::remove_file(target.join("dir-1/sub-1/file-1.bin")).unwrap();
    fs::remove_file(target.join("linked-b")).unwrap();
    fs::remove_file(target.join("link-to-dir")).unwrap();
    fs::write(target.join("link-to-dir"), "now a file").unwrap();
    fs::set_permissions(target.join("empty"), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(site.run(Step::Restore(step)).restored(), first);
    assert_equal(&want, &target);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_set_of_paths_is_restored_as_one_run_and_other_mounts_stay() {
    let site = Site::new();
    let (a, path_a) = site.data("a");
    let (b, path_b) = site.data("b [x]*?{}\\ ü");
    write_noise(&a.join("one"), 5000, 1);
    write_noise(&b.join("two"), 7000, 2);
    let (_, path_c) = site.data("empty");
    let made = site.backup("host-0", &[&path_a, &path_b, &path_c]);
    assert_eq!(
        (made.len(), made[0].path.as_str(), made[0].total_files, made[1].total_bytes),
        (3, path_a.as_str(), 1, 7000)
    );
    let query = HostQuery {
        host: "host-0".into(),
        source_host: "host-0".into(),
        snapshots: vec!["latest".into()],
        mounts: strings(&[&path_a, &path_b, &path_c]),
        ..HostQuery::default()
    };
    let pins = site.resolve(query).hosts()[0].snapshots.clone();
    assert!(pins.iter().all(|p| p.id.len() == 64 && p.time.ends_with('Z')));
    let paths: BTreeSet<&str> = pins.iter().filter_map(|p| p.path.as_deref()).collect();
    assert_eq!((pins.len(), paths), (3, [&path_a, &path_b, &path_c].map(String::as_str).into()));

    let (target_a, target_b) = (site.target(&path_a), site.target(&path_b));
    site.target(&path_c);
    let other = site.target("/other/mount");
    fs::write(other.join("mine"), "keep").unwrap();
    fs::write(target_a.join("stale"), "goes, with --delete").unwrap();
    let step = Restore {
        host: "host-0".into(),
        snapshots: pins,
        mounts: strings(&[&path_a, &path_b, &path_c, "/other/mount"]),
        args: strings(&["--delete"]),
        ..Restore::default()
    };
    let restored = site.run(Step::Restore(step)).restored();
    assert_eq!(restored.planned, Counts { files: 5, bytes: 12_000 });
    assert!(target_a.join("one").exists() && target_b.join("two").exists());
    assert!(!target_a.join("stale").exists());
    assert!(other.join("mine").exists(), "--delete reached another mount");
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_snapshot_of_several_paths_is_restored_whole_and_one_that_is_gone_is_said() {
    let site = Site::new();
    let ((a, path_a), (b, path_b)) = (site.data("a"), site.data("b"));
    write_noise(&a.join("one"), 5000, 1);
    write_noise(&b.join("two"), 7000, 2);
    let backup = site.restic(&["backup", "--host", "host-0", &path_a, &path_b]).output().unwrap();
    assert!(backup.status.success());
    let whole = Restore { snapshots: vec![], ..site.step(&[&path_a, &path_b]) };
    let query = HostQuery {
        host: "host-0".into(),
        source_host: "host-0".into(),
        snapshots: vec!["latest".into()],
        mounts: whole.mounts.clone(),
        ..HostQuery::default()
    };
    let snapshots = site.resolve(query).hosts()[0].snapshots.clone();
    assert_eq!((snapshots.len(), &snapshots[0].path), (1, &None), "its paths are looked up");
    let whole = Restore { snapshots, ..whole };
    let targets = [site.target(&path_a), site.target(&path_b)];
    site.run(Step::Restore(whole.clone())).restored();
    assert!(targets[0].join("one").exists() && targets[1].join("two").exists());

    let part = site.step(&[&path_a]);
    assert_eq!(part.snapshots[0].path.as_deref(), Some(path_a.as_str()));
    assert!(site.restic(&["forget", &whole.snapshots[0].id]).status().unwrap().success());
    for step in [whole, part] {
        site.run(Step::Restore(step)).failed(Class::Data, reason::SNAPSHOT_NOT_FOUND);
    }
}

// A03
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn nothing_to_restore_is_a_failure_unless_it_is_allowed() {
    let site = Site::new();
    let (data, path) = site.data("data");
    let missing = site.resolve(HostQuery {
        source_host: "host-0".into(),
        paths: strings(&[&path]),
        mounts: strings(&[&path]),
        ..HostQuery::default()
    });
    let failure = missing.hosts()[0].failure.clone().unwrap();
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Data, reason::SNAPSHOT_NOT_FOUND));

    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let step = site.step(&[&path]);
    site.run(Step::Restore(step.clone())).failed(Class::Data, reason::NOTHING_TO_RESTORE);
    site.run(Step::Restore(Restore { allow_empty: true, ..step })).restored();

    fs::write(data.join("a.txt"), "a").unwrap();
    site.backup("host-0", &[&path]);
    let none = Restore { include: strings(&["*.json"]), ..site.step(&[&path]) };
    site.run(Step::Restore(none.clone())).failed(Class::Data, reason::NOTHING_TO_RESTORE);
    let empty = site.run(Step::Restore(Restore { allow_empty: true, ..none.clone() })).restored();
    assert_eq!(empty.planned, Counts::default());
    let elsewhere = Restore { include: strings(&["/elsewhere/*"]), ..none };
    site.run(Step::Restore(elsewhere)).failed(Class::Data, reason::NOTHING_TO_RESTORE);
    let excluded = Restore { exclude: strings(&["*.txt"]), ..site.step(&[&path]) };
    site.run(Step::Restore(excluded)).failed(Class::Data, reason::NOTHING_TO_RESTORE);
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);

    // A path that the snapshot could hold and does not.
    let gone = format!("{path}/gone");
    site.target(&gone);
    let step = Restore { mounts: strings(&[&path]), ..site.step(&[&gone]) };
    site.run(Step::Restore(step)).failed(Class::Data, reason::NOTHING_TO_RESTORE);

    // An empty file that was backed up by itself is something.
    fs::write(data.join("lone"), "").unwrap();
    let lone = format!("{path}/lone");
    site.backup("host-0", &[&lone]);
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: strings(&[&lone]),
        mounts: strings(&[&path]),
        ..HostQuery::default()
    };
    let snapshots = site.resolve(query).hosts()[0].snapshots.clone();
    site.run(Step::Restore(Restore { snapshots, mounts: strings(&[&path]), ..Restore::default() })).restored();
    assert!(target.join("lone").exists());
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn enospc_is_refused_before_anything_is_written() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 12 << 20, 3);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let _small = Tmpfs::mount(&target);
    let ended = site.run(Step::Restore(site.step(&[&path])));
    let failure = ended.failed(Class::Data, reason::NO_SPACE);
    assert!(
        failure.message.contains("12582912") && failure.message.contains("Nothing was written"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
}

/// The race: what was free when we looked is gone when restic writes.
/// Proves: A05.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn enospc_while_writing_is_a_failure_with_honest_counts() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    for n in 0..12 {
        write_noise(&data.join(format!("file-{n}")), 512 << 10, n);
    }
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let _small = Tmpfs::mount(&target);
    // Stands for another writer: fills the volume at the moment the dry run is over.
    let thief = site.path("thief");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" restore \"*) case \" $* \" in *dry-run*) ;; *) head -c 6500000 /dev/zero > '{}/stolen';; esac;; esac\nexec '{}' \"$@\"\n",
        target.display(),
        restic()
    );
    fs::write(&thief, script).unwrap();
    fs::set_permissions(&thief, PermissionsExt::from_mode(0o755)).unwrap();
    let task = site.task(Step::Restore(site.step(&[&path])));
    let _ = fs::remove_file(site.path("outcome"));
    let ended = site.finish(site.command(&task.encode(), &[]).env("LIFEBOAT_RESTIC", &thief).spawn().unwrap());
    let failure = ended.failed(Class::Data, reason::NO_SPACE);
    assert!(failure.exit_code == Some(1), "{failure:?}");
    let Some(Answer::Restored(counts)) = &ended.outcome.answer else { panic!() };
    assert!(counts.errors > 0 && counts.restored.files < counts.planned.files, "{counts:?}");
    assert!(counts.restored.bytes < 2 << 20, "{counts:?}");
}

// A06
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn only_what_the_rules_select_is_restored() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for name in ["a.json", "b.json", "c.txt", "sub/d.json", "sub/e.txt", "sub/deep/f.json", "other/g.json"] {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), name).unwrap();
    }
    site.backup("host-0", &[&path]);
    let mount = path.clone();
    let files = |path: &str, include: &[&str], exclude: &[&str]| {
        let target = site.target(&mount);
        fs::remove_dir_all(&target).unwrap();
        fs::create_dir_all(&target).unwrap();
        let step = Restore {
            include: strings(include),
            exclude: strings(exclude),
            mounts: vec![mount.clone()],
            ..site.step(&[path])
        };
        site.run(Step::Restore(step)).restored();
        describe(&target)
            .into_iter()
            .filter(|(_, l)| l.contains("sha256"))
            .map(|(p, _)| p[2..].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(files(&path, &["*.json"], &[]), ["a.json", "b.json", "other/g.json", "sub/d.json", "sub/deep/f.json"]);
    assert_eq!(files(&path, &[&format!("{path}/*.json")], &[]), ["a.json", "b.json"]);
    assert_eq!(files(&path, &["*.json"], &["b.*", "/**/deep"]), ["a.json", "other/g.json", "sub/d.json"]);
    assert_eq!(files(&path, &[], &["*.json"]), ["c.txt", "sub/e.txt"]);
    assert_eq!(files(&path, &[], &["*.json", "!a.json"]), ["a.json", "c.txt", "sub/e.txt"]);
    let sub = format!("{path}/sub");
    assert_eq!(files(&sub, &[], &[]), ["sub/d.json", "sub/deep/f.json", "sub/e.txt"]);
    assert_eq!(files(&sub, &["*.json"], &[]), ["sub/d.json", "sub/deep/f.json"]);
    assert_eq!(files(&sub, &["sub/*.txt"], &[]), ["sub/e.txt"]);
    assert_eq!(files(&sub, &[], &["deep"]), ["sub/d.json", "sub/e.txt"]);
}

/// Proves: scenario 20.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_a_backup_leaves_out_is_not_in_it() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for name in ["kept.txt", "left.tmp", "cache/left.txt"] {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), name).unwrap();
    }
    let exclude = strings(&["*.tmp", &format!("{path}/cache")]);
    let step = Backup { host: "host-0".into(), paths: strings(&[&path]), exclude, ..Backup::default() };
    site.run(Step::Backup(step)).answer();
    let restore = site.step(&[&path]);
    let target = site.target(&path);
    site.run(Step::Restore(restore)).restored();
    let names: Vec<_> = fs::read_dir(target).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["kept.txt"]);
}

/// Proves: defect 7, invented 15.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn hosts_never_get_each_others_data() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("f"), "zero").unwrap();
    let zero = site.backup("host-0", &[&path]);
    fs::write(data.join("f"), "one").unwrap();
    let one = site.backup("host-1", &[&path]);
    let ask = |source: &str, snapshots: &[&str]| {
        let query = HostQuery {
            host: "host-5".into(),
            source_host: source.into(),
            snapshots: strings(snapshots),
            mounts: vec![path.clone()],
            ..HostQuery::default()
        };
        site.resolve(query).hosts()[0].clone()
    };
    assert_eq!(ask("host-0", &["latest"]).snapshots[0].id, zero[0].id);
    assert_eq!(ask("host-1", &[&one[0].id[..8]]).snapshots[0].id, one[0].id);
    let failure = ask("host-0", &[&one[0].id]).failure.unwrap();
    assert_eq!(failure.reason, reason::SNAPSHOT_OF_ANOTHER_HOST);
    assert!(failure.message.contains("host-0") && failure.message.contains("host-1"));
    let failure = ask("host-7", &["latest"]).failure.unwrap();
    assert!(failure.message.contains("host-1"), "{}", failure.message);
    let outside = HostQuery {
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: strings(&["/elsewhere"]),
        ..HostQuery::default()
    };
    assert_eq!(site.resolve(outside).hosts()[0].failure.as_ref().unwrap().reason, reason::PATH_OUTSIDE_MOUNTS);
    // The restore step does not take the preflight's word for it.
    let step = Restore { mounts: strings(&["/elsewhere"]), ..site.step(&[&path]) };
    site.target("/elsewhere");
    site.run(Step::Restore(step)).failed(Class::Invalid, reason::PATH_OUTSIDE_MOUNTS);
}

/// Proves: defect 12.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_is_wrong_with_the_repository_is_said() {
    let site = Site::empty();
    let look = || site.run(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    assert_eq!(look().failed(Class::Invalid, reason::REPOSITORY_MISSING).exit_code, Some(10));
    site.run(Step::Prepare(Prepare {})).answer();
    assert_eq!(*site.run(Step::Prepare(Prepare {})).answer(), Answer::Prepared { created: false });

    fs::write(site.path("secret/RESTIC_PASSWORD"), "something else").unwrap();
    assert_eq!(look().failed(Class::Invalid, reason::WRONG_PASSWORD).exit_code, Some(12));
    // A password that does not open is never a reason to create.
    site.run(Step::Prepare(Prepare {})).failed(Class::Invalid, reason::WRONG_PASSWORD);
    fs::write(site.path("secret/RESTIC_PASSWORD"), "").unwrap();
    assert!(look().failed(Class::Invalid, reason::SECRET_INCOMPLETE).message.contains("RESTIC_PASSWORD"));
    fs::remove_file(site.path("secret/RESTIC_PASSWORD")).unwrap();
    assert!(look().failed(Class::Invalid, reason::SECRET_INCOMPLETE).message.contains("RESTIC_PASSWORD"));
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_store_that_does_not_answer_is_said_at_once() {
    let site = Site::empty();
    fs::write(site.path("secret/AWS_ACCESS_KEY_ID"), "AKIA-not-for-the-log").unwrap();
    let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    task.repository.url = "s3:http://127.0.0.1:9/bucket/prefix".into();
    assert!(
        site.run_task(&task)
            .failed(Class::Invalid, reason::SECRET_INCOMPLETE)
            .message
            .contains("AWS_SECRET_ACCESS_KEY")
    );
    fs::write(site.path("secret/AWS_SECRET_ACCESS_KEY"), "secret-not-for-the-log").unwrap();
    let started = Instant::now();
    let ended = site.run_task(&task);
    let failure = ended.failed(Class::Transient, reason::REPOSITORY_UNREACHABLE);
    assert!(failure.message.contains("127.0.0.1:9") && !failure.message.contains("not-for-the-log"));
    assert!(!ended.log.contains("not-for-the-log"));
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// A store that answers every request with the same: status and S3 error code. Gives its address
/// and what it was asked.
fn store(status: &'static str, code: &'static str) -> (std::net::SocketAddr, std::sync::mpsc::Receiver<String>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
                while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                    match stream.read(&mut buffer) {
                        Ok(n) if n > 0 => request.extend_from_slice(&buffer[..n]),
                        _ => return,
                    }
                }
                let body = format!(
                    "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>told by the test</Message></Error>"
                );
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let is_head = request.starts_with(b"HEAD");
                let _ = tell.send(String::from_utf8_lossy(&request).into_owned());
                let _ = stream.write_all(head.as_bytes());
                if !is_head {
                    let _ = stream.write_all(body.as_bytes());
                }
            });
        }
    });
    (at, asked)
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn the_keys_of_the_secret_reach_the_store_and_its_refusal_the_user() {
    let site = Site::empty();
    fs::write(site.path("secret/AWS_ACCESS_KEY_ID"), "AKIDEXAMPLE\n").unwrap();
    fs::write(site.path("secret/AWS_SECRET_ACCESS_KEY"), "not#for;the\"log").unwrap();
    fs::write(site.path("secret/AWS_SESSION_TOKEN"), "odd #token; with\"quotes").unwrap();
    let ask = |status, code| {
        let (at, asked) = store(status, code);
        let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
        task.repository = RepositoryAccess {
            url: format!("s3:http://{at}/bucket/prefix"),
            region: Some("eu-test-1".into()),
            insecure_tls: false,
            secret: None,
        };
        let ended = site.run_task(&task);
        assert!(!ended.log.contains("not#for;the"), "{}", ended.log);
        (ended, asked.try_iter().collect::<Vec<_>>())
    };
    let (ended, asked) = ask("403 Forbidden", "AccessDenied");
    ended.failed(Class::Invalid, reason::ACCESS_DENIED);
    let request = &asked.iter().find(|r| r.contains("/bucket/")).unwrap_or_else(|| panic!("{asked:?}"));
    assert!(request.contains("Credential=AKIDEXAMPLE/"), "{request}");
    assert!(request.contains("/eu-test-1/s3/"), "{request}");
    assert!(request.to_lowercase().contains("x-amz-security-token: odd #token; with\"quotes"), "{request}");
    let (ended, _) = ask("404 Not Found", "NoSuchBucket");
    let failure = ended.failed(Class::Invalid, reason::REPOSITORY_MISSING);
    assert!(failure.message.contains("bucket"), "{}", failure.message);
}

/// Proves: A08.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_certificate_that_is_not_trusted_is_said_and_a_ca_helps() {
    let site = Site::empty();
    fs::write(site.path("secret/AWS_ACCESS_KEY_ID"), "AKIDEXAMPLE").unwrap();
    fs::write(site.path("secret/AWS_SECRET_ACCESS_KEY"), "not-for-the-log").unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let at = listener.local_addr().unwrap();
    let (behind, _asked) = store("403 Forbidden", "AccessDenied");
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(stream).await else { return };
                let mut plain = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
            });
        }
    });
    let mut task = site.task(Step::Preflight(Preflight { hosts: vec![], ..Preflight::default() }));
    task.repository.url = format!("s3:https://{at}/bucket");
    let started = Instant::now();
    site.run_task(&task).failed(Class::Invalid, reason::TLS_NOT_TRUSTED);
    assert!(started.elapsed() < Duration::from_secs(30), "told after {:?}", started.elapsed());
    fs::write(site.path("secret/CA_CERT_DATA"), made.cert.pem()).unwrap();
    site.run_task(&task).failed(Class::Invalid, reason::ACCESS_DENIED);
    fs::remove_file(site.path("secret/CA_CERT_DATA")).unwrap();
    task.repository.insecure_tls = true;
    site.run_task(&task).failed(Class::Invalid, reason::ACCESS_DENIED);
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_damaged_pack_is_data_and_the_rest_is_salvaged() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 40 << 20, 5);
    for n in 0..20 {
        write_noise(&data.join(format!("small-{n}")), 20_000, 100 + n);
    }
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    site.target(&path);

    let pack = site.packs().remove(0);
    let mut bytes = fs::read(&pack).unwrap();
    let good = bytes.clone();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0xAA);
    replace(&pack, &bytes);
    let ended = site.run(Step::Restore(step.clone()));
    ended.failed(Class::Data, reason::DATA_CORRUPT);
    let Some(Answer::Restored(counts)) = &ended.outcome.answer else { panic!() };
    assert!(counts.errors > 0 && counts.restored.files + 1 == counts.planned.files, "{counts:?}");
    let Answer::Maintained(facts) = site.run(Step::Maintain(Maintain::default())).outcome.answer.unwrap() else {
        panic!()
    };
    assert_eq!(facts.integrity, Some(true), "a check without reading data cannot see flipped bytes");

    replace(&pack, &good[..good.len() / 2]);
    site.run(Step::Restore(step.clone())).failed(Class::Data, reason::DATA_CORRUPT);

    fs::remove_file(&pack).unwrap();
    let ended = site.run(Step::Restore(step));
    ended.failed(Class::Data, reason::DATA_CORRUPT);
    let ended = site.run(Step::Maintain(Maintain::default()));
    ended.failed(Class::Data, reason::DATA_CORRUPT);
    let Some(Answer::Maintained(facts)) = &ended.outcome.answer else { panic!() };
    assert_eq!(facts.integrity, Some(false));
    replace(&pack, &good);
    site.run(Step::Maintain(Maintain::default())).answer();
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_tree_that_is_gone_is_data_and_nothing_is_written() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 10, 5);
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    let target = site.target(&path);
    let _ = fs::remove_dir_all(site.path("work"));
    for pack in site.packs() {
        fs::remove_file(pack).unwrap();
    }
    site.run(Step::Restore(step)).failed(Class::Data, reason::DATA_CORRUPT);
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
}

/// Proves: C10, defect 11, invented 12.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_live_command_that_removes_data_is_waited_for_and_a_dead_ones_lock_is_not() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 2_000_000, 5);
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    site.target(&path);
    // A check holds an exclusive lock, as a prune does; it is alive, so nobody may call it stale.
    let slow = ["check", "--read-data", "--limit-download", "20"];
    let mut child = site.restic(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| site.locks() > 0);
    let query = HostQuery {
        host: "host-0".into(),
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: vec![path.clone()],
        ..HostQuery::default()
    };
    let ended = site.resolve(query.clone());
    let failure = ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
    assert!(failure.message.contains("removes no live lock"), "{}", failure.message);
    // What is running already goes on.
    site.run(Step::Restore(step)).restored();
    assert_eq!(site.locks(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(site.locks(), 1, "killed, it leaves its lock");
    // Half an hour later.
    let later = site.path("later");
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" cat lock \"*) '{0}' \"$@\" | sed 's/\"time\": \"20../\"time\": \"2001/';; *) exec '{0}' \"$@\";; esac\n",
        restic()
    );
    fs::write(&later, script).unwrap();
    fs::set_permissions(&later, PermissionsExt::from_mode(0o755)).unwrap();
    let task = site.task(Step::Preflight(Preflight { hosts: vec![query], ..Preflight::default() })).encode();
    let _ = fs::remove_file(site.path("outcome"));
    let ended = site.finish(site.command(&task, &[]).env("LIFEBOAT_RESTIC", &later).spawn().unwrap());
    assert_eq!(ended.hosts()[0].failure, None);
    assert_eq!(site.locks(), 1);
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_truncated_index_is_data_and_nothing_is_written() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 100_000, 5);
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    let target = site.target(&path);
    let _ = fs::remove_dir_all(site.path("work"));
    for index in fs::read_dir(site.path("repo/index")).unwrap() {
        let index = index.unwrap().path();
        let bytes = fs::read(&index).unwrap();
        replace(&index, &bytes[..bytes.len() / 2]);
    }
    site.run(Step::Restore(step)).failed(Class::Data, reason::DATA_CORRUPT);
    assert_eq!(fs::read_dir(target).unwrap().count(), 0);
}

/// Proves: A05.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_sparse_file_needs_the_room_of_its_data_only() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("image"), 100_000, 7);
    fs::File::options().write(true).open(data.join("image")).unwrap().set_len(200 << 20).unwrap();
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let _small = Tmpfs::mount(&target);
    fs::create_dir_all(site.path("work")).unwrap();
    site.run(Step::Restore(site.step(&[&path]))).restored();
    assert_eq!(fs::metadata(target.join("image")).unwrap().len(), 200 << 20);
    assert_equal(&describe(&data), &target);
}

/// Proves: A09.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn owners_may_be_ignored_and_are_asked_about_before_the_workload_is_down() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::create_dir(data.join("folder")).unwrap();
    fs::write(data.join("folder/roots"), "x").unwrap();
    symlink("folder/roots", data.join("link")).unwrap();
    site.backup("host-0", &[&path]);
    let query = HostQuery {
        host: "host-0".into(),
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: vec![path.clone()],
        runner: Some(Runner { uid: 65_534, gids: vec![65_534] }),
        ..HostQuery::default()
    };
    let ended = site.resolve(query.clone());
    let failure = ended.hosts()[0].failure.as_ref().expect("not theirs");
    assert_eq!((failure.class, failure.reason.as_str()), (Class::Invalid, reason::OWNERSHIP));
    assert!(failure.message.contains("ownership: Ignore"), "{}", failure.message);
    let root = HostQuery { runner: Some(Runner { uid: 0, gids: vec![0] }), ..query };
    assert_eq!(site.resolve(root).hosts()[0].failure, None, "all of it is root's");

    let step = Restore { ignore_owners: true, ..site.step(&[&path]) };
    let target = site.target(&path);
    give_to(&site, 65_534, &target);
    // The mount point as a volume with an fsGroup has it: not ours, but writable.
    std::os::unix::fs::chown(&target, Some(0), Some(65_534)).unwrap();
    fs::set_permissions(&target, PermissionsExt::from_mode(0o2775)).unwrap();
    fs::write(site.path("outcome"), "").unwrap();
    fs::set_permissions(site.path("outcome"), PermissionsExt::from_mode(0o666)).unwrap();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let ended = site.finish(site.command(&site.task(Step::Restore(step)).encode(), &user).spawn().unwrap());
    ended.restored();
    assert_eq!(fs::metadata(target.join("folder/roots")).unwrap().uid(), 65_534);
    assert_eq!(fs::read_to_string(target.join("link")).unwrap(), "x");
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn cache_and_temporary_files_go_to_the_interim_volume() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("f"), "x").unwrap();
    site.backup("host-0", &[&path]);
    fs::remove_dir_all(site.path("work")).unwrap();
    fs::create_dir(site.path("interim")).unwrap();
    let _ = fs::remove_file(site.path("outcome"));
    let mut task = site.task(Step::Maintain(Maintain::default()));
    task.settings.interim = true;
    let child = site.command(&task.encode(), &[]).env("LIFEBOAT_INTERIM_DIR", site.path("interim")).spawn().unwrap();
    site.finish(child).answer();
    assert!(fs::read_dir(site.path("interim/data/cache")).unwrap().count() > 0, "the cache is there");
    assert!(!site.path("work/cache").exists() && !site.path("work/tmp").exists());
    let all = Command::new("grep").args(["-r", "-l", PASSWORD]).arg(site.path("interim")).output().unwrap();
    assert!(all.stdout.is_empty(), "no secret outlives the pod");
}

/// Proves: C08.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn told_to_stop_it_ends_and_says_so() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 30 << 20, 5);
    site.backup("host-0", &[&path]);
    site.target(&path);
    let slow = Restore { args: strings(&["--limit-download", "500"]), ..site.step(&[&path]) };
    let task = site.task(Step::Restore(slow));
    let _ = fs::remove_file(site.path("outcome"));
    let child = site.command(&task.encode(), &[]).spawn().unwrap();
    let restic = wait_for_restic(child.id(), "restore");
    let started = Instant::now();
    kill(child.id(), "TERM");
    let ended = site.finish(child);
    ended.failed(Class::Transient, reason::TERMINATED);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert!(!Path::new(&format!("/proc/{restic}")).exists(), "restic is still there");
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn no_secret_is_where_others_can_read_it() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("big"), 64 << 20, 5);
    site.backup("host-0", &[&path]);
    site.target(&path);
    let port = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap();
    let slow = Restore { args: strings(&["--limit-download", "4000"]), ..site.step(&[&path]) };
    let task = site.task(Step::Restore(slow)).encode();
    let mut command = site.command(&task, &[]);
    command.env("MARK_OF_THE_PARENT", "leaks").env("LIFEBOAT_PROGRESS_PORT", port.to_string());
    let child = command.spawn().unwrap();
    // The dry run comes first; wait for the run that writes.
    let restic = wait_for_restic(child.id(), "--sparse");
    let read =
        |file: &str| String::from_utf8_lossy(&fs::read(format!("/proc/{restic}/{file}")).unwrap()).replace('\0', "\n");
    let (argv, env) = (read("cmdline"), read("environ"));
    assert!(argv.contains("--no-lock") && argv.contains("--password-file"), "{argv}");
    for text in [&argv, &env] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    let names: Vec<_> = env.lines().filter_map(|l| l.split('=').next()).filter(|n| !n.is_empty()).collect();
    for name in &names {
        assert!(
            [
                "PATH",
                "HOME",
                "TMPDIR",
                "TZ",
                "RESTIC_PROGRESS_FPS",
                "SSL_CERT_FILE",
                "SSL_CERT_DIR",
                "GOMEMLIMIT",
                "GOMAXPROCS",
                "GOGC"
            ]
            .contains(name)
                || name.to_lowercase().ends_with("_proxy"),
            "{name} is passed on"
        );
    }
    // Progress is there for whoever asks.
    let mut seen = Progress::default();
    wait_for(|| {
        seen = get_progress(port).unwrap_or_default();
        seen.bytes_done > 0
    });
    assert_eq!(seen.bytes_total, 64 << 20);
    kill(child.id(), "TERM");
    let ended = site.finish(child);
    for line in ended.log.lines().filter(|l| l.starts_with('{')) {
        assert!(line.contains("run-1"), "a line without the run: {line}");
    }
    assert!(ended.log.contains(r#""step":"restore""#) && ended.log.contains(r#""host":"host-0""#));
}

/// Proves: A09.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn owners_that_cannot_be_given_are_refused_before_anything_is_written() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("mine"), "x").unwrap();
    std::os::unix::fs::chown(data.join("mine"), Some(65_534), Some(65_534)).unwrap();
    fs::write(data.join("roots"), "x").unwrap();
    site.backup("host-0", &[&path]);
    let step = site.step(&[&path]);
    let target = site.target(&path);
    give_to(&site, 65_534, &target);
    let run = |step: &Restore, wrapper: &[&str]| {
        let _ = fs::remove_file(site.path("outcome"));
        fs::write(site.path("outcome"), "").unwrap();
        fs::set_permissions(site.path("outcome"), PermissionsExt::from_mode(0o666)).unwrap();
        site.finish(site.command(&site.task(Step::Restore(step.clone())).encode(), wrapper).spawn().unwrap())
    };
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let ended = run(&step, &user);
    let failure = ended.failed(Class::Invalid, reason::OWNERSHIP);
    assert!(
        failure.message.contains("roots") && failure.message.contains("0:0") && failure.message.contains("runAsUser"),
        "{}",
        failure.message
    );
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);

    // What is not selected does not count: with only our own files it works.
    let own = Restore { include: strings(&["mine"]), ..step.clone() };
    run(&own, &user).restored();
    assert_eq!(fs::metadata(target.join("mine")).unwrap().uid(), 65_534);

    // Root without the capability is no better off.
    let bare = ["setpriv", "--bounding-set=-chown", "--inh-caps=-all"];
    let foreign = Restore { include: strings(&["mine"]), ..step.clone() };
    run(&foreign, &bare).failed(Class::Invalid, reason::OWNERSHIP);

    // A mount that cannot be written.
    std::os::unix::fs::chown(&target, Some(0), Some(0)).unwrap();
    fs::set_permissions(&target, PermissionsExt::from_mode(0o755)).unwrap();
    run(&own, &user).failed(Class::Invalid, reason::PERMISSION_DENIED);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_backup_of_what_is_not_there_backs_up_nothing() {
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("f"), "x").unwrap();
    let gone = format!("{path}-gone");
    let step = Backup { host: "host-0".into(), paths: strings(&[&path, &gone]), ..Backup::default() };
    let ended = site.run(Step::Backup(step));
    assert!(ended.failed(Class::Invalid, reason::PATH_NOT_FOUND).message.contains(&gone));
    assert_eq!(fs::read_dir(site.path("repo/snapshots")).unwrap().count(), 0);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_backup_that_misses_files_is_reported_and_fails() {
    need_root();
    let site = Site::new();
    let (data, path) = site.data("data");
    fs::write(data.join("open"), "x").unwrap();
    fs::write(data.join("closed"), "x").unwrap();
    fs::set_permissions(data.join("closed"), PermissionsExt::from_mode(0o000)).unwrap();
    symlink("open", data.join("link")).unwrap();
    give_to(&site, 65_534, &data);
    let step = Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() };
    let whole = site.backup("host-0", &[&path]);
    give_to(&site, 65_534, &data);
    fs::write(site.path("outcome"), "").unwrap();
    fs::set_permissions(site.path("outcome"), PermissionsExt::from_mode(0o666)).unwrap();
    std::os::unix::fs::chown(data.join("closed"), Some(0), Some(0)).unwrap();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let task = site.task_of("run-2", Step::Backup(step.clone()));
    let ended = site.finish(site.command(&task.encode(), &user).spawn().unwrap());
    let failure = ended.failed(Class::Data, reason::PERMISSION_DENIED);
    assert_eq!(failure.exit_code, Some(3));
    assert!(failure.message.contains("closed"), "{}", failure.message);
    assert!(!failure.message.contains("could not be marked"), "{}", failure.message);
    let Some(Answer::BackedUp(made)) = &ended.outcome.answer else { panic!() };
    assert_eq!(made[0].id.len(), 64);
    assert!(site.path("repo/snapshots").join(&made[0].id).exists(), "what is reported is what is there");
    // It is not the newest backup, but there for who asks for it.
    assert_eq!(site.latest("host-0", &[&path]), [whole[0].id.clone()]);
    assert_eq!(site.step(&[&path]).snapshots[0].id, whole[0].id);
    let named = HostQuery {
        source_host: "host-0".into(),
        snapshots: vec![made[0].id.clone()],
        mounts: strings(&[&path]),
        ..HostQuery::default()
    };
    assert_eq!(site.resolve(named).hosts()[0].snapshots[0].id, made[0].id);

    // Where marking fails, that is said.
    let script =
        r#"case " $* " in *" backup "*) "$RESTIC" "$@"; exit 3;; *" tag "*) exit 1;; esac; exec "$RESTIC" "$@""#;
    let ended = site.run_through(script, &site.task_of("run-3", Step::Backup(step)));
    let failure = ended.failed(Class::Data, reason::INCOMPLETE);
    assert!(failure.message.contains("restic tag --add lifeboat.incomplete"), "{}", failure.message);
}

/// Proves: A02.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn half_a_backup_is_not_the_newest() {
    let site = Site::new();
    let (a, path_a) = site.data("a");
    let (_, path_b) = site.data("b");
    let step = Step::Backup(Backup { host: "host-0".into(), paths: strings(&[&path_a, &path_b]), ..Backup::default() });
    let whole = site.run_task(&site.task_of("run-1", step.clone()));
    let Answer::BackedUp(whole) = whole.answer() else { panic!() };
    let mut whole: Vec<String> = whole.iter().map(|s| s.id.clone()).collect();
    whole.sort();
    fs::write(a.join("new"), "new").unwrap();
    let script = format!("case \"$*\" in *' -- {path_b}') exit 1;; esac; exec \"$RESTIC\" \"$@\"");
    let half = site.run_through(&script, &site.task_of("run-2", step.clone()));
    half.failed(Class::Fatal, reason::RESTIC_FAILED);
    let Some(Answer::BackedUp(made)) = &half.outcome.answer else { panic!() };
    assert_eq!(made.len(), 1, "the first path is there");
    assert_eq!(site.latest("host-0", &[&path_a, &path_b]), whole);
    // Tried again, the run is whole.
    site.run_task(&site.task_of("run-2", step)).answer();
    assert_ne!(site.latest("host-0", &[&path_a, &path_b]), whole);
}

/// restic that does not wait for a lock.
const HASTY: &str = r#"for a in "$@"; do shift; [ "$a" = 2m ] && a=1s; set -- "$@" "$a"; done; exec "$RESTIC" "$@""#;

/// Proves: C10, defect 11.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn the_lock_of_a_dead_command_stops_no_backup_and_that_of_a_live_one_stays() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 2_000_000, 5);
    site.backup("host-0", &[&path]);
    let slow = ["check", "--read-data", "--limit-download", "20"];
    let mut child = site.restic(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| site.locks() > 0);
    let backup = Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() };
    let steps = [Step::Backup(backup), Step::Maintain(Maintain::default())];
    for step in &steps {
        let ended = site.run_through(HASTY, &site.task(step.clone()));
        let failure = ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
        assert!(failure.message.contains("never a live one"), "{}", failure.message);
        assert_eq!(site.locks(), 1, "the lock stays");
    }
    for step in &steps {
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(site.locks(), 1, "killed, it leaves its lock");
        site.run_through(HASTY, &site.task(step.clone())).answer();
        assert_eq!(site.locks(), 0);
        child = site.restic(&slow).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for(|| site.locks() > 0);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Proves: C10, defect 11.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn an_old_lock_is_removed_only_if_nobody_renews_it() {
    let site = Site::new();
    let (_, path) = site.data("data");
    let backup = Backup { host: "host-0".into(), paths: strings(&[&path]), ..Backup::default() };
    // The second list of locks has the name that `$NEXT` says; the lock is of another machine, and old by our clock.
    let run = |next: &str, age: &str| {
        for mark in ["listed", "unlocked"] {
            let _ = fs::remove_file(site.path(mark));
        }
        let here = site.dir.path().display();
        let script = format!(
            r#"case " $* " in
*" list locks "*) if [ -e {here}/listed ]; then echo {next}; else touch {here}/listed; echo aaaa; fi; exit;;
*" cat lock "*) echo '{{"time":"{age}","exclusive":true,"hostname":"elsewhere","pid":1}}'; exit;;
*" unlock "*) touch {here}/unlocked; exit;;
*" backup "*) [ -e {here}/unlocked ] || exit 11;;
esac
exec "$RESTIC" "$@""#
        );
        let ended = site.run_through(&script, &site.task(Step::Backup(backup.clone())));
        (ended, site.path("unlocked").exists())
    };
    let (ended, unlocked) = run("aaaa", "2001-01-01T00:00:00Z");
    ended.answer();
    assert!(unlocked);
    let (ended, unlocked) = run("bbbb", "2001-01-01T00:00:00Z");
    ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
    assert!(!unlocked, "somebody renews it: it is our clock that is wrong");
    let (ended, unlocked) = run("aaaa", "2999-01-01T00:00:00Z");
    ended.failed(Class::Transient, reason::REPOSITORY_LOCKED);
    assert!(!unlocked);
}

/// Proves: A04.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn what_a_prune_has_moved_meanwhile_is_read_again() {
    let site = Site::new();
    let (data, path) = site.data("data");
    write_noise(&data.join("f"), 100_000, 5);
    site.backup("host-0", &[&path]);
    let target = site.target(&path);
    let step = site.step(&[&path]);
    let restore = site.task(Step::Restore(step.clone()));
    let query = HostQuery {
        source_host: "host-0".into(),
        paths: vec![path.clone()],
        mounts: vec![path.clone()],
        runner: Some(Runner { uid: 0, gids: vec![0] }),
        ..HostQuery::default()
    };
    let preflight = site.task(Step::Preflight(Preflight { hosts: vec![query], ..Preflight::default() }));
    // A command of each kind meets an index that is out of date, so many times.
    let run = |pattern: &str, times: u32, task: &Task| {
        let count = site.path("count");
        fs::write(&count, "").unwrap();
        let script = format!(
            r#"case " $* " in {pattern})
if [ $(wc -c < {0}) -lt {times} ]; then printf x >> {0}
echo '{{"message_type":"error","error":{{"message":"Load(<data/1c2d3e4f>, 4242, 0): The specified key does not exist."}},"during":"restore","item":"{path}/f"}}' >&2
echo '{{"message_type":"exit_error","code":1,"message":"Fatal: There were 1 errors"}}' >&2
exit 1; fi;; esac
exec "$RESTIC" "$@""#,
            count.display()
        );
        let ended = site.run_through(&script, task);
        assert_eq!(
            fs::read(&count).unwrap().len(),
            usize::try_from(times.min(2)).unwrap(),
            "{pattern}
{}",
            ended.log
        );
        ended
    };
    for pattern in ["*' --dry-run '*", "*' --dry-run '*) ;; *' restore '*", "*' snapshots '*"] {
        assert_eq!(run(pattern, 1, &restore).restored().planned.files, 2, "{pattern}");
        fs::remove_file(target.join("f")).unwrap();
        run(pattern, 9, &restore).failed(Class::Data, reason::DATA_CORRUPT);
    }
    for pattern in ["*' ls '*", "*' snapshots '*"] {
        assert_eq!(run(pattern, 1, &preflight).hosts()[0].failure, None, "{pattern}");
    }
    let ended = run("*' ls '*", 9, &preflight);
    assert_eq!(ended.hosts()[0].failure.as_ref().unwrap().reason, reason::DATA_CORRUPT);
    // What a run has begun would stay as it is with these: not tried again.
    let keeps = site.task(Step::Restore(Restore { args: strings(&["--overwrite", "never"]), ..step }));
    let ended = run("*' --dry-run '*) ;; *' restore '*", 1, &keeps);
    ended.failed(Class::Data, reason::DATA_CORRUPT);
}

/// As on a bucket that lets nobody delete.
#[test]
#[ignore = "needs root and restic: make test-agent"]
fn retention_that_fails_is_told_beside_a_check_that_is_good() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for n in 0..3 {
        write_noise(&data.join("f"), 50_000, n);
        site.backup("host-0", &[&path]);
    }
    let own = vec![Own { path: path.clone(), hosts: strings(&["host-0"]) }];
    let maintain = |refused: &str, keep: i64| {
        let wrapper = site.path("refuses");
        let script = format!(
            "#!/bin/sh\ncase \" $* \" in *\" {refused} \"*) echo 'Fatal: unable to remove: Access Denied.' >&2; exit 1;; *) exec '{}' \"$@\";; esac\n",
            restic()
        );
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
        let retention = Retention { keep_last: Some(keep), prune: true, ..Retention::default() };
        let task = site.task(Step::Maintain(Maintain { own: own.clone(), retention })).encode();
        let _ = fs::remove_file(site.path("outcome"));
        let ended = site.finish(site.command(&task, &[]).env("LIFEBOAT_RESTIC", &wrapper).spawn().unwrap());
        let failure = ended.failure();
        assert!(!matches!(failure.class, Class::Transient | Class::Waiting), "no other try mends it: {failure:?}");
        let Some(Answer::Maintained(facts)) = ended.outcome.answer.clone() else { panic!("{:?}", ended.outcome) };
        facts
    };
    let facts = maintain("forget", 2);
    assert_eq!((facts.retained, facts.integrity, facts.removed), (false, Some(true), 0));
    assert_eq!(facts.snapshot_count, Some(3));
    let facts = maintain("prune", 2);
    assert_eq!((facts.retained, facts.integrity, facts.removed), (false, Some(true), 1));
    assert!(facts.snapshot_count == Some(2) && facts.total_bytes.is_some_and(|n| n > 0), "{facts:?}");
    let facts = maintain("stats", 2);
    assert_eq!((facts.retained, facts.integrity, facts.total_bytes), (true, Some(true), None));
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn retention_touches_only_its_own_hosts() {
    let site = Site::new();
    let (data, path) = site.data("data");
    for n in 0..4 {
        write_noise(&data.join("f"), 50_000, n);
        site.backup("host-0", &[&path]);
        site.backup("host-9", &[&path]);
    }
    // The same host, of another invoker: another path.
    let (_, other) = site.data("other");
    site.backup("host-0", &[&other]);
    let maintain = |hosts: &[&str], retention: Retention| {
        let own = vec![Own { path: path.clone(), hosts: strings(hosts) }];
        let ended = site.run(Step::Maintain(Maintain { own, retention }));
        let Answer::Maintained(facts) = ended.answer().clone() else { panic!() };
        facts
    };
    let keep = Retention { keep_last: Some(1), prune: true, ..Retention::default() };
    let facts = maintain(&["host-0"], Retention { dry_run: true, ..keep.clone() });
    assert_eq!((facts.removed, facts.would_remove, facts.snapshot_count), (0, Some(3), Some(9)));
    assert_eq!(maintain(&["host-0"], Retention::default()).snapshot_count, Some(9));
    assert_eq!(maintain(&[], keep.clone()).snapshot_count, Some(9));
    assert_eq!(maintain(&["host-5"], keep.clone()).snapshot_count, Some(9));
    let facts = maintain(&["host-0"], keep);
    assert_eq!((facts.removed, facts.would_remove, facts.snapshot_count), (3, None, Some(6)));
    assert_eq!((facts.integrity, facts.retained), (Some(true), true));
    assert!(facts.total_bytes.unwrap() > 0);
    let query = HostQuery {
        source_host: "host-9".into(),
        snapshots: vec!["latest".into()],
        mounts: vec![path],
        ..HostQuery::default()
    };
    assert_eq!(site.resolve(query).hosts()[0].failure, None);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_probe_opens_and_a_wipe_takes_all_of_this_repository_and_nothing_else() {
    let site = Site::empty();
    site.run(Step::Probe(Probe {})).failed(Class::Invalid, reason::REPOSITORY_MISSING);
    assert_eq!(*site.run(Step::Wipe(Wipe {})).answer(), Answer::Wiped { snapshots: 0 }, "nothing is there");
    let site = Site::new();
    assert_eq!(*site.run(Step::Probe(Probe {})).answer(), Answer::Probed);
    // As old Stash laid out the members of a BackupBatch: a repository below the prefix.
    let below = site.path("repo/deployment/web");
    let init = site.restic(&["init"]).args(["--repo", &below.to_string_lossy()]).output().unwrap();
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let before = describe(&below);
    let (_, a) = site.data("a");
    let (_, b) = site.data("b");
    site.backup("host-0", &[&a]);
    site.backup("host-1", &[&b]);
    assert!(!site.packs().is_empty());
    assert_eq!(*site.run(Step::Wipe(Wipe {})).answer(), Answer::Wiped { snapshots: 2 });
    assert!(site.packs().is_empty(), "no data is left");
    assert_eq!(fs::read_dir(site.path("repo/snapshots")).unwrap().count(), 0);
    assert_eq!(describe(&below), before, "what is another's stays");
    assert_eq!(*site.run(Step::Wipe(Wipe {})).answer(), Answer::Wiped { snapshots: 0 }, "twice is once");
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn nonsense_is_an_outcome_too() {
    let site = Site::empty();
    for task in [
        "",
        "{",
        r#"{"version":1}"#,
        r#"{"version":9,"run":{"id":"","kind":"","namespace":"","name":""},"repository":{"url":""},"step":{"prepare":{}}}"#,
    ] {
        let _ = fs::remove_file(site.path("outcome"));
        let ended = site.finish(site.command(task, &[]).spawn().unwrap());
        ended.failed(Class::Fatal, reason::AGENT_FAILED);
    }
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn priorities_and_no_cache_are_honoured() {
    let site = Site::empty();
    let mut task = site.task(Step::Prepare(Prepare {}));
    task.settings = Settings {
        no_cache: true,
        nice: Some(5),
        ionice_class: Some(2),
        ionice_class_data: Some(7),
        ..Settings::default()
    };
    assert_eq!(*site.run_task(&task).answer(), Answer::Prepared { created: true });
    assert_eq!(fs::read_dir(site.path("work/cache")).unwrap().count(), 0);
}

#[test]
#[ignore = "needs root and restic: make test-agent"]
fn a_restic_that_is_not_there_is_said() {
    let site = Site::empty();
    let task = site.task(Step::Prepare(Prepare {})).encode();
    let ended = site.finish(site.command(&task, &[]).env("LIFEBOAT_RESTIC", "/nonexistent/restic").spawn().unwrap());
    assert!(ended.failed(Class::Fatal, reason::AGENT_FAILED).message.contains("could not be started"));
}

/// Writes a file that restic made read-only.
fn replace(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

/// Lets another user work in the site.
fn give_to(site: &Site, uid: u32, target: &Path) {
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
    // The parents of the mount are the container's and stay root's.
    for parent in target.ancestors().skip(1).take_while(|p| p.starts_with(site.path("root"))) {
        fs::set_permissions(parent, PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::chown(target, Some(uid), Some(uid)).unwrap();
}

fn wait_for(mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(started.elapsed() < Duration::from_secs(90), "waited too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Process id of the restic that a process has started and that is past its dry run.
fn wait_for_restic(parent: u32, word: &str) -> u32 {
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

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().unwrap().success());
}

fn get_progress(port: u16) -> Option<Progress> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /progress HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split("\r\n\r\n").nth(1)?).ok()
}

/// An 8 MiB file system for as long as it lives.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("lifeboat-test"), at, Some("tmpfs"), flags, Some("size=8m")).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
