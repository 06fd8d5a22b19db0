//! Which replica reconciles: one Lease, taken and renewed by compare-and-swap.
//!
//! Every write carries the resourceVersion that was read, so of two candidates
//! that see the same expired Lease one gets a conflict. Clocks of different
//! machines are never compared: a Lease has expired when a candidate has itself
//! seen one unchanged record for as long as the record says, by its own
//! monotonic clock. A leader counts from before it sent a renewal, a candidate
//! from after it saw the renewal, and a leader gives up earlier than a candidate
//! takes over: the difference is the time that the leader has to stop its work.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

use crate::controller::apply::fence::Fenced;

/// How fast leadership moves. With the defaults a successor starts to work within 10 s
/// after a leader was killed: it sees the last renewal after at most `retry` (1 s) and
/// waits `lease` (8 s) from there. After a graceful stop it waits only `retry`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a candidate watches an unchanged record before it takes over. Whole seconds.
    pub lease: Duration,
    /// Pause between renewals.
    pub renew: Duration,
    /// Age of the last renewal at which the leader gives up leadership; less than `lease`.
    pub give_up: Duration,
    /// Pause between checks of a candidate, and after a failed renewal.
    pub retry: Duration,
    /// Longest wait for one answer of the API server, so that one lost packet is not a lost lease.
    pub request: Duration,
}

impl Timing {
    /// The same pace for a longer or shorter lease.
    #[must_use]
    pub fn of(lease: Duration) -> Self {
        let usual = Self::default();
        let scaled = |part: Duration| part.mul_f64(lease.as_secs_f64() / usual.lease.as_secs_f64());
        Self {
            lease,
            renew: scaled(usual.renew),
            give_up: scaled(usual.give_up),
            // With a longer lease a candidate does not check less often: a Lease may be released at any time.
            retry: usual.retry.min(scaled(usual.retry)),
            request: scaled(usual.request),
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(8),
            renew: Duration::from_secs(2),
            give_up: Duration::from_secs(6),
            retry: Duration::from_secs(1),
            request: Duration::from_secs(2),
        }
    }
}

/// What a candidate does about a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decision {
    /// No replica leads, or the leader has not renewed in time: try to take the Lease.
    Take,
    /// The record names this candidate, from an earlier process or from a write whose answer was lost.
    Hold,
    /// Another replica leads; check again after this time at the latest.
    Wait(Duration),
}

/// Longest lease that is accepted, so that a wrong record cannot stop the operator for ever.
const LEASE_MAX: Duration = Duration::from_mins(1);

/// The decision, from the record and the time for which this candidate has seen it unchanged.
pub fn decide(record: Option<&LeaseSpec>, us: &str, unchanged: Duration) -> Decision {
    let Some(record) = record else { return Decision::Take };
    match record.holder_identity.as_deref().unwrap_or_default() {
        "" => Decision::Take,
        holder if holder == us => Decision::Hold,
        _ => {
            let seconds = record.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0);
            match Duration::from_secs(seconds).min(LEASE_MAX).checked_sub(unchanged) {
                None | Some(Duration::ZERO) => Decision::Take,
                Some(left) => Decision::Wait(left),
            }
        }
    }
}

/// The record that takes a Lease over. It begins a new term even under the same name: a
/// process that finds a term it did not start knows that it was replaced.
fn claim(before: Option<&LeaseSpec>, us: &str, lease: Duration, now: Timestamp) -> LeaseSpec {
    let transitions = before.and_then(|b| b.lease_transitions).unwrap_or(0);
    let same = before.is_some_and(|b| b.holder_identity.as_deref() == Some(us));
    LeaseSpec {
        holder_identity: Some(us.to_owned()),
        lease_duration_seconds: i32::try_from(lease.as_secs()).ok(),
        acquire_time: Some(MicroTime(now)),
        renew_time: Some(MicroTime(now)),
        lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
        ..LeaseSpec::default()
    }
}

/// The record of a leader that stopped gracefully.
fn released(held: &LeaseSpec, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: None,
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(now)),
        ..held.clone()
    }
}

/// Whether two records belong to the same term of the same leader.
fn same_term(a: Option<&LeaseSpec>, b: Option<&LeaseSpec>) -> bool {
    a.zip(b).is_some_and(|(a, b)| a.holder_identity == b.holder_identity && a.acquire_time == b.acquire_time)
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the API server did not answer within {0:?}")]
    Silence(Duration),
    #[error("{0}")]
    Kube(#[from] kube::Error),
    #[error("the Lease is held by {0}")]
    Taken(String),
}

/// Whether the Lease is held. The sender sends the time until which it is held, and is dropped once it is lost.
fn holds(until: &watch::Receiver<Instant>) -> bool {
    until.has_changed().is_ok() && Instant::now() < *until.borrow()
}

/// Leadership. Dropping it stops the renewals but leaves the Lease to expire, because
/// the process may still be at work; [`Leader::release`] states that all work has stopped.
pub struct Leader {
    until: watch::Receiver<Instant>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Leader {
    /// Waits until this process leads, however long that takes.
    ///
    /// `identity` is the name of the Pod: a restarted container takes its own Lease back at
    /// once, and no two Pods share a name.
    pub async fn acquire_with(client: Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        let candidate = Candidate {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
        };
        let (lease, sent) = candidate.elected().await;
        info!(lease = name, identity, "leading");
        let (sender, until) = watch::channel(sent + timing.give_up);
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(candidate.reign(lease, sender, stopped));
        Self { until, stop: Some(stop), task }
    }

    /// Whether this process still leads.
    pub fn holds(&self) -> bool {
        holds(&self.until)
    }

    /// The client, which refuses writes once this process no longer leads.
    pub fn fence(&self, client: &Client) -> Fenced {
        let until = self.until.clone();
        Fenced::new(client, move || holds(&until))
    }

    /// Ends when leadership is lost. The process should then end too: the state of a former leader is not needed.
    pub async fn lost(&mut self) {
        while self.until.changed().await.is_ok() {}
    }

    /// Releases leadership, so that a successor need not wait for the Lease to expire. Call it when all work has
    /// stopped.
    pub async fn release(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that leadership was lost before: there is nothing to release.
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A process that is a candidate for leadership.
struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

impl Candidate {
    async fn limited<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        let limit = self.timing.request;
        Ok(timeout(limit, call).await.map_err(|_| Error::Silence(limit))??)
    }

    /// Waits until elected. Returns the Lease and the time before the request for it was sent.
    async fn elected(&self) -> (Lease, Instant) {
        let mut seen: Option<(Option<LeaseSpec>, Instant)> = None;
        loop {
            let pause = match self.stand(&mut seen).await {
                Ok(Ok(won)) => return won,
                Ok(Err(left)) => left.min(self.timing.retry),
                Err(Error::Kube(kube::Error::Api(s))) if s.is_conflict() || s.is_already_exists() => self.timing.retry,
                Err(e) => {
                    warn!(lease = self.name, error = %e, "leader election failed; trying again");
                    self.timing.retry
                }
            };
            sleep(pause).await;
        }
    }

    async fn stand(
        &self,
        seen: &mut Option<(Option<LeaseSpec>, Instant)>,
    ) -> Result<Result<(Lease, Instant), Duration>, Error> {
        let found = self.limited(self.api.get_opt(&self.name)).await?;
        let record = found.as_ref().and_then(|l| l.spec.clone());
        let now = Instant::now();
        let since = match seen {
            Some((before, since)) if *before == record => *since,
            _ => {
                *seen = Some((record.clone(), now));
                now
            }
        };
        if let Decision::Wait(left) = decide(record.as_ref(), &self.identity, now - since) {
            return Ok(Err(left));
        }
        let spec = Some(claim(record.as_ref(), &self.identity, self.timing.lease, Timestamp::now()));
        let sent = Instant::now();
        let won = if let Some(found) = found {
            // The write carries the resourceVersion that was read: the first writer wins.
            let lease = Lease { spec, ..found };
            self.limited(self.api.replace(&self.name, &PostParams::default(), &lease)).await?
        } else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            self.limited(self.api.create(&PostParams::default(), &Lease { metadata, spec })).await?
        };
        Ok(Ok((won, sent)))
    }

    /// Renews until told to stop or until leadership is lost. The sender is dropped at the end.
    async fn reign(self, mut lease: Lease, until: watch::Sender<Instant>, mut stopped: oneshot::Receiver<()>) {
        let mut pause = self.timing.renew;
        loop {
            tokio::select! {
                told = &mut stopped => {
                    if told.is_ok() {
                        self.give_back(&mut lease).await;
                    }
                    return;
                }
                () = sleep(pause) => {}
            }
            let deadline = *until.borrow();
            let sent = Instant::now();
            match timeout(deadline.saturating_duration_since(sent), self.renew(&mut lease)).await {
                Ok(Ok(())) => {
                    until.send_replace(sent + self.timing.give_up);
                    pause = self.timing.renew;
                }
                Ok(Err(e @ Error::Taken(_))) => {
                    error!(lease = self.name, error = %e, "leadership lost");
                    return;
                }
                Ok(Err(e)) if Instant::now() < deadline => {
                    warn!(lease = self.name, error = %e, "the Lease was not renewed; trying again");
                    pause = self.timing.retry.min(deadline.saturating_duration_since(Instant::now()));
                }
                _ => {
                    error!(lease = self.name, "lost leadership: the Lease was not renewed in time");
                    return;
                }
            }
        }
    }

    async fn renew(&self, lease: &mut Lease) -> Result<(), Error> {
        self.write(lease, |held| LeaseSpec { renew_time: Some(MicroTime(Timestamp::now())), ..held.clone() }).await
    }

    async fn give_back(&self, lease: &mut Lease) {
        match self.write(lease, |held| released(held, Timestamp::now())).await {
            Ok(()) => info!(lease = self.name, "released the Lease"),
            // Harmless: the Lease expires by itself.
            Err(e) => warn!(lease = self.name, error = %e, "the Lease could not be released"),
        }
    }

    /// Writes what `next` makes of the held record. On a conflict it checks once whether the
    /// term is still this process's: neither an annotation nor its own write whose answer was lost ends leadership.
    async fn write(&self, lease: &mut Lease, next: impl Fn(&LeaseSpec) -> LeaseSpec) -> Result<(), Error> {
        for last in [false, true] {
            let wanted = Lease { spec: lease.spec.as_ref().map(&next), ..lease.clone() };
            match self.limited(self.api.replace(&self.name, &PostParams::default(), &wanted)).await {
                Ok(written) => {
                    *lease = written;
                    return Ok(());
                }
                Err(Error::Kube(kube::Error::Api(s))) if s.is_conflict() && !last => {
                    let found = self.limited(self.api.get_opt(&self.name)).await?;
                    match found {
                        Some(found) if same_term(found.spec.as_ref(), lease.spec.as_ref()) => *lease = found,
                        found => {
                            let holder = found.and_then(|l| l.spec?.holder_identity);
                            return Err(Error::Taken(holder.unwrap_or_else(|| "nobody".to_owned())));
                        }
                    }
                }
                Err(Error::Kube(kube::Error::Api(s))) if s.is_not_found() => {
                    return Err(Error::Taken("nobody: it was deleted".to_owned()));
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
