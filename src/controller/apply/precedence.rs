//! Who goes first at the API server: Jobs, which do the work that users wait for. What is said about them comes a
//! moment later, so that of many restores that begin at once none waits for the status of another.
//!
//! Nobody waits longer than a moment, and nothing is lost where somebody did not.

use std::time::Duration;

use tokio::sync::watch::Sender;

/// Longest time that a status gives way.
const PATIENCE: Duration = Duration::from_millis(100);

/// Jobs that are being made.
#[derive(Default)]
pub struct Precedence(Sender<usize>);

/// A Job is being made as long as this is there.
pub struct Making<'a>(&'a Precedence);

impl Precedence {
    /// A Job is about to be made.
    pub fn making(&self) -> Making<'_> {
        self.0.send_modify(|jobs| *jobs += 1);
        Making(self)
    }

    /// Waits until no Job is being made, for a moment at most.
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
        // Nobody takes these away: it comes back all the same.
        precedence.give_way().await;
        let mut waits = std::pin::pin!(precedence.give_way());
        drop(one);
        assert!(futures::poll!(&mut waits).is_pending(), "another is still being made");
        drop(other);
        assert!(futures::poll!(&mut waits).is_ready(), "it goes on at once");
    }
}
