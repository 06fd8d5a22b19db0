//! How large a run may be: its hosts, and the size that its status can reach.
//!
//! A run stops in the middle if the API server rejects its status. The size is therefore estimated before anything is
//! touched, and too high rather than too low. Every text in a status is bounded here by the available room. [`shorten`]
//! is for a status that is rejected nevertheless: the run then ends.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::api::backup_session::{BackupPhase, BackupSessionStatus};
use crate::api::restore_batch::{RestoreBatchStatus, RestoreMemberStatus};
use crate::api::restore_session::{RestoreSessionStatus, RunStatus};
use crate::api::{Condition, to_json};
use crate::names::{condition, reason};
use crate::plan::backup::status::is_over;
use crate::plan::restore::status::is_final;
use crate::plan::run::conditions;
use crate::plan::run::conditions::Health;
use crate::plan::seen::target::MOST_HOSTS;
use crate::text;
use crate::text::cut;

/// Bytes of a whole object that are always accepted: etcd accepts requests of 1.5 MiB (`--max-request-bytes`), less 72
/// KiB for what is around the object and for what users write into its metadata.
const OBJECT: usize = (1 << 20) + (440 << 10);
/// Bytes of an object apart from its hosts, members and spec: conditions, grants, and their managed fields.
const FRAME: usize = 24 << 10;
/// Bytes of a host of a restore apart from names, texts and snapshots, with its managed fields. Proven by a test.
const RESTORED_HOST: usize = 1050;
/// The same for a backup.
const BACKED_UP_HOST: usize = 830;
/// Bytes of a snapshot to be restored, without its path.
const PIN: usize = 130;
/// Bytes of a snapshot that was made, without its path.
const SNAPSHOT: usize = 330;
/// Bytes of a member, without its hosts and the texts of its conditions.
const MEMBER: usize = 2500;
/// Number of texts of a member: one for each kind of condition, and its own.
const MEMBER_TEXTS: usize = 9;
/// Bytes of texts of hosts, and of members, that a run has room for.
const TEXTS: usize = 200 << 10;
/// Shortest limit of a text of a host or member: it must say what happened, and to what.
const TEXT_MIN: usize = 200;
/// Longest limit of such a text, see [`text::message`].
const TEXT_MAX: usize = 1000;
/// Longest reason; the operator's own reasons have at most 40 characters.
const REASON_MAX: usize = 64;

/// Size of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Size {
    /// Hosts.
    pub hosts: usize,
    /// Snapshots of all hosts.
    pub snapshots: usize,
    /// Members.
    pub members: usize,
    /// Bytes of what users wrote, and of copies of it in status.
    pub written: usize,
    /// Bytes of names and paths in status.
    pub names: usize,
}

impl Size {
    /// Adds a host. Its status holds `name` and `node`, and a path with each snapshot.
    pub fn add_host(&mut self, name: &str, node: Option<&str>, paths: impl IntoIterator<Item = usize>) {
        self.hosts += 1;
        // The name also stands as the host whose backup is restored, and as the key of the managed fields.
        self.names += 3 * name.len() + node.map_or(0, str::len);
        for path in paths {
            self.snapshots += 1;
            self.names += path;
        }
    }

    fn bytes(&self, host: usize, snapshot: usize) -> usize {
        let texts = self.hosts * text_limit(self.hosts) + self.members * MEMBER_TEXTS * member_text_limit(self.members);
        // kubectl stores what users write a second time, in an annotation.
        FRAME
            + 2 * self.written
            + self.names
            + texts
            + self.hosts * host
            + self.snapshots * snapshot
            + self.members * MEMBER
    }

    /// Why a restore of this size is not possible; `None` if it is.
    pub fn restore_refusal(&self) -> Option<String> {
        self.refusal(self.bytes(RESTORED_HOST, PIN))
    }

    /// Why a backup of this size is not possible; `None` if it is.
    pub fn backup_refusal(&self) -> Option<String> {
        self.refusal(self.bytes(BACKED_UP_HOST, SNAPSHOT))
    }

    fn refusal(&self, bytes: usize) -> Option<String> {
        let (hosts, snapshots) = (self.hosts, self.snapshots);
        let most = usize::try_from(MOST_HOSTS).unwrap_or(usize::MAX);
        if hosts > most {
            return Some(format!(
                "The run would have {hosts} hosts, and one run can have {most}. Split its members into several sessions."
            ));
        }
        (bytes > OBJECT).then(|| {
            format!(
                "With {hosts} hosts and {snapshots} snapshots the object could reach {bytes} bytes; the API server accepts {OBJECT}. Split its members, or some of their paths, into several sessions."
            )
        })
    }
}

/// Bytes that a text of a host may have, with this many hosts.
pub fn text_limit(hosts: usize) -> usize {
    (TEXTS / hosts.max(1)).clamp(TEXT_MIN, TEXT_MAX)
}

fn member_text_limit(members: usize) -> usize {
    (TEXTS / (members.max(1) * MEMBER_TEXTS)).clamp(TEXT_MIN, TEXT_MAX)
}

/// Cuts every text of a restore to the available room.
pub fn bound_restore(list: &mut [Condition], members: &mut [RestoreMemberStatus], run: &mut RunStatus) {
    let of_member = member_text_limit(members.len());
    let of_host = text_limit(members.iter().map(|m| m.stats.len()).sum());
    bound(list, Some(run));
    for member in members {
        bound_conditions(&mut member.conditions, of_member);
        bound_text(&mut member.message, of_member);
        for host in &mut member.stats {
            bound_text(&mut host.error, of_host);
            bound_text(&mut host.reason, REASON_MAX);
            bound_all(&mut host.warnings, of_host.saturating_sub(host.error.as_ref().map_or(0, String::len)));
        }
    }
}

/// Cuts every text of a backup to the available room.
pub fn bound_backup(status: &mut BackupSessionStatus) {
    let of_member = member_text_limit(status.targets.len());
    let of_host = text_limit(status.targets.iter().map(|t| t.stats.len()).sum());
    bound(&mut status.conditions, status.run.as_mut());
    for target in &mut status.targets {
        bound_conditions(&mut target.conditions, of_member);
        for host in &mut target.stats {
            bound_text(&mut host.error, of_host);
            bound_text(&mut host.reason, REASON_MAX);
            bound_all(&mut host.warnings, of_host.saturating_sub(host.error.as_ref().map_or(0, String::len)));
        }
    }
}

fn bound(list: &mut [Condition], run: Option<&mut RunStatus>) {
    bound_conditions(list, TEXT_MAX);
    for step in run.into_iter().flat_map(|r| &mut r.steps) {
        bound_text(&mut step.message, TEXT_MAX);
        bound_text(&mut step.reason, REASON_MAX);
    }
}

fn bound_conditions(list: &mut [Condition], limit: usize) {
    for one in list {
        bound_text(&mut one.message, limit);
        bound_text(&mut one.reason, REASON_MAX);
    }
}

/// Cuts warnings to the room that the error of their host has left; further warnings are left out.
fn bound_all(texts: &mut Vec<String>, limit: usize) {
    let mut room = limit;
    texts.retain_mut(|text| {
        cut(text, limit);
        let fits = text.len() <= room;
        room = room.saturating_sub(text.len());
        fits
    });
}

fn bound_text(text: &mut Option<String>, limit: usize) {
    if let Some(text) = text {
        cut(text, limit);
    }
}

/// Message for a run that ends because the API server rejects its status.
pub const REFUSED: &str = "The API server rejects the status of the run, because it is too large. The run is ended. Split its members into several sessions.";

/// A shortened status of a run, in place of a status that is too large for the API server. It holds what the teardown
/// needs, and that the run is to be torn down; for a run that has ended, it holds how the run ended. `None` for an
/// object that is no run.
pub fn shorten(kind: &str, status: &Value, at: Timestamp) -> Option<Value> {
    match kind {
        "RestoreSession" => {
            let mut short: RestoreSessionStatus = serde_json::from_value(status.clone()).ok()?;
            short.stats.iter_mut().for_each(|h| {
                (h.error, h.progress, h.planned, h.restored, h.duration) = (None, None, None, None, None);
                h.snapshots.clear();
                h.warnings.clear();
            });
            short.conditions.retain(kept);
            if !is_final(short.phase) {
                leave(&mut short.conditions, at);
                short.summary = Some(text::summary(REFUSED));
            }
            Some(to_json(&short))
        }
        "RestoreBatch" => {
            let mut short: RestoreBatchStatus = serde_json::from_value(status.clone()).ok()?;
            for member in &mut short.members {
                member.conditions.clear();
                member.message = None;
                member.stats.iter_mut().for_each(|h| {
                    (h.error, h.progress, h.planned, h.restored, h.duration) = (None, None, None, None, None);
                    h.snapshots.clear();
                    h.warnings.clear();
                });
            }
            short.conditions.retain(kept);
            if !is_final(short.phase) {
                leave(&mut short.conditions, at);
                short.summary = Some(text::summary(REFUSED));
            }
            Some(to_json(&short))
        }
        "BackupSession" => {
            let mut short: BackupSessionStatus = serde_json::from_value(status.clone()).ok()?;
            for target in &mut short.targets {
                target.conditions.clear();
                target.stats.clear();
            }
            short.conditions.retain(kept);
            if !is_over(short.phase) {
                // The next reconcile stops the Jobs and ends the session.
                short.phase = Some(BackupPhase::Running);
                conditions::set_health(&mut short.conditions, Health::Reconciling, reason::RUN_TOO_LARGE, REFUSED, at);
                short.summary = Some(text::summary(REFUSED));
            }
            Some(to_json(&short))
        }
        _ => None,
    }
}

/// Whether the condition is one that says how a run stands.
fn kept(c: &Condition) -> bool {
    [condition::READY, condition::RECONCILING, condition::STALLED, condition::CANCELED].contains(&c.type_.as_str())
}

/// Tears a restore down like a canceled one: Jobs are stopped, and workloads are scaled back.
fn leave(list: &mut Vec<Condition>, at: Timestamp) {
    conditions::set(list, condition::CANCELED, false, reason::RUN_TOO_LARGE, REFUSED, at);
    conditions::set_health(list, Health::Reconciling, reason::RUN_TOO_LARGE, REFUSED, at);
}

/// Whether the API server has rejected a status of this run as too large before.
pub fn was_refused(list: &[Condition]) -> bool {
    list.iter().any(|c| c.reason.as_deref() == Some(reason::RUN_TOO_LARGE) && c.message.as_deref() == Some(REFUSED))
}

#[cfg(test)]
mod tests;
