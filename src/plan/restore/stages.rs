//! The stages of a member: what it goes through from its turn on, and what follows on every way out.
//!
//! Each pass begins with the first of them: a stage that is done says so at once. A new stage is a line in one of the
//! two lists.

use crate::plan::restore::pass::{Ground, Pass};
use crate::plan::restore::{act, provision, quiesce, scale_back};

/// One stage of a member, by index: whether it is done, so that the next may begin. New Jobs stand on the ground; without
/// it nothing begins.
type Stage = fn(&mut Pass<'_>, usize, Option<&Ground>) -> bool;

/// From a member's turn until all of its hosts are over.
const WAY: [Stage; 3] =
    [|pass, member, _| provision::ensure(pass, member), |pass, member, _| quiesce::quiesce(pass, member), act::all];

/// After that, and on every other way out: cancel, deletion, deadline, a changed spec, a Repository that is withdrawn.
const TEARDOWN: [Stage; 1] = [|pass, member, _| scale_back::resume(pass, member)];

fn walk(stages: &[Stage], pass: &mut Pass<'_>, member: usize, ground: Option<&Ground>) -> bool {
    stages.iter().all(|stage| stage(pass, member, ground))
}

/// Moves a member on as far as it comes.
pub fn advance(pass: &mut Pass<'_>, member: usize, ground: Option<&Ground>) {
    walk(&WAY, pass, member, ground);
}

/// True when nothing of the member is out of its place any more, or it stays so on purpose.
pub fn tear_down(pass: &mut Pass<'_>, member: usize) -> bool {
    walk(&TEARDOWN, pass, member, None)
}
