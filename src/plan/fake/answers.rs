//! What Jobs of other systems than restic answer in tests of plans.

use crate::contract::restic::{Answer, SnapshotMade};
use crate::contract::{self, Did, Found, Part, Tallies, Tally, Task, application, mock};
use crate::plan::fake::End;

/// The answer of the second system.
pub fn of_mock(task: &Task, work: &mock::Work, end: &End) -> contract::Answer {
    let tally = |done| Tallies::default().with(mock::ITEMS, done);
    let Some(act) = &work.act else {
        let pin = serde_json::to_value(mock::Pin { edition: "e1".into() }).ok();
        let found = |part: &Part| Found {
            part: part.clone(),
            pin: pin.clone(),
            planned: tally(Tally::planned(7)),
            ..Found::default()
        };
        return contract::Answer::Found(task.parts.iter().map(found).collect());
    };
    let done = if *end == End::Short { act.items - 1 } else { act.items };
    contract::Answer::Did(Did { tallies: tally(Tally::of(done, act.items)) })
}

/// The answer of an application.
pub fn of_application(work: &application::Work, end: &End) -> contract::Answer {
    match &work.step {
        application::Step::Dump(_) => {
            let made = |path: &str| SnapshotMade { id: "ab".repeat(32), path: path.into(), ..SnapshotMade::default() };
            Answer::BackedUp(vec![made(work.addon.file()), made(application::MANIFEST_FILE)]).into()
        }
        application::Step::Load(_) => {
            let lost = u64::from(*end == End::Short);
            let tallies = Tallies::default().with("files", Tally::of(2, 2)).with("bytes", Tally::of(20, 20));
            contract::Answer::Did(Did { tallies: tallies.with("objects", Tally::of(5 - lost, 5)) })
        }
    }
}
