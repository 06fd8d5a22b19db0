//! Whether a repository opens with its present Secret and spec: the condition `Ready` of a Repository.
//!
//! The Job that lists its Snapshots opens the repository. Status stores what it was opened with, so that it is opened
//! again when the Secret or the spec has changed, and after a session that failed in the store.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::repository::{OpenedWith, RepositoryStatus, SyncStatus};
use crate::api::{Condition, to_json};
use crate::names::{condition, hash_of, reason};
use crate::plan::effects::Listing;
use crate::plan::repository::pass::{BEING_LISTED, LIST, LOOK_FOR_MISSING, OUT_OF_DATE, Pass, SOONEST};
use crate::plan::repository::store_reasons::is_of_store;
use crate::plan::repository::{known, pass};
use crate::plan::run::conditions::Health;

/// Interval of checks on the Secret of a repository that opens. No watch reports a Secret: the operator may not list
/// Secrets.
const LOOK_AT_SECRET: Duration = Duration::from_mins(5);

/// Why the repository could not be opened when it was last tried; `None` if it could, or was not tried yet.
pub fn failure(list: &[Condition]) -> Option<&Condition> {
    let of_store = |c: &&Condition| c.reason.as_deref().is_some_and(is_of_store);
    list.iter().find(|c| c.type_ == condition::SNAPSHOTS_SYNCED && c.status == "False").filter(of_store)
}

/// Whether a user may be about to correct the Secret: the repository did not open, or its store does not answer.
pub fn is_shut(status: &RepositoryStatus) -> bool {
    failure(&status.conditions).is_some() || status.reachability.as_ref().is_some_and(|r| !r.reachable)
}

/// Whether the repository is known not to open, or is about to be tried. A session that fails in the store then tells
/// nothing new.
pub fn is_known(status: &RepositoryStatus) -> bool {
    let sync = status.sync.as_ref();
    let requested = status.open_request_time.as_ref();
    let tried = sync.and_then(|s| s.tried_time.as_ref());
    let is_asked = requested.is_some_and(|t| tried.is_none_or(|tried| t.0 > tried.0));
    is_asked || sync.is_none_or(|s| s.begun.is_some()) || failure(&status.conditions).is_some()
}

/// What the repository would be opened with now.
pub(super) fn with(pass: &Pass<'_>) -> OpenedWith {
    let spec = &pass.run.spec;
    // Which namespaces may use the Repository, and what happens to its data, does not affect opening.
    let parts = [to_json(&spec.backend), to_json(&spec.create), to_json(&spec.runtime_settings)];
    let parts = parts.map(|part| part.to_string());
    let spec_hash = Some(hash_of(&parts.each_ref().map(String::as_str)));
    OpenedWith { secret_version: pass.seen.secret_version.clone(), spec_hash }
}

/// When the repository is to be opened because of a change since it was last tried.
pub(super) fn due(pass: &Pass<'_>, sync: &SyncStatus) -> Option<Timestamp> {
    pass::every(pass)?;
    // It is not known what an earlier version of the operator tried it with.
    if sync.tried.as_ref().is_some_and(|tried| *tried != with(pass)) {
        return Some(pass.at);
    }
    let tried = sync.tried_time.as_ref()?.0;
    let requested = pass.run.state.open_request_time.as_ref()?.0;
    // A store that can be read but not written fails every session.
    (requested > tried).then(|| tried.checked_add(SOONEST).unwrap_or(tried))
}

/// Requeues to check the Secret again.
pub(super) fn look_again(pass: &mut Pass<'_>) {
    if pass::every(pass).is_some() {
        let shut = failure(&pass.now.conditions).is_some();
        pass.plan.look_again(if shut { LOOK_FOR_MISSING } else { LOOK_AT_SECRET });
    }
}

/// Whether the repository was opened with its present Secret and spec.
pub(super) fn is_open(pass: &Pass<'_>, sync: &SyncStatus) -> bool {
    match &sync.opened {
        Some(opened) => *opened == with(pass),
        None => sync.last_time.is_some(),
    }
}

/// Sets the condition `Ready`.
pub(super) fn tell(pass: &mut Pass<'_>) {
    if let Some(failed) = failure(&pass.now.conditions).cloned() {
        let (why, text) = (failed.reason.unwrap_or_default(), failed.message.unwrap_or_default());
        return pass.say(Health::Reconciling, &why, text.trim_end_matches(OUT_OF_DATE));
    }
    let sync = pass.now.sync.clone().unwrap_or_default();
    let synced = pass.now.conditions.iter().find(|c| c.type_ == condition::SNAPSHOTS_SYNCED);
    if pass::every(pass).is_none() {
        let text = "Ready. Its Snapshots are not listed (snapshotSync), so it is not known whether the repository can be opened.";
        return pass.say(Health::Ready, reason::BACKEND_SECRET_AVAILABLE, text);
    }
    if !is_open(pass, &sync) {
        let text = unopened(pass, &sync, synced);
        return pass.say(Health::Reconciling, reason::NOT_OPENED, &text);
    }
    let missing = synced.filter(|c| c.reason.as_deref() == Some(reason::REPOSITORY_NOT_CREATED)).cloned();
    if let Some(said) = missing {
        let text = format!("Ready to be used. {}", said.message.unwrap_or_default());
        return pass.say(Health::Ready, reason::REPOSITORY_NOT_CREATED, &text);
    }
    let empty = pass.now.snapshot_count == Some(0);
    let is_older = synced.is_some_and(|c| c.message.as_deref() == Some(BEING_LISTED));
    let text = if is_older || (empty && known::is_behind(&pass.now)) {
        "Ready to be used. Its Snapshots are being listed."
    } else if empty {
        "Ready to be used. The repository holds no snapshots."
    } else {
        "Ready to be used."
    };
    pass.say(Health::Ready, reason::REPOSITORY_OPENED, text);
}

fn unopened(pass: &Pass<'_>, sync: &SyncStatus, synced: Option<&Condition>) -> String {
    let first = sync.opened.is_none() && sync.last_time.is_none();
    let since = if first {
        "The repository was not opened yet"
    } else {
        "The repository was not opened since its Secret or spec changed"
    };
    let held = pass.now.steps.iter().find(|s| s.name == LIST && !s.done).and_then(|s| s.message.clone());
    let failed = || synced.filter(|c| c.status == "False").and_then(|c| c.message.clone());
    let why = match pass.plan.listing {
        Listing::Wants => Some("It waits: only a limited number of Repositories are opened at a time.".to_owned()),
        _ => held.or_else(failed),
    };
    let why = why.unwrap_or_else(|| "The Job that lists its Snapshots opens it.".to_owned());
    format!("{since}. {}", why.trim_end_matches(OUT_OF_DATE))
}
