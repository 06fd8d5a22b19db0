//! Memory limit for reconciles of large objects, of which few are open at once.
//!
//! A reconcile that waits for room occupies one of the few concurrent reconciles of its kind. So only a few objects of
//! one namespace wait. Further objects of that namespace are retried later, and objects of other namespaces are
//! reconciled in the meantime.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An object of more bytes takes room while it is reconciled. Objects that users write have a few thousand bytes.
const LARGE: usize = 16 * 1024;
/// KiB of text that reconciles of large objects have open at once. As Rust values, with the plans made from them, the
/// objects take about 30 times as much. One object of the maximum size always fits, but no second beside it, because
/// other work shares the threads.
const AT_ONCE: usize = 1024;
/// Number of large objects of one namespace that are being reconciled or wait for room.
const OF_NAMESPACE: usize = 8;

/// Other objects of the namespace already wait for room; the object is retried later.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("other large objects of the namespace are being processed; trying again later")]
pub struct Crowded;

/// The room for all large objects.
#[derive(Clone)]
pub struct LargeObjects {
    space: Arc<Semaphore>,
    of: Arc<Mutex<HashMap<String, usize>>>,
}

/// Room for one object; empty for a small object.
pub struct Room {
    _space: Option<OwnedSemaphorePermit>,
    _place: Option<Place>,
}

impl Default for LargeObjects {
    fn default() -> Self {
        Self { space: Arc::new(Semaphore::new(AT_ONCE)), of: Arc::default() }
    }
}

impl LargeObjects {
    /// Waits for room to reconcile an object and what belongs to it, which together have `bytes` bytes.
    ///
    /// # Errors
    /// Too many objects of its namespace wait.
    pub async fn enter(&self, object: &impl ResourceExt, bytes: usize) -> Result<Room, Crowded> {
        if bytes <= LARGE {
            return Ok(Room { _space: None, _place: None });
        }
        let place = Place::take(&self.of, object.namespace().unwrap_or_default())?;
        let kib = u32::try_from(bytes.div_ceil(1024).min(AT_ONCE)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let space = self.space.clone().acquire_many_owned(kib).await.ok();
        Ok(Room { _space: space, _place: Some(place) })
    }
}

/// One of the places of a namespace.
struct Place {
    of: Arc<Mutex<HashMap<String, usize>>>,
    namespace: String,
}

impl Place {
    fn take(of: &Arc<Mutex<HashMap<String, usize>>>, namespace: String) -> Result<Self, Crowded> {
        let mut all = lock(of);
        let taken = all.entry(namespace.clone()).or_default();
        if *taken >= OF_NAMESPACE {
            return Err(Crowded);
        }
        *taken += 1;
        Ok(Self { of: of.clone(), namespace })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = lock(&self.of);
        if let Some(taken) = all.get_mut(&self.namespace) {
            *taken -= 1;
            if *taken == 0 {
                all.remove(&self.namespace);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use futures::future::join_all;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn of(namespace: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some(namespace.to_owned());
        object
    }

    #[tokio::test]
    async fn of_one_namespace_few_wait_and_others_come_in_between() {
        let objects = LargeObjects::default();
        let (bad, good) = (of("bad"), of("good"));
        let large = AT_ONCE * 1024;
        let first = objects.enter(&bad, large).await.unwrap();
        let mut waiting = Box::pin(join_all((1..OF_NAMESPACE).map(|_| objects.enter(&bad, large))));
        assert!(waiting.as_mut().now_or_never().is_none(), "there is room for one");
        for _ in 0..1000 {
            assert_eq!(objects.enter(&bad, large).await.err(), Some(Crowded));
        }
        // A small object never waits, and another namespace has its own places.
        assert!(objects.enter(&bad, LARGE).await.is_ok());
        let mut other = Box::pin(objects.enter(&good, large));
        assert!(other.as_mut().now_or_never().is_none());
        drop((first, waiting));
        assert!(other.await.is_ok());
        assert!(objects.enter(&bad, large).await.is_ok());
        assert!(lock(&objects.of).is_empty());
    }
}
