//! The restore of a host: what restic is asked, and what its answer means.

use super::{args, counts};
use crate::api::common::{Ownership, Rule};
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::contract::restic::{
    Counts, PinnedSnapshot, Restore, Restored, Step, keeps_what_is_there, reads_what_is_there,
};
use crate::contract::{Answer, Class, Failure, Outcome};
use crate::names::reason;
use crate::text;

/// The restore of what is pinned. `may_have_written`: an earlier Job may have written files, so that restic reads all
/// existing files.
pub fn step(
    host: &HostRestoreStats,
    target: &RestoreTarget,
    rule: &Rule,
    mounts: Vec<String>,
    may_have_written: bool,
) -> Step {
    let args = args::without_tags(&target.args);
    let pin = |s: &crate::api::restore_session::PinnedSnapshot| PinnedSnapshot {
        id: s.id.clone(),
        time: s.time.clone().unwrap_or_default(),
        path: s.path.clone(),
    };
    let planned = |c: crate::api::restore_session::Counts| Counts {
        files: c.files.unsigned_abs(),
        bytes: c.bytes.unsigned_abs(),
    };
    Step::Restore(Restore {
        snapshots: host.snapshots.iter().map(pin).collect(),
        include: rule.include.clone(),
        exclude: rule.exclude.clone(),
        args: if may_have_written { reads_what_is_there(&args) } else { args },
        mounts,
        allow_empty: target.allow_empty.unwrap_or(false),
        ignore_owners: target.ownership == Some(Ownership::Ignore),
        planned: host.planned.map(planned),
        owner: host.owner.clone(),
        exact: target.is_exact(),
    })
}

/// Whether another attempt would treat files that one attempt has begun as complete, and not finish them.
pub fn keeps_files(target: &RestoreTarget) -> bool {
    keeps_what_is_there(&target.args)
}

/// Whether a restore that succeeds has written, or compared byte for byte, all files of its snapshots.
pub fn restores_all(target: &RestoreTarget) -> bool {
    !keeps_what_is_there(&target.args) && reads_what_is_there(&target.args) == target.args
}

/// Why a restore that [`keeps_files`] is not retried.
pub fn half_written(why: &str) -> Failure {
    let text = format!(
        "{why} Files may be half written, and with --overwrite never or if-newer restic would keep them, so the restore is not retried. Remove the restored files, or remove --overwrite, and create another restore."
    );
    Failure::new(Class::Data, reason::INCOMPLETE, text)
}

/// Records what a Job reports as restored. Returns the number of entries that it reports as deleted.
pub fn note(host: &mut HostRestoreStats, outcome: &Outcome) -> Option<u64> {
    let restored = restored(outcome)?;
    host.planned = Some(counts(restored.planned));
    host.restored = Some(counts(restored.restored));
    restored.deleted
}

fn restored(outcome: &Outcome) -> Option<Restored> {
    match &outcome.answer {
        Some(Answer::Did(did)) => Restored::of(&did.tallies),
        _ => None,
    }
}

/// Why a Job has not restored its host. Success is computed from counts, never from an exit code alone.
pub fn verdict(outcome: &Outcome, target: &RestoreTarget) -> Option<Failure> {
    let allow_empty = target.allow_empty.unwrap_or(false);
    let exact = target.is_exact();
    let failed = |class, why, text: String| Some(Failure::new(class, why, text));
    let Some(r) = restored(outcome) else {
        let text = "The Job ended without counts of what it restored.";
        return failed(Class::Fatal, reason::AGENT_FAILED, text.to_owned());
    };
    if r.errors > 0 || r.restored != r.planned {
        let (restored, planned) = (counts(r.restored), counts(r.planned));
        let text = format!(
            "{} of {} were restored ({}), with {}. See the log of the Job.",
            r.restored.files,
            text::entries(planned.files),
            text::bytes_of(restored.bytes, planned.bytes),
            text::count(i64::try_from(r.errors).unwrap_or(i64::MAX), "error", "errors")
        );
        return failed(Class::Data, reason::INCOMPLETE, text);
    }
    if r.restored.files == 0 && !allow_empty {
        let text = "Nothing was restored: no file of the snapshot matches the rule. If that is fine, set target.allowEmpty: true.";
        return failed(Class::Data, reason::NOTHING_TO_RESTORE, text.to_owned());
    }
    if exact && r.deleted.is_none() {
        let text =
            "The Job restored everything, but did not search for extraneous files: its image has another version.";
        return failed(Class::Fatal, reason::AGENT_FAILED, text.to_owned());
    }
    None
}
