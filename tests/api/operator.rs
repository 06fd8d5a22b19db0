//! The operator as a child process of the test.

#[path = "../support/faketime.rs"]
mod faketime;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::cluster::{Cluster, eventually};

/// Time to start and to take a free Lease. A process takes back its own Lease at once.
const STARTS_WITHIN: Duration = Duration::from_secs(45);

/// Longest wait for its metrics of an operator whose test failed.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Lines of the log that are printed of an operator whose test failed.
const LOG_LINES: usize = 20;

/// Image of Jobs that no node runs.
const JOB_IMAGE: &str = "localhost/test:1";

/// Below the ports that the system assigns automatically: otherwise a connection could take a port that is free now.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A free port that is not given to any other caller in this process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Each of several parallel processes begins with another port.
    let first = u16::try_from(std::process::id() % u32::from(count)).unwrap();
    let port = || PORTS.start + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
    let mut some = std::iter::repeat_with(port).take(usize::from(count));
    some.find(|p| std::net::TcpListener::bind(("0.0.0.0", *p)).is_ok()).expect("a free port")
}

/// Flags of an operator in tests that are not about leadership: it continues if the machine is so busy that the Lease
/// is not renewed for six seconds. No kubelet would restart it.
pub const STEADY: [&str; 4] = ["--webhook", "false", "--lease-duration", "60s"];

/// A running operator. It is killed on drop.
pub struct Operator {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Operator {
    /// The operator of a test: leads, without the webhook.
    pub async fn leading(cluster: &Cluster) -> Self {
        let operator = Self::start_in(cluster, "test", &STEADY);
        operator.leads_within(STARTS_WITHIN).await;
        operator
    }

    /// Like [`Self::leading`], with another kubeconfig for the API server.
    pub async fn through(cluster: &Cluster, kubeconfig: &Path) -> Self {
        let operator = Self::start_through(cluster, kubeconfig, &["--webhook", "false"]);
        operator.leads_within(STARTS_WITHIN).await;
        operator
    }

    /// Starts an operator with another kubeconfig.
    pub fn start_through(cluster: &Cluster, kubeconfig: &Path, flags: &[&str]) -> Self {
        let env = [(OsStr::new("KUBECONFIG"), kubeconfig.as_os_str())];
        let own = cluster.flags();
        let all: Vec<&str> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Self::start_with("test", JOB_IMAGE, &all, &env)
    }

    /// Starts an operator in the namespaces of a test.
    pub fn start_in(cluster: &Cluster, identity: &str, flags: &[&str]) -> Self {
        let own = cluster.flags();
        let all: Vec<&str> = own.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        Self::start(identity, &all)
    }

    /// Like [`Self::through`], on a node that has this image, with a clock so many seconds ahead of the API server's.
    pub async fn skewed(kubeconfig: &Path, image: &str, seconds: i64) -> Self {
        let (library, offset) = (faketime::faketime(), OsString::from(format!("{seconds:+}s")));
        let env = [
            (OsStr::new("KUBECONFIG"), kubeconfig.as_os_str()),
            (OsStr::new("LD_PRELOAD"), library.as_os_str()),
            (OsStr::new("FAKETIME"), offset.as_os_str()),
            // Only the time of day is wrong: timers run normally.
            (OsStr::new("FAKETIME_DONT_FAKE_MONOTONIC"), OsStr::new("1")),
        ];
        let operator = Self::start_with("skewed", image, &["--webhook", "false"], &env);
        operator.leads_within(STARTS_WITHIN).await;
        operator
    }

    /// Whether the process is running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Starts an operator in all namespaces, unless its flags say otherwise.
    pub fn start(identity: &str, flags: &[&str]) -> Self {
        Self::start_with(identity, JOB_IMAGE, flags, &[])
    }

    fn start_with(identity: &str, image: &str, flags: &[&str], env: &[(&OsStr, &OsStr)]) -> Self {
        let port = free_port();
        let log = File::options().create(true).append(true).open(Self::log(identity)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_lifeboat"))
            .args(["operator", "--job-image", image, "--identity", identity, "--port", &port.to_string()])
            .args(flags)
            .envs(env.iter().copied())
            // As in the chart.
            .env("MALLOC_ARENA_MAX", "1")
            // Without the webhook no object is sealed. Tests of the seal set `--code-rights true`.
            .env("LIFEBOAT_CODE_RIGHTS", (!flags.windows(2).any(|f| f == ["--webhook", "false"])).to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, log: Self::log(identity) }
    }

    /// Path of the log of an operator with this name that this test starts.
    pub fn log(identity: &str) -> PathBuf {
        let test = std::thread::current().name().unwrap_or("main").replace("::", ".");
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("operator-{test}-{identity}.log"))
    }

    /// Status and text of a page on the plain HTTP port; `None` while the operator does not respond.
    pub async fn page(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer))
    }

    /// The plain HTTP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub async fn leads(&self) -> bool {
        self.page("/metrics").await.is_some_and(|(_, text)| text.lines().any(|l| l == "lifeboat_leader 1.0"))
    }

    pub async fn leads_within(&self, limit: Duration) {
        eventually("leading", limit, || async { if self.leads().await { Ok(()) } else { Err("not yet".into()) } })
            .await;
    }

    /// Sends SIGTERM, the first signal of a kubelet.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Stops the process like a hanging machine; the process does not notice.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets the process continue.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Prints what the operator did: how often objects were reconciled, and the end of its log.
    fn tell(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            println!("the operator had ended by itself: {status}");
        }
        // The runtime of the test cannot be waited for while it is dropped.
        let ask = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(async { tokio::time::timeout(ANSWERS_WITHIN, self.page("/metrics")).await.ok()? })
        };
        let page = std::thread::scope(|scope| scope.spawn(ask).join()).ok().flatten();
        let text = page.map(|(_, text)| text).unwrap_or_default();
        text.lines().filter(|l| l.starts_with("lifeboat_reconciles_total")).for_each(|l| println!("{l}"));
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        println!("{}:\n{}", self.log.display(), lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"));
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process; returns whether it was a success.
    pub async fn ended(mut self) -> bool {
        let child = &mut self.child;
        let mut look = || child.try_wait().unwrap();
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = look() {
                return status.success();
            }
            assert!(tokio::time::Instant::now() < end, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Operator {
    /// Sends SIGKILL: the operator cannot clean up. When the test has failed, prints what the operator did.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
