//! One supervised component: its process, its wanted state and its history.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::components::{Kind, Spec};
use crate::control::{Action, ComponentStatus};
use crate::error::{Context, Result};
use crate::layout::Place;

/// A process that does not follow a stop gets SIGKILL after this time. The API
/// server alone would take up to a minute while watches are open.
const GRACE: Duration = Duration::from_secs(3);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(5);
/// When a process that has run this long dies, its backoff starts anew.
const SETTLED: Duration = Duration::from_secs(20);
/// Pause before the next probe. The supervisor sees the end of a process without a probe, and each probe needs a TLS
/// handshake: probes every second took 2 % of the time of all processes during the end-to-end tests.
const PROBE_READY: Duration = Duration::from_secs(3);
const PROBE_STARTING: Duration = Duration::from_millis(60);

pub struct Component {
    pub spec: Spec,
    pub ready: bool,
    /// Was ready at least once, so that other components may start.
    pub was_ready: bool,
    pub reason: String,
    pub probing: bool,
    pub next_probe: Instant,
    wanted: bool,
    pid: Option<Pid>,
    started: Instant,
    /// Start time, by the clock that the cluster's objects are stamped with.
    pub started_at: Timestamp,
    kill_at: Option<Instant>,
    /// Told to end, so that its answers to probes no longer count.
    doomed: bool,
    not_before: Instant,
    backoff: Duration,
    restarts: u32,
    done: bool,
}

impl Component {
    pub fn new(spec: Spec) -> Self {
        let now = Instant::now();
        Self {
            spec,
            ready: false,
            was_ready: false,
            reason: "waits for others".into(),
            probing: false,
            next_probe: now,
            wanted: true,
            pid: None,
            started: now,
            started_at: Timestamp::now(),
            kill_at: None,
            doomed: false,
            not_before: now,
            backoff: BACKOFF_FIRST,
            restarts: 0,
            done: false,
        }
    }

    pub fn running(&self) -> Option<Pid> {
        self.pid
    }

    pub fn startable(&self) -> bool {
        self.wanted && !self.done && self.pid.is_none() && Instant::now() >= self.not_before
    }

    /// Starts the process, with its output in the component's log.
    pub fn start(&mut self, place: &Place) -> Result<()> {
        let path = place.log_of(&self.spec.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .context(format!("cannot write {}", path.display()))?;
        let errors = log.try_clone().context("cannot share a log")?;
        // The process dies with the supervisor, also when the supervisor is killed.
        let mut cmd = Command::new("setpriv");
        cmd.args(["--pdeathsig", "KILL"]);
        if self.spec.node > 1 {
            cmd.arg("nsenter");
            cmd.arg(format!("--net={}", place.netns_path(self.spec.node).display()));
        }
        let search = std::env::var("PATH").unwrap_or_default();
        let search = format!("{}:{search}:/usr/sbin:/sbin", place.home.bin().display());
        cmd.args(&self.spec.argv)
            .env("PATH", search)
            // Memory is cheaper here than the garbage collector's time, which Go's default spends on heaps this small.
            .env("GOGC", "400")
            // A developer's own kubeconfig must not leak in.
            .env_remove("KUBECONFIG")
            .current_dir(&place.dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        let child = cmd.spawn().context(format!("cannot start {}", self.spec.name))?;
        self.pid = i32::try_from(child.id()).ok().map(Pid::from_raw);
        self.started = Instant::now();
        self.started_at = Timestamp::now();
        self.next_probe = self.started;
        self.reason = "starting".into();
        Ok(())
    }

    /// Remembers that starting failed, and waits before the next attempt.
    pub fn failed_to_start(&mut self, reason: String) {
        self.reason = reason;
        self.wait_before_restart();
    }

    /// The process has ended.
    pub fn ended(&mut self, how: &str, success: bool) {
        self.pid = None;
        self.kill_at = None;
        self.doomed = false;
        self.ready = false;
        if self.spec.kind == Kind::Task && success {
            self.done = true;
            self.ready = true;
            self.was_ready = true;
            self.reason.clear();
            return;
        }
        if !self.wanted {
            "stopped on request".clone_into(&mut self.reason);
            return;
        }
        self.reason = format!("ended: {how}");
        self.restarts += 1;
        if self.started.elapsed() > SETTLED {
            self.backoff = BACKOFF_FIRST;
        }
        self.wait_before_restart();
    }

    fn wait_before_restart(&mut self) {
        self.not_before = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(BACKOFF_MOST);
    }

    pub fn probed(&mut self, outcome: Result<()>) {
        self.probing = false;
        // An answer that was under way when the process ended does not count.
        if self.pid.is_none() || self.doomed {
            return;
        }
        self.ready = outcome.is_ok();
        self.was_ready |= self.ready;
        self.reason = outcome.err().map(|e| e.to_string().lines().collect::<Vec<_>>().join("; ")).unwrap_or_default();
        self.next_probe = Instant::now() + if self.ready { PROBE_READY } else { PROBE_STARTING };
    }

    pub fn act(&mut self, action: Action) {
        match action {
            Action::Stop => {
                self.wanted = false;
                self.terminate();
            }
            Action::Start => {
                self.wanted = true;
                self.done = false;
                self.not_before = Instant::now();
            }
            Action::Restart => {
                self.act(Action::Stop);
                self.act(Action::Start);
            }
            Action::Kill => {
                self.doom();
                self.signal(Signal::SIGKILL);
            }
            Action::Pause => self.signal(Signal::SIGSTOP),
            Action::Resume => {
                // The component is ready again once it answers again.
                self.ready = false;
                self.next_probe = Instant::now();
                self.signal(Signal::SIGCONT);
            }
        }
    }

    fn doom(&mut self) {
        if self.pid.is_some() {
            self.doomed = true;
            self.ready = false;
            "ending".clone_into(&mut self.reason);
        }
    }

    fn terminate(&mut self) {
        self.doom();
        self.signal(Signal::SIGTERM);
        // A paused process would not handle SIGTERM.
        self.signal(Signal::SIGCONT);
        if self.pid.is_some() {
            self.kill_at = Some(Instant::now() + GRACE);
        }
    }

    /// Kills a process that was asked to end and did not.
    pub fn enforce(&mut self) {
        if self.kill_at.is_some_and(|at| Instant::now() > at) {
            self.kill_at = None;
            self.signal(Signal::SIGKILL);
        }
    }

    /// Only this program reaps the child, so the pid is not reused before that.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _ = kill(pid, signal);
        }
    }

    pub fn status(&self) -> ComponentStatus {
        let state = match (self.pid, self.done, self.wanted) {
            (Some(_), ..) if self.kill_at.is_some() => "stopping",
            (Some(_), ..) => "running",
            (None, true, _) => "done",
            (None, _, false) => "stopped",
            (None, _, true) if self.restarts > 0 => "restarting",
            (None, ..) => "waiting",
        };
        ComponentStatus {
            name: self.spec.name.clone(),
            state: state.into(),
            pid: self.pid.map(Pid::as_raw),
            restarts: self.restarts,
            ready: self.ready,
            reason: self.reason.clone(),
        }
    }
}
