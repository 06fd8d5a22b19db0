//! Speed of data transfer: the agent as a Job runs it, compared with bare restic with the same flags, alternately; and
//! the effect of more connections where a store limits each of them. `make bench-data`; `docs/performance.md` explains
//! the figures.
//!
//! `ROUNDS=5` runs more rounds; `FILES`, `SMALL` and `LARGE` set the sizes of the three trees (files of 1 MiB, files of
//! 4 KiB, MiB of the one large file; 0 omits a tree), `THROTTLED` the number of files of 1 MiB behind the throttle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench ends where it cannot go on")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
#![allow(dead_code, reason = "shares the tests' helpers, and not all of them")]

#[path = "../support/figures.rs"]
mod figures;
mod store;
#[path = "../../tests/support/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use figures::quantile;
use lifeboat::contract::restic::{
    self, HostQuery, Pins, Preflight, RepositoryAccess, Restore, Restored, Settings, Step,
};
use lifeboat::contract::{Answer, Outcome, Part, Run, TASK_ENV, Task, Work};
use lifeboat::drivers::restic::tuning::Memory;
use store::{KEY, S3, Throttle};

const PASSWORD: &str = "bench";

fn main() {
    // `cargo test --all-targets` also runs benches; only `cargo bench` passes this argument.
    if !std::env::args().any(|a| a == "--bench") {
        return;
    }
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let rounds = number("ROUNDS", 3);
    let trees = [
        ("files of 1 MiB", number("FILES", 2000), 1 << 20),
        ("files of 4 KiB", number("SMALL", 50_000), 4 << 10),
        ("one large file", u64::from(number("LARGE", 4096) > 0), number("LARGE", 4096) << 20),
    ];
    let s3 = S3::start();
    for (name, count, size) in trees.into_iter().filter(|t| t.1 > 0) {
        for url in [None, Some(s3.url("whole"))] {
            let place = if url.is_some() { "S3" } else { "local" };
            let site = Site::new(url);
            site.fill(count, size);
            site.compare(&format!("{count} {name}, {place}"), rounds);
        }
    }
    connections(&s3, rounds, number("THROTTLED", 1200));
}

/// A repository, its Secret, data in it, and a place to restore to.
struct Site {
    dir: tempfile::TempDir,
    url: String,
    data: PathBuf,
}

impl Site {
    fn new(url: Option<String>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = url.unwrap_or_else(|| dir.path().join("repo").to_str().unwrap().to_owned());
        let data = dir.path().join("data");
        for folder in ["secret", "work", "data"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (name, value) in [("RESTIC_PASSWORD", PASSWORD), ("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", KEY)]
        {
            fs::write(dir.path().join("secret").join(name), value).unwrap();
        }
        Self { dir, url, data }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fill(&self, count: u64, size: u64) {
        for n in 0..count {
            let folder = self.data.join(format!("d{}", n / 500));
            fs::create_dir_all(&folder).unwrap();
            tree::write_noise(&folder.join(format!("f{n}")), size, n);
        }
        Self::ok(self.restic(&["init"]));
        Self::ok(self.restic(&["backup", "--host", "h", "--quiet", self.data.to_str().unwrap()]));
        fs::remove_dir_all(&self.data).unwrap();
    }

    /// restic with the flags of the agent.
    fn restic(&self, args: &[&str]) -> Command {
        let mut command = Command::new(std::env::var("LIFEBOAT_RESTIC").unwrap_or_else(|_| "restic".into()));
        command.args(["--repo", &self.url, "--password-file"]).arg(self.path("secret/RESTIC_PASSWORD"));
        command.args(["--cache-dir"]).arg(self.path("work/cache")).args(args);
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", KEY).env("RESTIC_PROGRESS_FPS", "1");
        command.stdout(Stdio::null());
        command
    }

    fn ok(command: Command) -> Ran {
        let shown = format!("{command:?}");
        let ran = run(command);
        assert!(ran.good, "{shown}");
        ran
    }

    fn agent(&self, step: Step) -> (Answer, Ran) {
        let of = Run { id: "r".into(), kind: "RestoreSession".into(), namespace: "n".into(), name: "s".into() };
        let part = Part { member: 0, name: "h".into() };
        let repository = RepositoryAccess { url: self.url.clone(), ..RepositoryAccess::default() };
        let verb = step.verb();
        let work = restic::Work { repository, settings: Settings::default(), step };
        let task = Task::new(of, verb, vec![part], Work::Restic(Box::new(work)));
        let mut command = Command::new(env!("CARGO_BIN_EXE_lifeboat"));
        command.arg("agent").env(TASK_ENV, task.encode()).args(["--progress-port", "0"]).stdout(Stdio::null());
        command.stderr(Stdio::null());
        for (name, folder) in
            [("secret-dir", "secret"), ("work-dir", "work"), ("restore-root", "root"), ("outcome-file", "outcome")]
        {
            command.arg(format!("--{name}")).arg(self.path(folder));
        }
        if let Ok(restic) = std::env::var("LIFEBOAT_RESTIC") {
            command.args(["--restic", &restic]);
        }
        let ran = run(command);
        let outcome = Outcome::decode(&fs::read_to_string(self.path("outcome")).unwrap()).unwrap();
        assert_eq!(outcome.failure, None);
        (outcome.answer.unwrap(), ran)
    }

    /// The restore with the snapshots that the preflight pins.
    fn pinned(&self) -> (Restore, Ran) {
        let data = vec![self.data.to_str().unwrap().to_owned()];
        let query =
            HostQuery { source_host: "h".into(), paths: data.clone(), mounts: data.clone(), ..HostQuery::default() };
        let (answer, ran) = self.agent(Step::Preflight(Preflight { hosts: vec![query], ..Preflight::default() }));
        let Answer::Found(hosts) = answer else { panic!("{answer:?}") };
        (Restore { snapshots: Pins::read(hosts[0].pin.as_ref()).snapshots, mounts: data, ..Restore::default() }, ran)
    }

    fn by_agent(&self, step: &Restore) -> Ran {
        let target = self.path("root").join(self.data.to_str().unwrap().trim_start_matches('/'));
        fs::create_dir_all(&target).unwrap();
        let (answer, ran) = self.agent(Step::Restore(step.clone()));
        let Answer::Did(did) = answer else { panic!("{answer:?}") };
        let restored = Restored::of(&did.tallies).unwrap();
        assert_eq!(restored.planned, restored.restored);
        remove(&self.path("root"));
        ran
    }

    /// Runs bare restic, with these global options.
    fn by_restic(&self, step: &Restore, options: &[String]) -> Ran {
        let target = self.path("bare");
        fs::create_dir_all(&target).unwrap();
        let mut args: Vec<&str> = options.iter().map(String::as_str).collect();
        args.extend(["restore", "--no-lock", "--json", "--sparse", "--target", target.to_str().unwrap()]);
        args.push(&step.snapshots[0].id);
        let ran = Self::ok(self.restic(&args));
        remove(&target);
        ran
    }

    /// Runs both alternately, so that a machine that slows down affects both.
    fn compare(&self, what: &str, rounds: u64) {
        let (step, preflight) = self.pinned();
        let (mut ours, mut bare, options) = (vec![], vec![], Memory::look().options(&self.url));
        // The first round fills caches.
        for round in 0..=rounds {
            // Each run starts after `sync`: it does not write back data of the other. The two take turns to go first.
            let agent = || {
                Self::ok(Command::new("sync"));
                self.by_agent(&step)
            };
            let restic = || {
                Self::ok(Command::new("sync"));
                self.by_restic(&step, &options)
            };
            let (a, b) = if round % 2 == 0 {
                (agent(), restic())
            } else {
                let b = restic();
                (agent(), b)
            };
            if round > 0 {
                ours.push(a);
                bare.push(b);
            }
        }
        let most = |all: &[Ran], of: fn(&Ran) -> f64| all.iter().map(of).fold(0.0, f64::max);
        let memory = format!(
            "agent {:.0}, its restic {:.0}, bare restic {:.0} MB",
            most(&ours, |r| r.own),
            most(&ours, |r| r.child),
            most(&bare, |r| r.own)
        );
        let [ours, bare] = [ours, bare].map(|v| median(&v));
        println!(
            "{what:<32} agent {ours:.2} s, bare restic {bare:.2} s: {:+.2} s, {:+.1} % (median of {rounds}; preflight {:.2} s; {memory})",
            ours - bare,
            (ours / bare - 1.0) * 100.0,
            preflight.took.as_secs_f64()
        );
    }
}

/// Result of a process: whether it exited with 0, its duration, and the peak memory of it and a child, in MB.
struct Ran {
    good: bool,
    took: Duration,
    own: f64,
    child: f64,
}

/// Runs a process, and samples its memory meanwhile.
fn run(mut command: Command) -> Ran {
    let begun = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut ran = Ran { good: false, took: Duration::ZERO, own: 0.0, child: 0.0 };
    for turn in 0u32.. {
        if let Some(status) = child.try_wait().unwrap() {
            (ran.good, ran.took) = (status.success(), begun.elapsed());
            break;
        }
        if turn % 20 == 0 {
            ran.own = ran.own.max(peak(child.id()));
            ran.child = children(child.id()).map(peak).fold(ran.child, f64::max);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    ran
}

/// Peak resident memory of a process, in MB of 10^6 bytes; 0 when the process is gone.
fn peak(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().map_or(0.0, |kib| kib.parse::<f64>().unwrap() * 1024.0 / 1e6)
}

fn children(parent: u32) -> impl Iterator<Item = u32> {
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    all.filter(move |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        after_name.split_whitespace().nth(1) == Some(&parent.to_string())
    })
}

fn median(all: &[Ran]) -> f64 {
    quantile(&all.iter().map(|r| r.took).collect::<Vec<_>>(), 0.5).as_secs_f64()
}

fn remove(path: &Path) {
    fs::remove_dir_all(path).unwrap();
}

/// A store that gives each connection 10 MB/s.
fn connections(s3: &S3, rounds: u64, files: u64) {
    const RATE: u64 = 10_000_000;
    let throttle = Throttle::start(s3.port, RATE);
    let mut site = Site::new(Some(s3.url("limited")));
    site.fill(files, 1 << 20);
    site.url = throttle.url("limited");
    let (step, _) = site.pinned();
    let (mut ours, mut bare) = (vec![], vec![]);
    for _ in 0..rounds {
        ours.push(site.by_agent(&step));
        bare.push(site.by_restic(&step, &[]));
    }
    let [ours, bare] = [ours, bare].map(|v| median(&v));
    println!(
        "{files} files of 1 MiB, 10 MB/s a connection: agent {ours:.2} s, restic's default of 5 connections {bare:.2} s: {:.1} times as fast",
        bare / ours
    );
}
