//! Runs one restic command, with limits.
//!
//! Every command has its own process group and always ends: by itself, at its time limit, after too long without
//! progress, or when the agent stops. To end it early, SIGTERM is sent (restic then removes its lock), and after a
//! delay SIGKILL, always to the whole group; a process that does not end even then is abandoned. Output is not
//! interpreted here.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::drivers::restic::output::{Line, Lines, Message, Report, parse};

/// Timeout of a command that only reads metadata or creates a repository: long enough for slow storage, short enough
/// to report an error soon.
pub const LOOK: Duration = Duration::from_mins(2);
/// A command that transfers data is stuck if it makes no progress for this time. restic retries a failed request for
/// up to 15 minutes, so a shorter time would interrupt its own retries.
pub const STUCK: Duration = Duration::from_mins(15);
/// Time between SIGTERM and SIGKILL: less than Kubernetes' default grace period of 30 s.
const GRACE: Duration = Duration::from_secs(10);
/// Time for a process to end after SIGKILL, as a part of the time between the signals. A process that waits for a
/// volume ends only when the volume responds.
const GOES_IN: u32 = 2;
/// Time to read the remaining output after the command has ended.
const DRAIN: Duration = Duration::from_secs(2);
/// Interval between checks of limits.
const TICK: Duration = Duration::from_millis(500);
/// Bytes of I/O that count as progress although the counters do not change: restic reports nothing while it compares
/// a large existing file, or loads a pack of 16 MiB over a slow network. Failing requests cause much less I/O.
const WORK: u64 = 8 << 20;
/// The same for a command that only reads many small files: some KiB per second.
const LOOKED: u64 = 512 << 10;
/// A command that only reads metadata is ended after this number of rejected requests: a retry cannot succeed, but a
/// single rejection may come from a proxy.
const REFUSALS: u32 = 2;
/// Maximum length of a line: names have at most a few KiB, even when escaped.
const LINE: usize = 1 << 20;
/// Maximum size of a document (the list of snapshots): about 250,000 snapshots.
const DOCUMENT: usize = 256 << 20;

/// Time limits of a command.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// Total time.
    Whole(Duration),
    /// Time without progress.
    Idle(Duration),
    /// The same for a command that only reads metadata, without output before its end: with a request for each of
    /// many snapshots, no fixed time is sufficient.
    Looking(Duration),
}

/// One command.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Time limit.
    pub limit: Limit,
    /// Standard output is one document, not lines.
    pub document: bool,
}

/// How a command ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// By itself.
    Exited(i32),
    /// By a signal of another process.
    Killed(i32),
    /// Its time limit was reached.
    TimedOut(Duration),
    /// No progress for this time.
    Stuck(Duration),
    /// It retried a permanent error.
    Hopeless,
    /// The agent was stopped.
    Stopped,
    /// The program could not be started.
    NotStarted(String),
    /// Standard output was too long.
    TooLong,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub end: End,
    /// Its output.
    pub report: Report,
    /// Standard output, for a document.
    pub document: Vec<u8>,
}

impl Ran {
    /// Whether it succeeded without errors of items.
    pub fn ended_well(&self) -> bool {
        self.end == End::Exited(0) && self.report.errors == 0
    }
}

/// Runs a command to its end. `sink` gets each JSON message of its standard output.
pub async fn run(what: &Invocation, stop: &watch::Receiver<bool>, sink: &mut (dyn FnMut(&Message) + Send)) -> Ran {
    run_within(GRACE, what, stop, sink).await
}

async fn run_within(
    grace: Duration,
    what: &Invocation,
    stop: &watch::Receiver<bool>,
    sink: &mut (dyn FnMut(&Message) + Send),
) -> Ran {
    let mut ran = Ran { end: End::Stopped, report: Report::default(), document: Vec::new() };
    let mut stop = stop.clone();
    if *stop.borrow() {
        return ran;
    }
    let mut child = match spawn(what) {
        Ok(child) => child,
        Err(e) => {
            ran.end = End::NotStarted(e.to_string());
            return ran;
        }
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut out_lines, mut err_lines) = (Lines::new(LINE), Lines::new(LINE));
    let (mut out_buffer, mut err_buffer) = (vec![0; 64 << 10], vec![0; 16 << 10]);
    let mut watch = Watch::new(what.limit, group);
    let mut tick = tokio::time::interval(TICK);
    // Why it is being ended, and when SIGKILL is due.
    let mut ending: Option<End> = None;
    let mut kill_at: Option<Instant> = None;
    let mut gone_by: Option<Instant> = None;
    let mut exited: Option<std::process::ExitStatus> = None;
    let mut drained_by: Option<Instant> = None;
    let most_refusals = if matches!(what.limit, Limit::Idle(_)) { u32::MAX } else { REFUSALS };
    let mut refusals = 0;

    while exited.is_none() || out.is_some() || err.is_some() {
        if [drained_by, gone_by].into_iter().flatten().any(|at| Instant::now() >= at) {
            break;
        }
        let mut reason = None;
        tokio::select! {
            read = next(&mut out, &mut out_buffer) => match read {
                0 => out = None,
                n if what.document => {
                    ran.document.extend_from_slice(&out_buffer[..n]);
                    if ran.document.len() > DOCUMENT {
                        ran.document = Vec::new();
                        out = None;
                        reason = Some(End::TooLong);
                    }
                }
                n => out_lines.feed(&out_buffer[..n], |line| take(line, &mut ran.report, &mut watch, sink)),
            },
            read = next(&mut err, &mut err_buffer) => match read {
                0 => err = None,
                n => err_lines.feed(&err_buffer[..n], |line| {
                    let line = parse(line);
                    refusals += u32::from(is_refusal(&line));
                    if hopeless(&line) || refusals >= most_refusals {
                        reason = Some(End::Hopeless);
                    }
                    ran.report.note(&line);
                }),
            },
            status = child.wait(), if exited.is_none() => {
                exited = status.ok();
                drained_by = Some(Instant::now() + DRAIN);
                if exited.is_none() {
                    break;
                }
            }
            () = stopped(&mut stop), if ending.is_none() && exited.is_none() => reason = Some(End::Stopped),
            _ = tick.tick() => if ending.is_none() { reason = watch.expired() },
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                signal(group, Signal::KILL);
                kill_at = None;
                gone_by = Some(Instant::now() + grace / GOES_IN);
            }
        }
        if let Some(reason) = reason
            && ending.is_none()
        {
            tracing::warn!(?reason, "ending restic early");
            signal(group, Signal::TERM);
            kill_at = Some(Instant::now() + grace);
            ending = Some(reason);
        }
    }
    out_lines.finish(|line| take(line, &mut ran.report, &mut watch, sink));
    err_lines.finish(|line| ran.report.note(&parse(line)));
    ran.end = ending.unwrap_or_else(|| end_of(exited));
    ran
}

/// restic retries permanent errors for minutes: an untrusted certificate, a missing bucket, or a bucket name that is
/// not valid.
fn hopeless(line: &Line) -> bool {
    const NEVER: [&str; 4] = ["x509:", "bucket does not exist", "bucket is not valid", ": Bucket name "];
    is_retry(line, &NEVER)
}

/// The storage reports that the request is not valid. The response to HEAD does not contain the cause.
fn is_refusal(line: &Line) -> bool {
    is_retry(line, &["400 Bad Request"])
}

fn is_retry(line: &Line, signs: &[&str]) -> bool {
    matches!(line, Line::Text(text) if text.contains("retrying") && signs.iter().any(|sign| text.contains(sign)))
}

/// Starts a command, with pipes for its output.
pub fn spawn(what: &Invocation) -> std::io::Result<Child> {
    let (program, args) = what.argv.split_first().ok_or_else(|| std::io::Error::other("no program to run"))?;
    Command::new(program)
        .args(args)
        .env_clear()
        .envs(what.env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn take(line: &[u8], report: &mut Report, watch: &mut Watch, sink: &mut (dyn FnMut(&Message) + Send)) {
    let line = parse(line);
    report.note(&line);
    watch.saw(&line);
    if let Line::Json(message) = &line {
        sink(message);
    }
}

/// Reads some bytes; 0 when the stream has ended. Never ready without a stream.
async fn next<R: AsyncRead + Unpin>(stream: &mut Option<R>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        // The sender of the stop signal no longer exists.
        std::future::pending::<()>().await;
    }
}

/// Signals the process group of a command.
pub fn signal_group(child: &Child, with: Signal) {
    signal(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw), with);
}

fn signal(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group
        && let Err(error) = kill_process_group(group, signal)
    {
        tracing::debug!(%error, "the process group of restic is gone");
    }
}

/// How a process ended, by its exit status.
pub fn end_of(status: Option<std::process::ExitStatus>) -> End {
    use std::os::unix::process::ExitStatusExt;
    match status.map(|s| (s.code(), s.signal())) {
        Some((Some(code), _)) => End::Exited(code),
        Some((None, Some(signal))) => End::Killed(signal),
        _ => End::Killed(0),
    }
}

/// Tracks the time limits of a command.
struct Watch {
    limit: Limit,
    started: Instant,
    moved: Instant,
    position: (u64, u64),
    text: String,
    pid: Option<Pid>,
    io: u64,
}

impl Watch {
    fn new(limit: Limit, pid: Option<Pid>) -> Self {
        let now = Instant::now();
        Self { limit, started: now, moved: now, position: (0, 0), text: String::new(), pid, io: 0 }
    }

    /// A new line is progress.
    fn saw(&mut self, line: &Line) {
        let moved = match line {
            Line::Json(m) if m.message_type == "status" => {
                let position = m.position();
                std::mem::replace(&mut self.position, position) != position
            }
            Line::Json(_) => true,
            Line::Text(text) => {
                // "[0:05] 12.00%  3 / 25 packs": the clock alone is no progress.
                let text = text.split_once(']').map_or(text.as_str(), |(_, rest)| rest);
                let moved = self.text != text;
                text.clone_into(&mut self.text);
                moved
            }
        };
        if moved {
            self.moved = Instant::now();
        }
    }

    fn expired(&mut self) -> Option<End> {
        match self.limit {
            Limit::Whole(limit) => (self.started.elapsed() > limit).then_some(End::TimedOut(limit)),
            Limit::Idle(limit) => self.idle(limit, WORK),
            Limit::Looking(limit) => self.idle(limit, LOOKED),
        }
    }

    fn idle(&mut self, limit: Duration, work: u64) -> Option<End> {
        if self.moved.elapsed() > limit / 2 && self.worked(work) {
            self.moved = Instant::now();
        }
        (self.moved.elapsed() > limit).then_some(End::Stuck(limit))
    }

    /// Whether the process has read or written this many bytes since the last check.
    fn worked(&mut self, work: u64) -> bool {
        let Some(pid) = self.pid else { return false };
        let text = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).unwrap_or_default();
        let io: u64 = text
            .lines()
            .filter(|l| l.starts_with("rchar:") || l.starts_with("wchar:"))
            .filter_map(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        let worked = io > self.io.saturating_add(work);
        if worked {
            self.io = io;
        }
        worked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Limit) -> Invocation {
        let argv = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        Invocation { argv, env: vec![("PATH".into(), "/usr/bin:/bin".into())], limit, document: false }
    }

    async fn ran(script: &str, limit: Limit) -> Ran {
        let (_keep, stop) = watch::channel(false);
        run(&sh(script, limit), &stop, &mut |_| {}).await
    }

    #[tokio::test]
    async fn both_streams_and_the_code_arrive() {
        let ran = ran("echo one; echo two >&2; exit 7", Limit::Whole(LOOK)).await;
        assert_eq!(ran.end, End::Exited(7));
        let mut tail: Vec<_> = ran.report.tail().collect();
        tail.sort_unstable();
        assert_eq!(tail, ["one", "two"]);
    }

    #[tokio::test]
    async fn the_environment_is_only_what_was_given() {
        let ran = ran("env | sort | cut -d= -f1", Limit::Whole(LOOK)).await;
        let names: Vec<_> = ran.report.tail().filter(|n| !["PWD", "SHLVL", "_", "OLDPWD"].contains(n)).collect();
        assert_eq!(names, ["PATH"]);
    }

    #[tokio::test]
    async fn time_is_bounded_and_the_whole_group_ends() {
        let started = std::time::Instant::now();
        let ran = ran("sleep 300 & echo x; sleep 300", Limit::Whole(Duration::from_millis(300))).await;
        assert_eq!(ran.end, End::TimedOut(Duration::from_millis(300)));
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_clock_that_ticks_is_no_progress() {
        let script = "i=0; while :; do i=$((i+1)); echo \"[0:0$i] 1 / 2 packs\"; sleep 0.1; done";
        let ran = ran(script, Limit::Idle(Duration::from_millis(700))).await;
        assert_eq!(ran.end, End::Stuck(Duration::from_millis(700)));
    }

    #[tokio::test]
    async fn a_counter_that_moves_is_progress() {
        let script = "for i in 1 2 3 4 5 6 7; do echo \"{\\\"message_type\\\":\\\"status\\\",\\\"bytes_done\\\":$i}\"; sleep 0.2; done";
        assert_eq!(ran(script, Limit::Idle(Duration::from_millis(800))).await.end, End::Exited(0));
    }

    /// A list of many snapshots has no output before its end.
    #[tokio::test]
    async fn what_reads_a_good_deal_is_at_work_and_what_does_not_is_stuck() {
        let limit = Duration::from_millis(800);
        let script = "for i in 1 2 3 4 5 6 7 8; do head -c 1000000 /dev/zero >/dev/null; sleep 0.2; done";
        assert_eq!(ran(script, Limit::Looking(limit)).await.end, End::Exited(0));
        assert_eq!(ran("sleep 60", Limit::Looking(limit)).await.end, End::Stuck(limit));
    }

    /// Like a process that waits for a volume that does not respond: no signal to its group reaches the process.
    #[tokio::test]
    async fn what_no_signal_ends_is_left_behind() {
        let (tell, stop) = watch::channel(false);
        let script = r#"exec perl -e '$| = 1; setpgrp(0, getpgrp(getppid())); print "{\"message_type\":\"ready\"}\n"; sleep 60'"#;
        let mut is_ready = false;
        let mut sink = |_: &Message| is_ready |= !tell.send_replace(true);
        let what = sh(script, Limit::Idle(STUCK));
        let run = run_within(Duration::from_millis(400), &what, &stop, &mut sink);
        let ran = tokio::time::timeout(Duration::from_secs(30), run).await.expect("it is waited for without end");
        assert_eq!(ran.end, End::Stopped);
        assert!(is_ready, "{:?}", ran.report.tail().collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_no_retry_mends_is_ended_at_once_and_a_request_refused_twice_where_it_only_looks() {
        let retries = |text: &str, times: usize| {
            format!(
                "for i in $(seq {times}); do echo 'Stat returned error, retrying after 1s: {text}' >&2; done; sleep 0.4"
            )
        };
        let (look, work) = (Limit::Whole(LOOK), Limit::Idle(STUCK));
        for (text, times, limit, end) in [
            ("client.GetObject: Bucket name cannot be shorter than 3 characters", 1, look, End::Hopeless),
            ("The specified bucket is not valid.", 1, work, End::Hopeless),
            ("Stat: 400 Bad Request", 1, look, End::Exited(0)),
            ("Stat: 400 Bad Request", 2, look, End::Hopeless),
            ("Stat: 400 Bad Request", 2, Limit::Looking(LOOK), End::Hopeless),
            ("Stat: 400 Bad Request", 2, work, End::Exited(0)),
        ] {
            assert_eq!(ran(&retries(text, times), limit).await.end, end, "{text} {times}");
        }
    }

    #[tokio::test]
    async fn stop_ends_it() {
        let (tell, stop) = watch::channel(false);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let _ = tell.send(true);
            tokio::time::sleep(Duration::from_secs(20)).await;
        });
        let ran = run(&sh("sleep 60", Limit::Idle(STUCK)), &stop, &mut |_| {}).await;
        assert_eq!(ran.end, End::Stopped);
    }

    #[tokio::test]
    async fn a_missing_program_is_said() {
        let what = Invocation { argv: vec!["no-such-program".into()], ..sh("", Limit::Whole(LOOK)) };
        let (_keep, stop) = watch::channel(false);
        assert!(matches!(run(&what, &stop, &mut |_| {}).await.end, End::NotStarted(_)));
    }
}
