//! The operator's metrics, which Prometheus scrapes at `/metrics`.
//!
//! Counting never fails and never changes an outcome. Labels take few values:
//! kinds, phases, steps and the reasons of `names::reason`; never a namespace
//! or a name, of which a cluster has thousands, except in [`backups`], which are
//! bounded. Each help text states what the number means and when to alert on it.

pub mod backups;
mod reasons;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::controller::apply::counters::{Counters, Reconciled};
use crate::controller::process::metrics::backups::{Exporter, Reader};
use crate::controller::process::metrics::reasons::known;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReconcileLabels {
    kind: String,
    result: Reconciled,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabels {
    kind: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct StepLabels {
    step: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RunLabels {
    kind: String,
    phase: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OutcomeLabels {
    step: String,
    reason: String,
}

/// Seconds of a reconcile: some reads from and writes to the API server, from 1 ms to 16 s.
const RECONCILE_BUCKETS: [f64; 8] = [0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0];
/// Seconds of a run: from a small volume (seconds) to the default timeOut (24 h).
const RUN_BUCKETS: [f64; 10] = [5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 10_800.0, 36_000.0, 86_400.0];

/// The counters. Cloning is cheap, and clones share the counters.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Family<KindLabels, Histogram, fn() -> Histogram>,
    jobs_created: Family<StepLabels, Counter>,
    runs: Family<RunLabels, Counter>,
    run_seconds: Family<RunLabels, Histogram, fn() -> Histogram>,
    outcomes: Family<OutcomeLabels, Counter>,
    leader: Gauge<f64, AtomicU64>,
    backups: Exporter,
}

impl Default for Metrics {
    fn default() -> Self {
        let reconciles = Family::default();
        let reconcile_seconds = Family::new_with_constructor((|| Histogram::new(RECONCILE_BUCKETS)) as fn() -> _);
        let jobs_created = Family::default();
        let runs = Family::default();
        let run_seconds = Family::new_with_constructor((|| Histogram::new(RUN_BUCKETS)) as fn() -> _);
        let outcomes = Family::default();
        let (leader, backups) = (Gauge::default(), Exporter::default());
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);

        // Counters get `_total` appended by the encoder.
        let mut r = Registry::with_prefix("lifeboat");
        r.register(
            "build",
            "Version of this operator. Two versions for more than a rollout: one of them is stuck",
            build,
        );
        r.register(
            "reconciles",
            "Reconciliations, by kind and result. Done: up to date. Failed: retried with backoff; alert when Failed \
             grows for 15 minutes, the log names the object. Abandoned: interrupted; alert when it grows while no \
             operator restarts",
            reconciles.clone(),
        );
        r.register(
            "reconcile_seconds",
            "Duration of a reconciliation in seconds. It never waits for a Job; a median above 1 s means a slow \
             API server",
            reconcile_seconds.clone(),
        );
        r.register(
            "jobs_created",
            "Created Jobs, by step. Alert on a rate far above that of runs: steps are being retried, outcomes say why",
            jobs_created.clone(),
        );
        r.register(
            "runs",
            "Ended runs, by kind of session and phase. Alert on every Failed (data was not backed up or restored; the \
             object's conditions say what and why) and on BackupSessions that should have Succeeded by now and have not",
            runs.clone(),
        );
        r.register(
            "run_seconds",
            "Duration of a run in seconds, by kind and phase. Alert when it approaches the timeOut of your sessions",
            run_seconds.clone(),
        );
        r.register(
            "outcomes",
            "Ended steps, by step and reason; Succeeded or one of the failure reasons. DataCorrupt, WrongPassword: \
             alert at once. RepositoryUnreachable, OOMKilled, Evicted, ImageUnavailable are retried: alert when they \
             repeat. OutcomeLost: a Job ended without a result and is not counted as a success",
            outcomes.clone(),
        );
        r.register(
            "leader",
            "1 on the replica that reconciles, else 0. Alert when the sum over all replicas is not 1 for a minute",
            leader.clone(),
        );
        r.register_collector(Box::new(backups.clone()));
        let registry = Arc::new(r);
        Self { registry, reconciles, reconcile_seconds, jobs_created, runs, run_seconds, outcomes, leader, backups }
    }
}

impl Metrics {
    /// Sets whether this replica leads. A replica that does not lead exports no backup metrics.
    pub fn leading(&self, leads: bool) {
        self.leader.set(if leads { 1.0 } else { 0.0 });
        if !leads {
            self.backups.follow(None);
        }
    }

    /// Sets the source of the invokers of the backup metrics.
    pub fn follow(&self, reader: Reader) {
        self.backups.follow(Some(reader));
    }

    /// All numbers, as OpenMetrics text.
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail; an empty answer would be visible at the scrape.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl Counters for Metrics {
    fn reconciled(&self, kind: &str, result: Reconciled, took: Duration) {
        let kind = kind.to_owned();
        self.reconcile_seconds.get_or_create(&KindLabels { kind: kind.clone() }).observe(took.as_secs_f64());
        self.reconciles.get_or_create(&ReconcileLabels { kind, result }).inc();
    }

    fn job_created(&self, step: &str) {
        self.jobs_created.get_or_create(&StepLabels { step: step.to_owned() }).inc();
    }

    fn run_ended(&self, kind: &str, phase: &str, took: Duration) {
        let labels = RunLabels { kind: kind.to_owned(), phase: phase.to_owned() };
        self.runs.get_or_create(&labels).inc();
        self.run_seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    fn outcome(&self, step: &str, reason: &str) {
        self.outcomes.get_or_create(&OutcomeLabels { step: step.to_owned(), reason: known(reason).to_owned() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::apply::counters::Measured;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        Measured::begin(&metrics, "RestoreBatch").end(Reconciled::Done);
        drop(Measured::begin(&metrics, "RestoreBatch"));
        metrics.clone().job_created("restore");
        metrics.run_ended("RestoreBatch", "Succeeded", Duration::from_secs(7));
        metrics.outcome("restore", crate::names::reason::OOM_KILLED);
        metrics.leading(true);
        let text = metrics.render();
        for line in [
            r#"lifeboat_reconciles_total{kind="RestoreBatch",result="Done"} 1"#,
            r#"lifeboat_reconciles_total{kind="RestoreBatch",result="Abandoned"} 1"#,
            r#"lifeboat_reconcile_seconds_count{kind="RestoreBatch"} 2"#,
            r#"lifeboat_jobs_created_total{step="restore"} 1"#,
            r#"lifeboat_runs_total{kind="RestoreBatch",phase="Succeeded"} 1"#,
            r#"lifeboat_run_seconds_sum{kind="RestoreBatch",phase="Succeeded"} 7.0"#,
            r#"lifeboat_outcomes_total{step="restore",reason="OOMKilled"} 1"#,
            "lifeboat_leader 1.0",
            concat!("lifeboat_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\nis not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
