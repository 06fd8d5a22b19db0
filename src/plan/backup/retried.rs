//! Retry of a failed session: another session is created, as often as the invoker allows, and none after a cancel.

use crate::names::reason;
use crate::plan::backup::pass::Pass;
use crate::plan::backup::sessions;
use crate::plan::work::retry;

impl Pass<'_> {
    /// Creates the session that retries a failed one, when it is due.
    pub(super) fn follow(&mut self) {
        if self.run.canceled {
            self.now.retried = Some(false);
            return self.event(true, reason::NOT_RETRIED, "Not retried: the session was canceled.");
        }
        if let Some(wait) = self.now.next_retry.as_ref().and_then(|t| retry::left(t.0, self.at)) {
            return self.plan.look_again(wait);
        }
        let wanted = self.run.invoker.as_ref();
        let wanted = wanted.filter(|i| !i.paused && self.seen.refusal.is_none() && self.retries_left() > 0);
        self.now.retried = Some(wanted.is_some());
        if let Some(invoker) = wanted {
            let new = sessions::retry(&invoker.id, invoker.first_target(), &self.run.id, self.retries_left() - 1);
            let text =
                format!("Created BackupSession {} as a retry.", new.session.metadata.name.as_deref().unwrap_or("-"));
            self.plan.sessions.push(new);
            self.event(false, reason::RETRIED, &text);
        } else {
            let text = format!("Not retried: {} was deleted, or is paused or invalid.", self.run.invoker_label);
            self.event(true, reason::NOT_RETRIED, &text);
        }
    }
}
