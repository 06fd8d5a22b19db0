//! How Jobs end.

use std::rc::Rc;

use crate::contract::restic::{Counts, PinnedSnapshot, Pins, Restored};
use crate::contract::{Answer, Class, Did, Failure, Found, Outcome, Part, Tallies, Tally, VERSION, mock};
use crate::names::reason;
use crate::plan::restore::tests::states::cluster::{Cluster, Made, is_preflight};
use crate::plan::seen::job_status::{JobSeen, JobState};

/// How an attempt at a step ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Ok,
    /// It fails before it has written anything.
    Untouched,
    /// Its data is at fault. For a preflight: the first host that it asked for has no snapshot; with `LastData`, only
    /// the last.
    Data,
    LastData,
    /// It reports success, but has restored less than was planned.
    Short,
    /// It has restored everything, but could not delete all extraneous entries.
    NotDeleted,
    /// It has restored everything, but does not report what it deleted: an agent of another version.
    Silent,
    /// The infrastructure is at fault.
    Infrastructure,
    /// Its pod died without an answer.
    Died,
    /// It counts as lost while its pod still runs.
    Lingers,
    /// Its pod can never start.
    NeverStarts,
    /// A user deletes it.
    ByHand,
}

pub const FAULTS: [End; 11] = [
    End::Untouched,
    End::Data,
    End::LastData,
    End::Short,
    End::NotDeleted,
    End::Silent,
    End::Infrastructure,
    End::Died,
    End::Lingers,
    End::NeverStarts,
    End::ByHand,
];

/// Whether a Job can end like this.
pub fn fits(end: End, job: &Made) -> bool {
    match end {
        End::LastData => is_preflight(&job.seen),
        End::Untouched => !is_preflight(&job.seen),
        End::NotDeleted | End::Silent => job.exact,
        _ => true,
    }
}

impl Cluster {
    /// The cluster after a Job has ended.
    pub fn ended(&self, at: usize, end: End) -> Self {
        let mut after = self.clone();
        let run = self.run.id.uid.clone();
        let Made { seen, runs, exact, outside } = &mut after.jobs[at];
        let (exact, outside) = (*exact, outside.is_some());
        let seen = Rc::make_mut(seen);
        let mut outcome = Outcome { version: VERSION, run, seconds: 1.0, ..Outcome::default() };
        *runs = matches!(end, End::Lingers | End::NeverStarts | End::ByHand);
        let lost = |class, why| JobState::Lost(Failure::new(class, why, "It is lost."));
        let fails = |class, why| Some(Failure::new(class, why, "It is at fault."));
        match end {
            End::Ok | End::Short | End::LastData | End::Silent => {
                outcome.answer = Some(answer(seen, exact, outside, end));
            }
            End::NotDeleted => {
                outcome.answer = Some(answer(seen, exact, outside, end));
                outcome.failure = fails(Class::Data, reason::EXTRANEOUS_NOT_DELETED);
            }
            End::Untouched => {
                outcome.failure = fails(Class::Data, reason::NO_SPACE);
                outcome.untouched = true;
            }
            End::Data if is_preflight(seen) => outcome.answer = Some(answer(seen, exact, outside, end)),
            End::Data => outcome.failure = fails(Class::Data, reason::DATA_CORRUPT),
            End::Infrastructure => outcome.failure = fails(Class::Transient, reason::REPOSITORY_UNREACHABLE),
            End::Died => seen.state = lost(Class::Transient, reason::OOM_KILLED),
            End::Lingers => seen.state = lost(Class::Transient, reason::DISRUPTED),
            End::NeverStarts => seen.state = lost(Class::Invalid, reason::IMAGE_INVALID),
            End::ByHand => seen.deleting = true,
        }
        let deleted = match &outcome.answer {
            Some(Answer::Did(did)) => Restored::of(&did.tallies).and_then(|r| r.deleted),
            // A Job whose pod dies may have deleted an entry before.
            _ => (exact && matches!(end, End::Died | End::Lingers)).then_some(1),
        };
        if let Some(deleted) = deleted {
            let (all, known) = Rc::make_mut(&mut after.deleted).entry(seen.key.clone()).or_default();
            *all += deleted.cast_signed();
            *known += if seen.deleting { 0 } else { deleted.cast_signed() };
        }
        if outcome.answer.is_some() || outcome.failure.is_some() {
            if end == End::Ok && !is_preflight(seen) {
                Rc::make_mut(&mut after.done).insert(seen.key.clone());
            }
            if end == End::Untouched
                && let Some(jobs) = Rc::make_mut(&mut after.touched).get_mut(&seen.key)
            {
                *jobs -= 1;
            }
            seen.state = JobState::Done(Box::new(outcome));
        }
        after
    }
}

fn answer(seen: &JobSeen, exact: bool, outside: bool, end: End) -> Answer {
    let items = |tally| Tallies::default().with(mock::ITEMS, tally);
    if !is_preflight(seen) && outside {
        return Answer::Did(Did { tallies: items(Tally::of(if end == End::Short { 6 } else { 7 }, 7)) });
    }
    if !is_preflight(seen) {
        let counts = |files| Counts { files, bytes: files * 10 };
        let restored = counts(if end == End::Short { 6 } else { 7 });
        // Each Job finds one extraneous entry.
        let deleted = (exact && !matches!(end, End::Short | End::Silent)).then_some(1);
        let did = Restored { planned: counts(7), restored, deleted, ..Restored::default() };
        return Answer::Did(Did { tallies: did.tallies() });
    }
    let bad = match end {
        End::Data => Some(0),
        End::LastData => Some(seen.parts.len() - 1),
        _ => None,
    };
    let pin = || PinnedSnapshot { id: "cd".repeat(32), time: "2026-11-20T00:00:00Z".into(), path: None };
    let none = || Failure::new(Class::Data, reason::SNAPSHOT_NOT_FOUND, "There is no snapshot.");
    let edition = || serde_json::to_value(mock::Pin { edition: "e1".into() }).ok();
    let pins = || if outside { edition() } else { Pins { snapshots: vec![pin()], ..Pins::default() }.write() };
    let planned = || if outside { items(Tally::planned(7)) } else { Tallies::default() };
    let of = |(i, part): (usize, &Part)| match bad {
        Some(bad) if bad == i => Found { part: part.clone(), failure: Some(none()), ..Found::default() },
        _ => Found { part: part.clone(), pin: pins(), planned: planned(), ..Found::default() },
    };
    Answer::Found(seen.parts.iter().enumerate().map(of).collect())
}
