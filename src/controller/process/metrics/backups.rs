//! Metrics of the backups of each BackupConfiguration and BackupBatch.
//!
//! The metrics are computed from the watched objects at each scrape, so that deleted objects have no series. These are
//! the only metrics with names of objects in their labels: each has at most [`MOST`] series, and the number of invokers
//! left out is a metric too. Invokers with late backups come first.

use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

use crate::controller::cache::series::{Backups, Labels, Series};
use crate::controller::process::metrics::reasons::known;

/// Maximum number of invokers in the metrics: some megabytes of text.
const MOST: usize = 10_000;

/// Metrics of each invoker, and what they mean.
const LAST_SUCCESS: (&str, &str) = (
    "backup_last_success_timestamp_seconds",
    "End of the last successful backup, in Unix seconds; absent before the first one",
);
const NEXT_DUE: (&str, &str) = (
    "backup_next_due_timestamp_seconds",
    "Time of the next scheduled backup, in Unix seconds; absent without a schedule, while paused, and if none can be taken",
);
const LATE: (&str, &str) = (
    "backup_late",
    "1 when more than one backup was due since the last that succeeded, else 0; absent without a schedule. Alert on 1",
);
const LAST_RESULT: (&str, &str) = (
    "backup_last_result",
    "1 when the last backup that ended succeeded, 0 when it failed, with the reason; absent before the first one. Alert on 0 if a single failure matters",
);
const LEFT_OUT: (&str, &str) = (
    "backup_series_left_out",
    "BackupConfigurations and BackupBatches beyond the 10,000 that the backup metrics include. Alert above 0",
);

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ResultLabels {
    namespace: String,
    kind: String,
    name: String,
    repository: String,
    reason: &'static str,
}

/// The source of the invokers; none on a replica that does not lead.
pub type Reader = Arc<dyn Fn() -> Vec<Series> + Send + Sync>;

/// The value of a metric for an invoker.
type Number = fn(&Backups) -> Option<i64>;

/// Exports the backup metrics. Clones share their source.
#[derive(Clone, Default)]
pub struct Exporter(Arc<RwLock<Option<Reader>>>);

impl Exporter {
    /// Sets the source of the invokers from now on.
    pub fn follow(&self, reader: Option<Reader>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = reader;
    }

    /// The invokers in the metrics, and the number of invokers left out.
    fn read(&self, most: usize) -> (Vec<Series>, usize) {
        let reader = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut all = reader.map(|read| read()).unwrap_or_default();
        all.sort_by(|a, b| (a.backups.late != Some(true), &a.labels).cmp(&(b.backups.late != Some(true), &b.labels)));
        let left_out = all.len().saturating_sub(most);
        all.truncate(most);
        (all, left_out)
    }
}

impl Debug for Exporter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter")
    }
}

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let (all, left_out) = self.read(MOST);
        let numbers: [(_, Number); 3] =
            [(LAST_SUCCESS, |b| b.success), (NEXT_DUE, |b| b.next), (LATE, |b| b.late.map(i64::from))];
        for ((name, help), of) in numbers {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for Series { labels, backups } in &all {
                if let Some(value) = of(backups) {
                    metric.encode_family(labels)?.encode_gauge(&value)?;
                }
            }
        }
        let (name, help) = LAST_RESULT;
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for Series { labels, backups } in &all {
            if let Some((succeeded, reason)) = &backups.result {
                let Labels { namespace, kind, name, repository } = labels.clone();
                let labels = ResultLabels { namespace, kind, name, repository, reason: known(reason) };
                metric.encode_family(&labels)?.encode_gauge(&i64::from(*succeeded))?;
            }
        }
        let (name, help) = LEFT_OUT;
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&i64::try_from(left_out).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests;
