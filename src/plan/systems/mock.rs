//! The planning half of a second system, which exists in tests only.

use crate::api::common::Rule;
use crate::api::restore_session::{Counts, HostRestoreStats, PinnedSnapshot};
use crate::api::target::{MockTarget, RestoreTarget};
use crate::contract::mock::{Act, ITEMS, Pin, Work as MockWork};
use crate::contract::{Answer, Class, Failure, Found, Outcome, Part, Work};
use crate::names::{hash_of, reason};
use crate::plan::systems::system::{Acting, Looking, Needing, Open, System};
use crate::plan::work::job_spec::frame::{NeededSecret, Needs};

/// Shelves.
pub struct Mock;

fn of(target: &RestoreTarget) -> MockTarget {
    target.mock.clone().unwrap_or_default()
}

fn items(outcome: &Outcome) -> Option<crate::contract::Tally> {
    match &outcome.answer {
        Some(Answer::Did(did)) => did.tallies.get(ITEMS),
        _ => None,
    }
}

fn count(n: u64) -> Counts {
    Counts { files: i64::try_from(n).unwrap_or(i64::MAX), bytes: 0 }
}

impl System for Mock {
    fn uses_repository(&self) -> bool {
        false
    }

    fn slot(&self, target: &RestoreTarget) -> Option<String> {
        Some(format!("Mock {}", of(target).endpoint))
    }

    fn parts(&self, target: &RestoreTarget) -> Option<Vec<String>> {
        Some(vec![target.alias.clone().unwrap_or_else(|| of(target).shelf)])
    }

    fn look(&self, open: Vec<Open<'_>>, _: &Looking<'_>) -> Vec<(Vec<Part>, Work)> {
        let ask = |open: Open<'_>| {
            let MockTarget { endpoint, shelf, .. } = of(open.target);
            (vec![open.part], Work::Mock(MockWork { endpoint, shelf, act: None }))
        };
        open.into_iter().map(ask).collect()
    }

    fn pin(&self, host: &mut HostRestoreStats, found: &Found, _: Option<&Rule>) -> Result<(), Failure> {
        let pin = found.pin.clone().and_then(|pin| serde_json::from_value::<Pin>(pin).ok());
        let (Some(pin), Some(items)) = (pin, found.planned.get(ITEMS)) else {
            return Err(Failure::new(Class::Fatal, reason::AGENT_FAILED, "The look found nothing that can be read."));
        };
        host.planned = Some(count(items.total));
        host.snapshots = vec![PinnedSnapshot { id: pin.edition, ..PinnedSnapshot::default() }];
        Ok(())
    }

    fn has_nothing(&self, failure: &Failure) -> bool {
        failure.reason == reason::NOTHING_TO_RESTORE
    }

    fn act(&self, acting: Acting<'_>) -> Option<Work> {
        let MockTarget { endpoint, shelf, .. } = of(acting.target);
        let edition = acting.host.snapshots.first()?.id.clone();
        let items = acting.host.planned?.files.unsigned_abs();
        let request = hash_of(&[acting.run, &acting.host.hostname]);
        let act = Act { edition, items, request, look_up: acting.may_have_acted };
        Some(Work::Mock(MockWork { endpoint, shelf, act: Some(act) }))
    }

    fn needs(&self, asking: Needing<'_>) -> Needs {
        Needs { secret: Some(NeededSecret::Mounted(of(asking.target).secret)), ..Needs::default() }
    }

    fn note(&self, host: &mut HostRestoreStats, outcome: &Outcome) -> Option<u64> {
        let items = items(outcome)?;
        (host.planned, host.restored) = (Some(count(items.total)), Some(count(items.done)));
        None
    }

    fn verdict(&self, outcome: &Outcome, _: &RestoreTarget) -> Option<Failure> {
        let Some(items) = items(outcome) else {
            return Some(Failure::new(Class::Fatal, reason::AGENT_FAILED, "The Job ended without counts."));
        };
        let text = || format!("{} of {} items were put back.", items.done, items.total);
        (!items.is_complete()).then(|| Failure::new(Class::Data, reason::INCOMPLETE, text()))
    }

    fn runs_once(&self, _: &RestoreTarget) -> bool {
        false
    }

    fn restores_all(&self, _: &RestoreTarget) -> bool {
        true
    }
}
