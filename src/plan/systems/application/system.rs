//! Applications as a system that restores.

use crate::api::common::Rule;
use crate::api::restore_batch::RestoreMember;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::contract::application::{Load, Step};
use crate::contract::restic::{Counts, PinnedSnapshot};
use crate::contract::{Answer, Class, Failure, Found as Looked, Outcome, Part, Work};
use crate::names::reason;
use crate::plan::seen::target::Target;
use crate::plan::systems::application::found::{Found, Way};
use crate::plan::systems::application::{check, needs, work};
use crate::plan::systems::restic::system::Restic;
use crate::plan::systems::restic::{needs_of_look, settings};
use crate::plan::systems::system::{Acting, Looking, Needing, Open, Role, System};
use crate::plan::work::job_spec::frame::Needs;

/// Applications.
pub struct Application;

fn found<'a>(seen: Option<&'a Target>, member: &'a RestoreMember, namespace: &'a str) -> Option<Found<'a>> {
    let seen = seen?;
    let binding = seen.application.as_deref()?;
    Some(Found { binding, name: &seen.name, namespace, task: member.task.as_ref() })
}

impl System for Application {
    fn uses_repository(&self) -> bool {
        true
    }

    fn slot(&self, _: &RestoreTarget) -> Option<String> {
        None
    }

    fn parts(&self, _: &RestoreTarget) -> Option<Vec<String>> {
        None
    }

    fn check(&self, seen: &Target, member: &RestoreMember, namespace: &str) -> Result<(), Failure> {
        found(Some(seen), member, namespace).map_or(Ok(()), |found| check(found, Way::Load))
    }

    fn opened<'a>(&self, open: Open<'a>) -> Open<'a> {
        // A dump is a file at the root of its snapshot, which belongs to whoever made the dump.
        Open { mounts: vec!["/".to_owned()], runner: None, no_devices: false, ..open }
    }

    fn look(&self, open: Vec<Open<'_>>, about: &Looking<'_>) -> Vec<(Vec<Part>, Work)> {
        Restic.look(open, about)
    }

    fn pin(&self, host: &mut HostRestoreStats, found: &Looked, rule: Option<&Rule>) -> Result<(), Failure> {
        Restic.pin(host, found, rule)
    }

    fn has_nothing(&self, failure: &Failure) -> bool {
        Restic.has_nothing(failure)
    }

    fn act(&self, acting: Acting<'_>) -> Option<Work> {
        let Acting { access, host, member, seen, namespace, .. } = acting;
        let pin = |s: &crate::api::restore_session::PinnedSnapshot| PinnedSnapshot {
            id: s.id.clone(),
            time: s.time.clone().unwrap_or_default(),
            path: s.path.clone(),
        };
        let planned = host.planned.map(|c| Counts { files: c.files.unsigned_abs(), bytes: c.bytes.unsigned_abs() });
        let load = Load { snapshots: host.snapshots.iter().map(pin).collect(), planned };
        let settings = settings(member.temp_dir.as_ref(), member.interim_volume_template.is_some());
        work(found(seen, member, namespace)?, Way::Load, access?, settings, Step::Load(load)).ok()
    }

    fn needs(&self, asking: Needing<'_>) -> Needs {
        let Some(access) = asking.access else { return Needs::default() };
        let found = found(asking.seen, asking.member, asking.namespace).filter(|_| asking.role == Role::Act);
        // Whether the AppBinding is valid was checked before.
        found.and_then(|f| needs(f, Way::Load, access, asking.addons).ok()).unwrap_or_else(|| needs_of_look(access))
    }

    fn note(&self, host: &mut HostRestoreStats, outcome: &Outcome) -> Option<u64> {
        Restic.note(host, outcome)
    }

    fn verdict(&self, outcome: &Outcome, _: &RestoreTarget) -> Option<Failure> {
        let Some(Answer::Did(did)) = &outcome.answer else {
            let text = "The Job ended without counts of what it loaded.";
            return Some(Failure::new(Class::Fatal, reason::AGENT_FAILED, text));
        };
        if did.tallies.is_empty() {
            return Some(Failure::new(Class::Fatal, reason::AGENT_FAILED, "The Job loaded nothing."));
        }
        let wrong: Vec<String> =
            did.tallies.incomplete().map(|(what, tally)| format!("{} of {} {what}", tally.done, tally.total)).collect();
        let text = || format!("Not everything was loaded: {}. See the log of the Job.", wrong.join(", "));
        (!wrong.is_empty()).then(|| Failure::new(Class::Data, reason::INCOMPLETE, text()))
    }

    fn runs_once(&self, _: &RestoreTarget) -> bool {
        // Each object of a dump is dropped before it is created, so another attempt loads everything again.
        false
    }

    fn restores_all(&self, _: &RestoreTarget) -> bool {
        true
    }
}
