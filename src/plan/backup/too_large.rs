//! Whether a backup is too large for its own status, known before anything is read.

use crate::api::backup_batch::BackupMember;
use crate::api::backup_session::{BackupHostPhase, BackupTargetPhase, HostBackupStats};
use crate::api::to_json;
use crate::plan::backup::pass::Pass;
use crate::plan::backup::run::Invoker;
use crate::plan::run::hosts::{HostSet, TargetKind, named};
use crate::plan::run::size::Size;
use crate::plan::seen::target::{Target, TargetSeen};

/// Why the backup cannot begin, judged by the hosts of the targets that exist. `None` if it can begin, or has begun
/// already: hosts that appear later are judged member by member.
pub fn refusal(pass: &Pass<'_>, invoker: &Invoker) -> Option<String> {
    let waits = |h: &HostBackupStats| h.phase == Some(BackupHostPhase::Pending) && h.snapshots.is_empty();
    if !pass.now.targets.iter().flat_map(|t| &t.stats).all(waits) {
        return None;
    }
    let mut size = begin(invoker);
    for (index, spec) in invoker.members.iter().enumerate() {
        let over = matches!(
            pass.now.targets[index].phase,
            Some(BackupTargetPhase::Failed | BackupTargetPhase::Skipped | BackupTargetPhase::Succeeded)
        );
        match pass.seen.targets.get(index) {
            Some(TargetSeen::Found(target)) if !over && target.too_many().is_none() => add(&mut size, spec, target),
            _ => {}
        }
    }
    size.backup_refusal()
}

/// Why a member cannot begin in addition to the members whose hosts are counted.
pub fn refusal_of(pass: &Pass<'_>, invoker: &Invoker, index: usize, target: &Target) -> Option<String> {
    let mut size = begin(invoker);
    for (status, spec) in pass.now.targets.iter().zip(&invoker.members) {
        for host in &status.stats {
            size.add_host(&host.hostname, host.node.as_deref(), paths(spec));
        }
    }
    add(&mut size, &invoker.members[index], target);
    size.backup_refusal()
}

fn begin(invoker: &Invoker) -> Size {
    let written = to_json(&invoker.members).to_string().len();
    // The invoker holds what users wrote; the session holds the references to the targets.
    Size { members: invoker.members.len(), written: written.min(invoker.members.len() * 1024), ..Size::default() }
}

fn add(size: &mut Size, spec: &BackupMember, target: &Target) {
    let alias = spec.target.as_ref().and_then(|t| t.alias.as_deref());
    let set = HostSet::of(TargetKind::of_name(&target.kind), alias);
    for place in target.places() {
        size.add_host(&set.host(&place), place.node.as_deref(), paths(spec));
    }
}

fn paths(spec: &BackupMember) -> Vec<usize> {
    spec.target.as_ref().map(|t| named(t).1.iter().map(String::len).collect()).unwrap_or_default()
}
