//! The order of tests: they run in parallel, except for those that need the cluster to themselves.

use std::sync::LazyLock;
use std::time::Instant;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit, watch};

/// Number of parallel tests. Each has its own operator; on a small machine more of them would only wait for each other.
const PLACES: usize = 6;

static FREE: Semaphore = Semaphore::const_new(PLACES);
static CLUSTER: RwLock<()> = RwLock::const_new(());
/// Number of tests that run beside others, or wait for a place. Tests that need the cluster to themselves let them go
/// first: otherwise each would wait for all running tests, and block new ones meanwhile.
static BESIDE: LazyLock<watch::Sender<usize>> = LazyLock::new(watch::Sender::default);

/// The turn of a test. On drop, it prints how long the test took.
pub struct Turn {
    since: Instant,
    _held: Held,
}

#[allow(dead_code, reason = "held, not read")]
enum Held {
    Beside(Counted, SemaphorePermit<'static>, RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

struct Counted;

impl Counted {
    fn new() -> Self {
        BESIDE.send_modify(|n| *n += 1);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        BESIDE.send_modify(|n| *n -= 1);
    }
}

impl Turn {
    /// Waits for a turn beside other tests.
    pub async fn beside() -> Self {
        let counted = Counted::new();
        let place = FREE.acquire().await.unwrap();
        let cluster = CLUSTER.read().await;
        Self { since: Instant::now(), _held: Held::Beside(counted, place, cluster) }
    }

    /// Waits for a turn without other tests.
    pub async fn alone() -> Self {
        BESIDE.subscribe().wait_for(|n| *n == 0).await.unwrap();
        let cluster = CLUSTER.write().await;
        Self { since: Instant::now(), _held: Held::Alone(cluster) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        println!("took {:.1} s: {test}", self.since.elapsed().as_secs_f64());
    }
}
