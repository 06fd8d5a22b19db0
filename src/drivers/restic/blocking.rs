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

/// Stack of a walk through a tree: some KiB for each folder on the way. Memory is taken only for what is used of it.
pub const STACK: usize = 64 << 20;
/// Time for the work to notice that it must stop.
const GRACE: Duration = Duration::from_secs(10);
/// How often it is looked whether it moves.
const TICK: Duration = Duration::from_millis(500);

/// What the work tells whoever waits for it.
#[derive(Debug, Default)]
pub struct Shared {
    stop: AtomicBool,
    /// Becomes true when the agent is told to stop.
    told: Option<watch::Receiver<bool>>,
    /// Grows as long as it gets on.
    pub moved: AtomicU64,
    /// Entries deleted.
    pub deleted: AtomicU64,
}

impl Shared {
    /// For work that stops when the agent is told to.
    pub fn of(stop: &watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { told: Some(stop.clone()), ..Self::default() })
    }

    /// Whether it is to stop.
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.told.as_ref().is_some_and(|told| *told.borrow())
    }
}

/// Why work has not ended.
#[derive(Debug)]
pub enum Unfinished {
    /// The agent was told to stop.
    Stopped,
    /// Nothing has moved for as long as it may.
    Stuck,
    /// There was no thread for it.
    NotStarted(std::io::Error),
    /// It panicked.
    Broken,
}

impl Unfinished {
    /// The failure of a step whose work it is. `work` names it, `when` says when it was stopped, and `stuck` what it means
    /// that a volume does not answer.
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

/// The agent was told to stop.
pub fn stopped(when: &str) -> Failure {
    let text = format!("The agent was stopped {when}. It is retried until the deadline.");
    Failure::new(Class::Transient, reason::TERMINATED, text)
}

/// Does the work, which moves at least each [`STUCK`], and looks whether it is to stop.
///
/// # Errors
/// It did not end, and may still be at work.
pub async fn run<T: Send + 'static>(
    shared: Arc<Shared>,
    work: impl FnOnce(&Shared) -> T + Send + 'static,
) -> Result<T, Unfinished> {
    run_within(STUCK, GRACE, shared, work).await
}

/// The same, where nothing may move for `limit`, and which is waited for so long once it is to stop.
///
/// # Errors
/// It did not end, and may still be at work.
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
        // Nobody waits any more where it was given up.
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
