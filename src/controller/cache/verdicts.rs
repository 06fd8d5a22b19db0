//! Verdicts of validation, each made once for a uid and the validated content of its object.
//!
//! Admission limits the cost of validation; this module handles objects that got past those limits. Validation runs on
//! its own threads, with a time limit. A thread that takes longer cannot be ended. Therefore each namespace has few
//! threads: other objects of that namespace wait, and objects of other namespaces do not.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::warn;

use crate::names::reason;
use crate::plan::seen::Refusal;
use crate::text::cut;

/// Longest time of a validation. The largest admissible object takes less than a hundredth of it.
const LIMIT: Duration = Duration::from_secs(5);
/// Validations at once for one namespace.
const LANES: usize = 2;
/// Validations at once for all namespaces. Tokio has 512 blocking threads, which other code needs too.
const LANES_OF_ALL: usize = 64;
/// Verdicts that are kept. A verdict takes about 200 bytes, and a refusal also its message. Beyond this number all
/// verdicts are made again.
const MOST: usize = 20_000;
/// Longest message that is kept, in bytes.
pub const MESSAGE_MAX: usize = 1024;

/// Result of validation: `None`, or why the object is refused.
pub type Verdict = Option<Refusal>;

/// There was no thread for a validation; it is retried later.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("other objects of the namespace are being validated; trying again later")]
pub struct Busy;

/// All verdicts.
#[derive(Clone)]
pub struct Verdicts(Arc<Inner>);

struct Inner {
    limit: Duration,
    known: Mutex<HashMap<String, Known>>,
    all: Arc<Semaphore>,
    lanes: Mutex<HashMap<String, Arc<Lane>>>,
}

struct Known {
    kind: String,
    version: String,
    verdict: Verdict,
}

/// The threads of one namespace.
struct Lane {
    free: Arc<Semaphore>,
    /// Threads that are past the limit.
    stuck: AtomicUsize,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self::new(LIMIT)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Key of the verdict on content that is validated on behalf of an object, in addition to the object itself.
pub fn part(uid: &str) -> String {
    format!("{uid}/part")
}

impl Verdicts {
    fn new(limit: Duration) -> Self {
        let all = Arc::new(Semaphore::new(LANES_OF_ALL));
        Self(Arc::new(Inner { limit, known: Mutex::default(), all, lanes: Mutex::default() }))
    }

    /// The verdict on the object with this uid: the known verdict on this version, or a new verdict from `validate`.
    ///
    /// # Errors
    /// There was no thread to make the verdict.
    pub async fn judge(
        &self,
        (kind, uid): (&str, &str),
        version: &str,
        namespace: &str,
        validate: impl FnOnce() -> Verdict + Send + 'static,
    ) -> Result<Verdict, Busy> {
        if let Some(known) = lock(&self.0.known).get(uid).filter(|k| k.version == version) {
            return Ok(known.verdict.clone());
        }
        let mut verdict = self.make(namespace, validate).await?;
        if let Some(refusal) = &mut verdict {
            cut(&mut refusal.message, MESSAGE_MAX);
            if refusal.reason == reason::VALIDATION_TIMED_OUT {
                warn!(kind, uid, namespace, "an object was not validated in time");
            }
        }
        let mut all = lock(&self.0.known);
        if all.len() >= MOST {
            all.clear();
        }
        let known = Known { kind: kind.to_owned(), version: version.to_owned(), verdict: verdict.clone() };
        all.insert(uid.to_owned(), known);
        Ok(verdict)
    }

    async fn make(
        &self,
        namespace: &str,
        validate: impl FnOnce() -> Verdict + Send + 'static,
    ) -> Result<Verdict, Busy> {
        let lane = self.lane(namespace);
        if lane.stuck.load(Ordering::Relaxed) >= LANES {
            return Err(Busy);
        }
        let places = async { (lane.free.clone().acquire_owned().await, self.0.all.clone().acquire_owned().await) };
        let Ok((Ok(own), Ok(of_all))) = tokio::time::timeout(self.0.limit, places).await else { return Err(Busy) };
        let held: [OwnedSemaphorePermit; 2] = [own, of_all];
        let (begins, begun) = oneshot::channel();
        let mut running = tokio::task::spawn_blocking(move || {
            let _ = begins.send(());
            let verdict = validate();
            // Only now, also when the caller no longer waits for the verdict.
            drop(held);
            verdict
        });
        // The time limit counts from when the validation has a thread.
        if tokio::time::timeout(self.0.limit, begun).await.is_err() {
            return Err(Busy);
        }
        match tokio::time::timeout(self.0.limit, &mut running).await {
            Ok(Ok(verdict)) => Ok(verdict),
            Ok(Err(_)) => Ok(Some(refusal("The object could not be validated: validation failed unexpectedly."))),
            Err(_) => {
                lane.stuck.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let _ = running.await;
                    lane.stuck.fetch_sub(1, Ordering::Relaxed);
                });
                let text = format!(
                    "The object could not be validated within {} s. Create a smaller one: fewer members, rules, paths or mounts.",
                    self.0.limit.as_secs()
                );
                Ok(Some(refusal(&text)))
            }
        }
    }

    fn lane(&self, namespace: &str) -> Arc<Lane> {
        let mut all = lock(&self.0.lanes);
        if let Some(lane) = all.get(namespace) {
            return lane.clone();
        }
        all.retain(|_, lane| Arc::strong_count(lane) > 1);
        let lane = Arc::new(Lane { free: Arc::new(Semaphore::new(LANES)), stuck: AtomicUsize::new(0) });
        all.insert(namespace.to_owned(), lane.clone());
        lane
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        let mut all = lock(&self.0.known);
        all.remove(uid);
        all.remove(&part(uid));
    }

    /// Forgets the objects of a kind that are gone.
    pub fn keep(&self, kind: &str, there: &HashSet<String>) {
        let owner = |key: &str| key.strip_suffix("/part").unwrap_or(key).to_owned();
        lock(&self.0.known).retain(|key, known| known.kind != kind || there.contains(&owner(key)));
    }
}

fn refusal(message: &str) -> Refusal {
    Refusal { reason: reason::VALIDATION_TIMED_OUT.to_owned(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    fn wrong() -> Refusal {
        Refusal { reason: reason::INVALID.into(), message: "spec: is wrong".into() }
    }

    #[tokio::test]
    async fn a_verdict_is_made_once_for_a_generation_and_forgotten_with_the_object() {
        let (verdicts, made) = (Verdicts::default(), Arc::new(AtomicUsize::new(0)));
        let judge = async |uid: &str, version: &str| {
            let made = made.clone();
            let validate = move || {
                made.fetch_add(1, Ordering::Relaxed);
                Some(wrong())
            };
            verdicts.judge(("RestoreSession", uid), version, "n", validate).await.unwrap()
        };
        let count = || made.load(Ordering::Relaxed);
        for _ in 0..3 {
            assert_eq!(judge("a", "1").await, Some(wrong()));
        }
        assert_eq!(count(), 1);
        judge("a", "2").await;
        judge(&part("a"), "1").await;
        assert_eq!(count(), 3, "another generation is another object");
        verdicts.forget("a");
        judge("a", "2").await;
        assert_eq!(count(), 4);
        judge("b", "1").await;
        judge(&part("b"), "1").await;
        verdicts.keep("RestoreBatch", &HashSet::new());
        verdicts.keep("RestoreSession", &HashSet::from(["b".to_owned()]));
        let mut left: Vec<String> = lock(&verdicts.0.known).keys().cloned().collect();
        left.sort();
        assert_eq!(left, ["b", "b/part"], "what went while nobody listened is forgotten");
    }

    #[tokio::test]
    async fn what_is_not_validated_in_time_is_refused_once_and_alone() {
        let verdicts = Verdicts::new(SHORT);
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let judge = async |namespace: &str, uid: String| {
            let ended = ended.clone();
            // Blocks until the test releases it.
            let slow = move || {
                let _ = lock(&ended).recv();
                None
            };
            verdicts.judge(("RestoreSession", &uid), "1", namespace, slow).await
        };
        for i in 0..LANES {
            let verdict = judge("bad", format!("slow-{i}")).await.unwrap().unwrap();
            assert_eq!(verdict.reason, reason::VALIDATION_TIMED_OUT, "{}", verdict.message);
        }
        // A thousand more take no thread: they wait, and cost nothing.
        for i in 0..1000 {
            assert_eq!(judge("bad", format!("more-{i}")).await, Err(Busy));
        }
        assert_eq!(verdicts.0.all.available_permits(), LANES_OF_ALL - LANES);
        // The validation is not repeated.
        assert_eq!(judge("bad", "slow-0".into()).await.unwrap().unwrap().reason, reason::VALIDATION_TIMED_OUT);
        // Other namespaces are not affected.
        let other = verdicts.judge(("RestoreSession", "other"), "1", "good", || Some(wrong())).await;
        assert_eq!(other, Ok(Some(wrong())));
        drop(end);
        let free = async {
            while verdicts.lane("bad").stuck.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, free).await.unwrap();
        let next = verdicts.judge(("RestoreSession", "more-0"), "1", "bad", || Some(wrong())).await;
        assert_eq!(next, Ok(Some(wrong())), "a thread that has ended makes room");
    }

    #[tokio::test]
    async fn a_validation_that_panics_refuses_the_object() {
        let verdict = Verdicts::default().judge(("RestoreSession", "a"), "1", "n", || panic!("a defect")).await;
        assert!(verdict.unwrap().unwrap().message.contains("failed unexpectedly"));
    }
}
