//! Handles a workload whose scale-back the API server refuses: reports the refusal in status, and retries.

use k8s_openapi::jiff::SignedDuration;

use super::pass::{LOOK_FOR_MISSING, Pass};
use crate::api::Condition;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::names::condition;
use crate::plan::run::conditions;

/// Time for which a session that is being deleted retries a refused scale-back. A webhook or its node may be away that
/// long: pods of a dead node are moved after five minutes, and start.
pub const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// Reports what the API server refused when scaling a workload back, and requeues. True when a session that is being
/// deleted has tried for long enough; `last` is reported then.
pub fn refused_once(pass: &mut Pass<'_>, index: usize, why: &str, text: &str, last: &str) -> bool {
    let at = pass.at;
    let status = &mut pass.now.members[index];
    let since = refusal(status).map(|c| c.last_transition_time.0);
    conditions::set(&mut status.conditions, condition::SCALED_BACK, false, why, text, at);
    status.message = Some(text.to_owned());
    if since.is_none() {
        pass.event(true, why, text);
    }
    if pass.run.id.deleting && since.is_some_and(|since| at.duration_since(since) > PATIENCE) {
        pass.event(true, why, last);
        return true;
    }
    pass.plan.look_again(LOOK_FOR_MISSING);
    false
}

/// The condition that a workload could not be scaled back yet.
pub fn refusal(status: &RestoreMemberStatus) -> Option<&Condition> {
    status.conditions.iter().find(|c| c.type_ == condition::SCALED_BACK && c.status == "False")
}

/// Why a workload of the run is not back, if the API server refuses it: reason and text.
pub fn why_refused(members: &[RestoreMemberStatus]) -> Option<(String, String)> {
    members.iter().find_map(|m| refusal(m)).and_then(|c| Some((c.reason.clone()?, c.message.clone()?)))
}

/// Only the text of [`why_refused`].
pub fn refused(members: &[RestoreMemberStatus]) -> Option<String> {
    why_refused(members).map(|(_, text)| text)
}
