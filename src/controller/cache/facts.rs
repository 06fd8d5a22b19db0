//! Facts of each kind: the values of an object that are read without opening it. They are kept beside its text.
//!
//! The facts of an object are made once, when a watch reports the object. Code that reads a value of all objects of a
//! kind reads it here. Values that only the reconcile of one object needs stay in its text.

use std::sync::Arc;

use kube::ResourceExt as _;

use crate::api::backup_session::BackupPhase;
use crate::api::common::RepositoryRef;
use crate::api::restore_session::RestorePhase;
use crate::api::{
    BackupBatch, BackupBlueprint, BackupConfiguration, BackupSession, Condition, Repository, RestoreBatch,
    RestoreSession,
};
use crate::controller::cache::invokers::Invoker;
use crate::controller::cache::series::Backups;
use crate::controller::cache::stored::{Facts, UserKind};
use crate::names::{condition, reason};
use crate::plan::backup::status;
use crate::plan::repository::{known, preconditions};
use crate::plan::restore::conflicts as targets;
use crate::plan::restore::run::RestoreRun;
use crate::plan::restore::status::is_final;
use crate::plan::seen::Refusal;
use crate::plan::systems::restic::backend;

fn place(reference: Option<&RepositoryRef>, namespace: Option<String>) -> Option<(String, String)> {
    let (reference, namespace) = (reference?, namespace?);
    Some((preconditions::home(reference, &namespace).to_owned(), reference.name.clone()))
}

fn facts_of_invoker<K: Invoker>(invoker: &K) -> Facts {
    let said = invoker.written().unwrap_or_default();
    let repository = place(invoker.reference(), invoker.namespace());
    let late = said.conditions.iter().find(|c| c.type_ == condition::BACKUPS_LATE);
    let backups = Arc::new(Backups {
        success: said.record.success.as_ref().map(|t| t.0.as_second()),
        next: said.next.as_ref().map(|t| t.0.as_second()),
        late: late.map(|c| c.status == "True"),
        result: said.record.last.as_ref().map(|last| {
            (last.phase == BackupPhase::Succeeded, last.reason.clone().unwrap_or_else(|| format!("{:?}", last.phase)))
        }),
    });
    let (invoker_phase, hosts, backups) = (said.phase, invoker.hosts(), Some(backups));
    Facts { repository, invoker_phase, backups, hosts, ..Facts::default() }.saying(&said.conditions)
}

impl UserKind for BackupConfiguration {
    fn facts(&self) -> Facts {
        facts_of_invoker(self)
    }
}

impl UserKind for BackupBatch {
    fn facts(&self) -> Facts {
        facts_of_invoker(self)
    }
}

impl UserKind for BackupSession {
    fn facts(&self) -> Facts {
        let phase = self.status.as_ref().and_then(|s| s.phase);
        let invoker = Some(self.spec.invoker.clone().unwrap_or_default());
        let (over, runs) = (status::is_over(phase), phase == Some(BackupPhase::Running));
        let rests = over && !self.status.as_ref().is_some_and(status::has_retry_due);
        Facts { over, rests, runs, backup: phase, invoker, ..Facts::default() }
            .saying(self.status.as_ref().map_or(&[][..], |s| &s.conditions))
            .running(self.status.as_ref().and_then(|s| s.run.as_ref()))
    }
}

fn facts_of_restore(run: &RestoreRun, repository: Option<(String, String)>) -> Facts {
    let state = &run.state;
    let (over, rests) = (is_final(state.phase), state.is_final());
    let runs = state.phase == Some(RestorePhase::Running);
    let mut targets = if over { vec![] } else { targets::of(run) };
    // A Vec that grows begins with room for four.
    targets.shrink_to_fit();
    let slots = if over { vec![] } else { run.slots() };
    Facts { repository, slots, over, rests, runs, targets, ..Facts::default() }
        .saying(&state.conditions)
        .running(Some(&state.run))
}

impl UserKind for RestoreSession {
    fn facts(&self) -> Facts {
        facts_of_restore(&RestoreRun::of_session(self), place(self.spec.repository.as_ref(), self.namespace()))
    }
}

impl UserKind for RestoreBatch {
    fn facts(&self) -> Facts {
        facts_of_restore(&RestoreRun::of_batch(self), place(used(self), self.namespace()))
    }
}

impl UserKind for Repository {
    fn facts(&self) -> Facts {
        let status = self.status.as_ref();
        let access = backend::of(&self.spec, &self.name_any()).ok();
        Facts {
            url: access.filter(|a| a.local.is_none()).map(|a| a.told.url.into()),
            first_backup: status.and_then(|s| s.first_backup_time.clone()),
            known: known::was_here(&self.spec, status),
            reachability: status.and_then(|s| s.reachability.clone()),
            not_ready: not_ready(status.map_or(&[][..], |s| &s.conditions)),
            ..Facts::default()
        }
    }
}

fn not_ready(list: &[Condition]) -> Option<Refusal> {
    let Some(c) = list.iter().find(|c| c.type_ == condition::READY) else {
        let message = "it has not been reconciled yet.".to_owned();
        return Some(Refusal { reason: reason::NOT_OPENED.to_owned(), message });
    };
    let said = || (c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default());
    (c.status != "True").then(said).map(|(reason, message)| Refusal { reason, message })
}

impl UserKind for BackupBlueprint {
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

/// The Repository of a RestoreBatch. A Repository that was taken from a BackupBatch is in the status.
fn used(batch: &RestoreBatch) -> Option<&RepositoryRef> {
    let adopted = || batch.status.as_ref()?.adopted.as_ref()?.repository.as_ref();
    batch.spec.repository.as_ref().or_else(adopted)
}
