//! The order of writes to the API server: Jobs go first, because users wait for their work. Status writes follow a
//! moment later, so that of many restores that begin at once none waits for the status of another.
//!
//! A status write waits only for a moment. A status write that does not wait causes no loss.

use std::time::Duration;

use tokio::sync::watch::Sender;

/// Longest time that a status write gives way.
const PATIENCE: Duration = Duration::from_millis(100);

/// Number of Jobs that are being created.
#[derive(Default)]
pub struct Precedence(Sender<usize>);

/// A guard: a Job is being created until it is dropped.
pub struct Making<'a>(&'a Precedence);

impl Precedence {
    /// Marks that a Job is about to be created.
    pub fn making(&self) -> Making<'_> {
        self.0.send_modify(|jobs| *jobs += 1);
        Making(self)
    }

    /// Waits until no Job is being created, for a moment at most.
    pub async fn give_way(&self) {
        let mut jobs = self.0.subscribe();
        let _ = tokio::time::timeout(PATIENCE, jobs.wait_for(|jobs| *jobs == 0)).await;
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|jobs| *jobs -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_status_gives_way_to_jobs_and_not_for_ever() {
        let precedence = Precedence::default();
        precedence.give_way().await;
        let (one, other) = (precedence.making(), precedence.making());
        // The guards are not dropped: the call returns nevertheless.
        precedence.give_way().await;
        let mut waits = std::pin::pin!(precedence.give_way());
        drop(one);
        assert!(futures::poll!(&mut waits).is_pending(), "another is still being made");
        drop(other);
        assert!(futures::poll!(&mut waits).is_ready(), "it goes on at once");
    }
}
