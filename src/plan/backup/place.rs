//! A session works on one place: its repository stays where it was opened, from the first Job to the last.
//!
//! Each Job gets the location that the Repository names at that moment. A user may change the Repository while the
//! session runs.

use crate::api::backup_session::BackupHostPhase;
use crate::names::reason;
use crate::plan::backup::members;
use crate::plan::backup::pass::Pass;
use crate::plan::systems::restic::backend::Access;
use crate::plan::systems::restic::backup::PREPARE;
use crate::text;

impl Pass<'_> {
    /// Notes which place the next Job opens. Until a Job has opened it, a user may correct a wrong location.
    pub(super) fn note_place(&mut self, access: &Access) {
        let steps = || self.now.run.iter().flat_map(|r| &r.steps);
        let (done, attempt) = steps().find(|s| s.name == PREPARE).map_or((false, 1), |s| (s.done, s.attempt));
        if !done && self.job(PREPARE, attempt).is_none() {
            self.now.run.get_or_insert_default().place = Some(access.place());
        }
    }

    /// Whether the repository is in another place than the one that was opened. Snapshots in one place and retention in
    /// another would be no backup.
    pub(super) fn is_moved(&mut self, access: &Access) -> bool {
        let (run, place) = (self.now.run.get_or_insert_default(), access.place());
        *run.place.get_or_insert_with(|| place.clone()) != place
    }

    /// Ends a session whose invoker or backend has changed while the session runs.
    pub(super) fn break_off(&mut self, what: &str) {
        let done = self.now.targets.iter().flat_map(|t| &t.stats);
        let done = done.filter(|h| h.phase == Some(BackupHostPhase::Succeeded)).count();
        let text = format!(
            "{what} during the session, so it was ended; {} backed up before. Create another session.",
            text::count(i64::try_from(done).unwrap_or(i64::MAX), "host was", "hosts were")
        );
        members::give_up(self, reason::SPEC_CHANGED, &text);
    }
}
