//! restic as a system that restores.

use super::{act, look, needs_of_look, needs_of_restore, settings, work};
use crate::api::common::Rule;
use crate::api::restore_session::HostRestoreStats;
use crate::api::target::RestoreTarget;
use crate::contract::{Failure, Found, Outcome, Part, Work};
use crate::plan::systems::system::{Acting, Looking, Needing, Open, Role, System};
use crate::plan::work::job_spec::frame::Needs;

/// restic.
pub struct Restic;

impl System for Restic {
    fn uses_repository(&self) -> bool {
        true
    }

    fn slot(&self, _: &RestoreTarget) -> Option<String> {
        None
    }

    fn parts(&self, _: &RestoreTarget) -> Option<Vec<String>> {
        None
    }

    fn look(&self, open: Vec<Open<'_>>, about: &Looking<'_>) -> Vec<(Vec<Part>, Work)> {
        let Some(access) = about.access else { return vec![] };
        let queries = open.into_iter().filter_map(|o| look::query(o, about.selection, about.began)).collect();
        let together = look::together(about.selection, about.parts.iter().copied());
        let ask = |queries: Vec<look::Query>| {
            let member = queries.first().and_then(|(part, _)| about.members.get(part.member));
            let (asked, step) = look::step(queries, together.clone());
            (asked, work(access, settings(member.and_then(|m| m.temp_dir.as_ref()), false), step))
        };
        look::chunks(queries).into_iter().map(ask).collect()
    }

    fn pin(&self, host: &mut HostRestoreStats, found: &Found, rule: Option<&Rule>) -> Result<(), Failure> {
        look::pin(host, found, rule)
    }

    fn has_nothing(&self, failure: &Failure) -> bool {
        look::has_no_data(failure)
    }

    fn act(&self, acting: Acting<'_>) -> Option<Work> {
        let Acting { access, host, member, target, rule, mounts, may_have_acted, .. } = acting;
        let step = act::step(host, target, rule?, mounts, may_have_acted);
        let settings = settings(member.temp_dir.as_ref(), member.interim_volume_template.is_some());
        Some(work(access?, settings, step))
    }

    fn needs(&self, asking: Needing<'_>) -> Needs {
        let of = match asking.role {
            Role::Look => needs_of_look,
            Role::Act => needs_of_restore,
        };
        asking.access.map(of).unwrap_or_default()
    }

    fn note(&self, host: &mut HostRestoreStats, outcome: &Outcome) -> Option<u64> {
        act::note(host, outcome)
    }

    fn verdict(&self, outcome: &Outcome, target: &RestoreTarget) -> Option<Failure> {
        act::verdict(outcome, target)
    }

    fn runs_once(&self, target: &RestoreTarget) -> bool {
        act::keeps_files(target)
    }

    fn half_done(&self, why: &str) -> Failure {
        act::half_written(why)
    }

    fn restores_all(&self, target: &RestoreTarget) -> bool {
        act::restores_all(target)
    }
}
