//! The stages of a member: those of the restore, from its turn on, and those of the teardown, however the restore ends.
//!
//! Each pass begins with the first stage; a stage that is done returns true at once. A new stage is a line in one of
//! the two lists.

use crate::plan::restore::pass::{Ground, Pass};
use crate::plan::restore::{act, provision, quiesce, scale_back};

/// One stage of a member, by index. True if it is done, so that the next stage may begin. New Jobs need the ground;
/// without it nothing begins.
type Stage = fn(&mut Pass<'_>, usize, Option<&Ground>) -> bool;

/// From a member's turn until all of its hosts are over.
const WAY: [Stage; 3] =
    [|pass, member, _| provision::ensure(pass, member), |pass, member, _| quiesce::quiesce(pass, member), act::all];

/// After that, and whenever the run ends early: cancel, deletion, deadline, a changed spec, a Repository that is
/// withdrawn.
const TEARDOWN: [Stage; 1] = [|pass, member, _| scale_back::resume(pass, member)];

fn walk(stages: &[Stage], pass: &mut Pass<'_>, member: usize, ground: Option<&Ground>) -> bool {
    stages.iter().all(|stage| stage(pass, member, ground))
}

/// Runs the stages of a member until one is not done.
pub fn advance(pass: &mut Pass<'_>, member: usize, ground: Option<&Ground>) {
    walk(&WAY, pass, member, ground);
}

/// True when nothing of the member is left to undo, or what is left stays on purpose.
pub fn tear_down(pass: &mut Pass<'_>, member: usize) -> bool {
    walk(&TEARDOWN, pass, member, None)
}
