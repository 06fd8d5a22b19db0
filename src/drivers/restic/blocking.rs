//! Runs operations on volumes in a separate thread: volumes may respond late, or never, and progress and signals must
//! not wait for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::contract::{Class, Failure};
use crate::drivers::restic::run::STUCK;
use crate::names::reason;

/// Stack of a walk through a tree: some KiB for each folder on the path. Only the used part of it takes memory.
pub const STACK: usize = 64 << 20;
/// Time for the work to notice that it must stop.
const GRACE: Duration = Duration::from_secs(10);
/// Interval between checks for progress.
const TICK: Duration = Duration::from_millis(500);

/// State that the work shares with the caller that waits for it.
#[derive(Debug, Default)]
pub struct Shared {
    stop: AtomicBool,
    /// Becomes true when the agent receives a signal to stop.
    told: Option<watch::Receiver<bool>>,
    /// Increases while the work makes progress.
    pub moved: AtomicU64,
    /// Entries deleted.
    pub deleted: AtomicU64,
}

impl Shared {
    /// For work that stops when the agent receives a signal to stop.
    pub fn of(stop: &watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { told: Some(stop.clone()), ..Self::default() })
    }

    /// Whether the work must stop.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.told.as_ref().is_some_and(|told| *told.borrow())
    }
}

/// Why work has not ended.
#[derive(Debug)]
pub enum Unfinished {
    /// The agent received a signal to stop.
    Stopped,
    /// The work made no progress within the time limit.
    Stuck,
    /// The thread could not be started.
    NotStarted(std::io::Error),
    /// The work panicked.
    Broken,
}

impl Unfinished {
    /// The failure of the step. `work` is the name of the work, `when` is when the agent was stopped, and `stuck`
    /// returns the failure if a volume does not respond.
    pub fn failure(self, work: &str, when: &str, stuck: impl FnOnce() -> Failure) -> Failure {
        let failed = |class, text| Failure::new(class, reason::AGENT_FAILED, text);
        match self {
            Self::Stopped => stopped(when),
            Self::Stuck => stuck(),
            Self::NotStarted(e) => failed(Class::Transient, format!("A thread could not be started: {e}.")),
            Self::Broken => failed(Class::Fatal, format!("{work} failed unexpectedly. This is a defect of Lifeboat.")),
        }
    }
}

/// The failure if the agent received a signal to stop.
pub fn stopped(when: &str) -> Failure {
    let text = format!("The agent was stopped {when}. It is retried until the deadline.");
    Failure::new(Class::Transient, reason::TERMINATED, text)
}

/// Runs the work, which must make progress within each [`STUCK`] and check whether it must stop.
///
/// # Errors
/// The work did not end, and may still be running.
pub async fn run<T: Send + 'static>(
    shared: Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, Unfinished> {
    run_within(STUCK, GRACE, shared, work).await
}

/// The same, with `limit` as the maximum time without progress, and `grace` as the time to wait for the work after it
/// must stop.
///
/// # Errors
/// The work did not end, and may still be running.
pub async fn run_within<T: Send + 'static>(
    limit: Duration,
    grace: Duration,
    shared: Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, Unfinished> {
    let (tell, mut done) = oneshot::channel();
    let (told, span) = (shared.clone(), tracing::Span::current());
    let work = move || {
        let ended = span.in_scope(|| work(&told));
        // There is no receiver if the caller no longer waits.
        let _ = tell.send(ended);
    };
    let thread = std::thread::Builder::new().name("volumes".to_owned()).stack_size(STACK);
    thread.spawn(work).map_err(Unfinished::NotStarted)?;
    let (mut moved, mut since, mut told_at) = (0, Instant::now(), None);
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            ended = &mut done => return ended.map_err(|_| Unfinished::Broken),
            _ = tick.tick() => {}
        }
        let now = shared.moved.load(Ordering::Relaxed);
        if now != moved {
            (moved, since) = (now, Instant::now());
        }
        if shared.is_over() {
            told_at.get_or_insert_with(Instant::now);
        }
        let is_stuck = since.elapsed() > limit;
        if is_stuck || told_at.is_some_and(|at: Instant| at.elapsed() >= grace) {
            shared.stop.store(true, Ordering::Relaxed);
            return Err(if is_stuck { Unfinished::Stuck } else { Unfinished::Stopped });
        }
    }
}
