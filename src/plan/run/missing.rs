//! Warnings about missing objects: one event for each object and cause. Whether an event is due is read from the
//! conditions before and after a reconcile, so a reconcile that finds the same again publishes nothing.

use crate::api::Condition;
use crate::names::{condition, reason};
use crate::plan::effects::{Event, Plan};
use crate::plan::repository::store_reasons;
use crate::text;

/// Conditions that report a missing object.
const FOUND: [&str; 5] = [
    condition::REPOSITORY_FOUND,
    condition::BACKEND_SECRET_FOUND,
    condition::BACKUP_TARGET_FOUND,
    condition::RESTORE_TARGET_FOUND,
    // For a restore that cannot begin: a PVC of its target does not exist.
    condition::RESTORE_EXECUTOR_ENSURED,
];
/// Reasons of these conditions for a missing object. An object that could not be looked up is not known to be missing.
const MISSING: [&str; 3] =
    [reason::REPOSITORY_NOT_AVAILABLE, reason::BACKEND_SECRET_NOT_AVAILABLE, reason::TARGET_NOT_AVAILABLE];
/// Reasons whose texts may differ between reconciles.
const UNKNOWN: [&str; 3] = [reason::REPOSITORY_UNKNOWN, reason::BACKEND_SECRET_UNKNOWN, reason::TARGET_UNKNOWN];

/// Reason of the condition with this message, if the condition is not True.
pub fn reason_of<'a>(list: &'a [Condition], message: &str) -> Option<&'a str> {
    let said = list.iter().find(|c| FOUND.contains(&c.type_.as_str()) && c.message.as_deref() == Some(message));
    said.filter(|c| c.status != "True")?.reason.as_deref()
}

impl Plan {
    /// Warns of objects that the conditions newly report as missing.
    pub fn warn_of_missing(&mut self, before: &[Condition], now: &[Condition]) {
        let says = |c: &&Condition| FOUND.contains(&c.type_.as_str()) && c.status == "False";
        for c in now.iter().filter(says) {
            let Some(why) = c.reason.as_deref().filter(|why| MISSING.contains(why)) else { continue };
            // A target is the same one as long as its object is.
            if !before.iter().any(|b| b.type_ == c.type_ && b.status == c.status && b.reason == c.reason) {
                self.events.push(Event::new(true, why, c.message.as_deref().unwrap_or_default()));
            }
        }
    }

    /// Warns of what a run waits for, if the conditions did not say so before.
    pub fn warn_of_wait(&mut self, before: &[Condition], message: &str) {
        let said = text::message(message);
        let is_said = |c: &Condition| {
            c.type_ == condition::READY && c.status != "True" && c.message.as_deref() == Some(said.as_str())
        };
        if !before.iter().any(is_said) {
            self.events.push(Event::new(true, reason::PENDING, message));
        }
    }
}

/// The warning that an object is not ready, if the conditions did not say so before, or gave another reason.
pub fn not_ready(before: &[Condition], now: &[Condition]) -> Option<Event> {
    let ready = |list: &[Condition]| list.iter().find(|c| c.type_ == condition::READY).cloned();
    let now = ready(now).filter(|c| c.status != "True")?;
    let why = now.reason.clone().unwrap_or_default();
    // The repository is opened without user action.
    if why == reason::NOT_OPENED {
        return None;
    }
    let varies = UNKNOWN.contains(&why.as_str()) || store_reasons::is_of_store(&why);
    let same = |b: &Condition| {
        b.status == now.status && b.reason.as_ref() == Some(&why) && (varies || b.message == now.message)
    };
    let said = ready(before).is_some_and(|b| same(&b));
    (!said).then(|| Event::new(true, &why, now.message.as_deref().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::plan::effects::Plan;
    use crate::plan::run::conditions::{Value, set};

    fn said(type_: &str, value: Value, why: &str, text: &str) -> Vec<Condition> {
        let mut list = vec![];
        set(&mut list, type_, value, why, text, Timestamp::UNIX_EPOCH);
        list
    }

    fn warned(before: &[Condition], now: &[Condition]) -> usize {
        let mut plan = Plan::nothing();
        plan.warn_of_missing(before, now);
        plan.events.len()
    }

    #[test]
    fn what_is_missing_is_warned_of_once_and_again_when_it_was_there_in_between() {
        let (type_, why) = (condition::BACKEND_SECRET_FOUND, reason::BACKEND_SECRET_NOT_AVAILABLE);
        let missing = said(type_, Value::False, why, "It does not exist.");
        let there = said(type_, Value::True, reason::BACKEND_SECRET_AVAILABLE, "It exists.");
        let unknown = said(type_, Value::Unknown, reason::BACKEND_SECRET_UNKNOWN, "timeout 17");
        assert_eq!((warned(&[], &missing), warned(&missing, &missing), warned(&there, &missing)), (1, 0, 1));
        assert_eq!((warned(&missing, &there), warned(&[], &unknown)), (0, 0));
        let denied = said(condition::REPOSITORY_FOUND, Value::False, reason::REPOSITORY_NOT_ALLOWED, "No.");
        assert_eq!(warned(&[], &denied), 0, "that has an event of its own");
    }

    #[test]
    fn one_that_is_not_ready_warns_of_each_cause_once() {
        let not = |why: &str, text: &str| said(condition::READY, Value::False, why, text);
        let count = |before: &[Condition], now: &[Condition]| usize::from(not_ready(before, now).is_some());
        let (a, b) = (not(reason::TARGET_NOT_AVAILABLE, "a"), not(reason::TARGET_NOT_AVAILABLE, "b"));
        assert_eq!((count(&[], &a), count(&a, &a), count(&a, &b)), (1, 0, 1));
        for why in [reason::TARGET_UNKNOWN, reason::REPOSITORY_UNREACHABLE] {
            assert_eq!(count(&not(why, "timeout 1"), &not(why, "timeout 2")), 0, "{why}");
        }
        let ready = said(condition::READY, Value::True, reason::BACKUPS_CAN_BE_TAKEN, "");
        assert_eq!((count(&a, &ready), count(&[], &not(reason::NOT_OPENED, ""))), (0, 0));
    }
}
