//! The work queue of a kind: which object is reconciled next, and when each object is requeued.
//!
//! An object that changed is reconciled at once; kube's own scheduler rounds each request up to the next tick of its
//! timer, which took 1 to 2 ms of the 9 ms from a RestoreSession to its first Job. As in kube, an object is reconciled
//! once at a time, however often it changes meanwhile, and a change comes before a requeue.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::SelectAll;
use futures::{Stream, StreamExt as _};
use kube::Resource;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Objects that are reconciled at once, for each kind. A reconcile waits for the API server only.
const CONCURRENCY: usize = 64;

/// When an object is reconciled again, if nothing changes before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Requeue {
    /// Not before something changes.
    OnChange,
    /// After this time.
    After(Duration),
}

impl From<Option<Duration>> for Requeue {
    fn from(after: Option<Duration>) -> Self {
        after.map_or(Self::OnChange, Self::After)
    }
}

/// State of an object in the queue.
enum Stand {
    /// It is requeued for this time.
    Waits(Due),
    /// It is among the objects that are reconciled next.
    Next,
    /// It is being reconciled. With `again` it has changed meanwhile, and is reconciled once more.
    Runs { again: bool },
}

/// Time of a requeue, and a number, because several objects may be requeued for the same time.
type Due = (Instant, u64);

/// Objects of a kind to be reconciled.
pub struct Queue<K: Resource<DynamicType = ()> + 'static> {
    store: Store<K>,
    asked: SelectAll<futures::stream::BoxStream<'static, ObjectRef<K>>>,
}

impl<K> Queue<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    /// A queue for the objects of this store.
    pub fn new(store: Store<K>) -> Self {
        Self { store, asked: SelectAll::new() }
    }

    /// Adds a stream: the objects that it names are reconciled.
    #[must_use]
    pub fn on(mut self, asked: impl Stream<Item = ObjectRef<K>> + Send + 'static) -> Self {
        self.asked.push(asked.boxed());
        self
    }

    /// Reconciles, once the store is filled and `ready` has completed, until the streams end. An object that is not in
    /// the store is skipped.
    pub async fn run<R>(mut self, ready: impl Future<Output = ()>, mut reconcile: impl FnMut(Arc<K>) -> R)
    where
        R: Future<Output = Requeue> + Send + 'static,
    {
        let (mut turns, mut tasks, mut is_ready) = (Turns::default(), JoinSet::new(), false);
        let store = self.store.clone();
        let mut ready = std::pin::pin!(async {
            // An error means that the writer of the store is gone; then the streams end.
            let _ = store.wait_until_ready().await;
            ready.await;
        });
        loop {
            while is_ready && tasks.len() < CONCURRENCY {
                let Some(next) = turns.next() else { break };
                if let Some(object) = self.store.get(&next) {
                    let look = reconcile(object);
                    tasks.spawn(async move { (next, look.await) });
                } else {
                    turns.done(&next, Requeue::OnChange, Instant::now());
                }
            }
            let due = turns.first_due();
            tokio::select! {
                asked = self.asked.next() => match asked {
                    Some(object) => turns.ask(object),
                    None => return,
                },
                Some(done) = tasks.join_next() => match done {
                    Ok((object, requeue)) => turns.done(&object, requeue, Instant::now()),
                    Err(error) => {
                        if let Ok(panic) = error.try_into_panic() {
                            std::panic::resume_unwind(panic);
                        }
                    }
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => turns.wake(Instant::now()),
                () = &mut ready, if !is_ready => is_ready = true,
            }
        }
    }
}

/// Order in which objects are reconciled.
struct Turns<K: Resource<DynamicType = ()>> {
    stand: HashMap<ObjectRef<K>, Stand>,
    next: VecDeque<ObjectRef<K>>,
    waiting: BTreeMap<Due, ObjectRef<K>>,
    count: u64,
}

impl<K: Resource<DynamicType = ()>> Default for Turns<K> {
    fn default() -> Self {
        Self { stand: HashMap::new(), next: VecDeque::new(), waiting: BTreeMap::new(), count: 0 }
    }
}

impl<K: Resource<DynamicType = ()>> Turns<K> {
    /// Queues an object that has changed.
    fn ask(&mut self, object: ObjectRef<K>) {
        match self.stand.get_mut(&object) {
            Some(Stand::Next) => return,
            Some(Stand::Runs { again }) => {
                *again = true;
                return;
            }
            Some(Stand::Waits(due)) => drop(self.waiting.remove(due)),
            None => {}
        }
        self.stand.insert(object.clone(), Stand::Next);
        self.next.push_back(object);
    }

    /// Takes the object that is reconciled now.
    fn next(&mut self) -> Option<ObjectRef<K>> {
        let object = self.next.pop_front()?;
        self.stand.insert(object.clone(), Stand::Runs { again: false });
        Some(object)
    }

    /// Records that an object was reconciled.
    fn done(&mut self, object: &ObjectRef<K>, requeue: Requeue, now: Instant) {
        let Some(stand) = self.stand.remove(object) else { return };
        if let Stand::Runs { again: true } = stand {
            return self.ask(object.clone());
        }
        let Requeue::After(wait) = requeue else { return };
        // A time beyond the range of the clock never comes.
        let Some(at) = now.checked_add(wait) else { return };
        self.count += 1;
        let due = (at, self.count);
        self.waiting.insert(due, object.clone());
        self.stand.insert(object.clone(), Stand::Waits(due));
    }

    /// Time of the first requeue.
    fn first_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|((at, _), _)| *at)
    }

    /// Queues the objects whose requeue time has come.
    fn wake(&mut self, now: Instant) {
        while self.first_due().is_some_and(|at| at <= now) {
            let Some((_, object)) = self.waiting.pop_first() else { return };
            self.stand.insert(object.clone(), Stand::Next);
            self.next.push_back(object);
        }
    }
}

#[cfg(test)]
mod tests;
