//! A workload whose data is half restored stays at zero. An annotation on it says why.
//!
//! Its data counts as touched from the moment status announces the first attempt of a host, because a Job may exist
//! from then on. It counts as untouched again only if every attempt has ended with an answer that it wrote nothing.

use std::collections::BTreeSet;

use crate::api::common::AfterFailure;
use crate::api::restore_batch::RestoreMemberStatus;
use crate::api::restore_session::{HostPhase, HostRestoreStats, QuiesceState};
use crate::names::{annotation, condition, reason};
use crate::plan::effects::Hold;
use crate::plan::restore::held_note::{Note, Place};
use crate::plan::restore::pass::{LOOK_FOR_MISSING, Pass, target_of};
use crate::plan::restore::places;
use crate::plan::restore::places::Spot;
use crate::plan::restore::refused::refused_once;
use crate::plan::restore::status::{is_held, is_over, is_started};
use crate::plan::restore::users::others;
use crate::plan::restore::workload_events::tell;
use crate::plan::run::hosts::is_within;
use crate::plan::run::{conditions, hosts};
use crate::plan::seen::target::Target;
use crate::text::sentence;

/// Whether data of a host may be half restored.
pub fn is_half(host: &HostRestoreStats) -> bool {
    host.attempt.is_some() && host.phase != Some(HostPhase::Succeeded) && host.unwritten != host.attempt
}

/// Notes that the current attempt of a host has ended before it wrote anything.
pub fn note_unwritten(host: &mut HostRestoreStats) {
    if can_be_known(host) {
        host.unwritten = host.attempt;
    }
}

/// Notes that a Job of the current attempt may have run and is gone, so that its result stays unknown.
pub fn note_unknown(host: &mut HostRestoreStats) {
    host.unwritten = Some(0);
}

/// Whether a Job of the host may have run with an unknown result.
pub fn is_unknown(host: &HostRestoreStats) -> bool {
    host.unwritten == Some(0)
}

/// Whether the current attempt can tell that nothing was written: this is known of all earlier attempts, and no Job of
/// the current attempt has an unknown result.
pub fn can_be_known(host: &HostRestoreStats) -> bool {
    match host.attempt {
        Some(1) => host.unwritten.is_none(),
        attempt => host.unwritten.is_some() && host.unwritten == attempt.map(|a| a - 1),
    }
}

/// Members with the same workload as this member, including itself, by index.
fn same<'p>(pass: &'p Pass<'_>, index: usize) -> impl Iterator<Item = (usize, &'p RestoreMemberStatus)> {
    let own = hosts::target_key(&pass.now.members[index].ref_);
    let is_same =
        move |i: usize, m: &RestoreMemberStatus| i == index || (own.is_some() && hosts::target_key(&m.ref_) == own);
    pass.now.members.iter().enumerate().filter(move |(i, m)| is_same(*i, m))
}

/// Folders that a member restores into.
fn spots_of<'p>(pass: &'p Pass<'_>, index: usize) -> impl Iterator<Item = Spot<'p>> {
    pass.now.members[index].stats.iter().flat_map(move |host| places::of_host(pass, index, host))
}

/// Members with another target that satisfy `is_so` and restore into a volume of this member.
fn beside(pass: &Pass<'_>, index: usize, is_so: impl Fn(&RestoreMemberStatus) -> bool) -> Vec<usize> {
    let own: Vec<usize> = same(pass, index).map(|(i, _)| i).collect();
    let found = pass.now.members.iter().enumerate().filter(|(i, m)| !own.contains(i) && is_so(m)).map(|(i, _)| i);
    let mut found: Vec<usize> = found.collect();
    if !found.is_empty() {
        let volumes: BTreeSet<String> = own.iter().flat_map(|i| spots_of(pass, *i)).map(|s| s.volume).collect();
        found.retain(|i| spots_of(pass, *i).any(|s| volumes.contains(&s.volume)));
    }
    found
}

/// Whether another target's restore writes into a volume of this workload.
pub fn is_written_beside(pass: &Pass<'_>, index: usize) -> bool {
    !beside(pass, index, |m| is_started(m) && m.stats.iter().any(|h| !is_over(h.phase))).is_empty()
}

/// Members and hosts that this run has left half restored on volumes of the workload.
fn halves<'p>(pass: &'p Pass<'_>, index: usize) -> Vec<(usize, &'p HostRestoreStats)> {
    let beside = beside(pass, index, |m| m.stats.iter().any(is_half));
    let of = |i: usize| pass.now.members[i].stats.iter().filter(|h| is_half(h)).map(move |h| (i, h));
    same(pass, index).map(|(i, _)| i).chain(beside).flat_map(of).collect()
}

/// Whether the user wants a member's workload to stay down after a failure. A spec that was changed during its run is
/// not read.
fn stays_down(pass: &Pass<'_>, index: usize) -> bool {
    let target = pass.run.members.get(index).and_then(|m| m.target.as_ref()).filter(|_| !pass.run.is_changed());
    target.and_then(|t| t.after_failure) != Some(AfterFailure::ScaleBack)
}

/// Whether this run has left data of the workload half restored, and the user does not want the workload back like
/// that.
fn is_ours(pass: &Pass<'_>, index: usize) -> bool {
    halves(pass, index).iter().any(|(i, _)| stays_down(pass, *i))
}

/// Whether the workload must stay at zero.
pub fn must_stay(pass: &Pass<'_>, index: usize) -> bool {
    if pass.now.members[index].quiesce.is_none() {
        return false;
    }
    if is_ours(pass, index) {
        return true;
    }
    // Left at zero by an earlier restore. Only a complete restore ends that, or one whose `afterFailure` is ScaleBack.
    is_found_held(pass, index)
        && !has_half(pass, index)
        && !(is_restored(pass, index) && (left_over(pass, index).is_none() || !stays_down(pass, index)))
}

/// Whether an earlier restore had left the workload at zero.
fn is_found_held(pass: &Pass<'_>, index: usize) -> bool {
    same(pass, index).any(|(_, m)| m.quiesce.as_ref().is_some_and(|q| q.held.is_some()))
}

/// Whether this run has left data of the workload half restored.
fn has_half(pass: &Pass<'_>, index: usize) -> bool {
    !halves(pass, index).is_empty()
}

/// Whether this run has restored every host of the workload that it was to restore.
fn is_restored(pass: &Pass<'_>, index: usize) -> bool {
    let is_whole = |h: &HostRestoreStats| h.phase == Some(HostPhase::Succeeded);
    same(pass, index).all(|(_, m)| !m.stats.is_empty() && m.stats.iter().all(is_whole))
}

/// The half-restored data of an earlier restore that this restore has not restored, as messages name it.
fn left_over(pass: &Pass<'_>, index: usize) -> Option<String> {
    let note = target_of(pass.seen, index)?.held_down.as_deref().and_then(|text| Note::read(text).ok())?;
    if note.uid == pass.run.id.uid {
        return None;
    }
    if note.places.is_empty() {
        return Some(UNKNOWN.to_owned());
    }
    let hosts = same(pass, index).flat_map(|(i, m)| m.stats.iter().map(move |h| (i, h)));
    let spots: Vec<_> =
        hosts.filter(|(i, h)| is_written(pass, *i, h)).flat_map(|(i, h)| places::of_host(pass, i, h)).collect();
    let lies_in = |volume: &str, place: &Place| {
        let is_it = |s: &&Spot<'_>| s.volume == volume && (s.only.is_none() || s.only == place.only);
        spots.iter().filter(is_it).filter(|s| is_within(&place.path, &s.path)).collect::<Vec<_>>()
    };
    // Partial files that are not in the snapshots of this restore stay as they are, unless such files are deleted.
    let ends = |spot: &&Spot<'_>, place: &Place| {
        let is_of_same = || !place.snapshots.is_empty() && place.snapshots.iter().all(|id| spot.snapshots.contains(id));
        spot.deletes || (!place.deleting && is_of_same())
    };
    let all = note.places.iter().flat_map(|place| place.volumes.iter().map(move |volume| (place, volume)));
    all.map(|(place, volume)| (place, volume, lies_in(volume, place))).find_map(|(place, volume, spots)| {
        if spots.iter().any(|spot| ends(spot, place)) {
            return None;
        }
        let what = format!("{} of {volume}", place.path);
        Some(match spots.is_empty() {
            true => what,
            false if place.deleting => format!("{what} exactly, as the other one was to (target.extraneous: Delete)"),
            false => format!(
                "{what} from snapshot {}, so that files of it may be left half written (target.extraneous: Delete would remove them)",
                place.snapshots.join(", ")
            ),
        })
    })
}

/// Whether a host has all files of its snapshots. A restore that wrote no files, or skipped existing files or files
/// with only the right size and time, may have left half-restored data as it was.
fn is_written(pass: &Pass<'_>, member: usize, host: &HostRestoreStats) -> bool {
    let spec = pass.run.members.get(member).and_then(|m| m.target.as_ref());
    host.phase == Some(HostPhase::Succeeded)
        && host.attempt.is_some()
        && host.restored.as_ref().is_some_and(|r| r.files > 0)
        && spec.zip(pass.system(member)).is_some_and(|(t, system)| system.restores_all(t))
}

/// Places of a workload that are half restored: those of this run, those that its note already has of this run, and
/// those of an earlier run that this run has not restored. Empty if they are not known: the spec was changed, a volume
/// is gone.
fn places(pass: &Pass<'_>, index: usize, before: Option<&Note>) -> Vec<Place> {
    let is_found = is_found_held(pass, index);
    let stays = |n: &&Note| n.uid == pass.run.id.uid || (is_found && left_over(pass, index).is_some());
    let mut places = match before.filter(stays) {
        Some(note) if note.places.is_empty() => return vec![],
        Some(note) => note.places.clone(),
        None => vec![],
    };
    for (i, host) in halves(pass, index) {
        let spots = places::of_host(pass, i, host);
        if spots.is_empty() || pass.run.is_changed() {
            return vec![];
        }
        for Spot { volume, path, only, snapshots, deletes, .. } in spots {
            let deleting = deletes && (host.deleted.is_some() || host.more_deleted == Some(true));
            let place = Place { volumes: vec![], path, only, snapshots, deleting };
            let is_same = |p: &&mut Place| place == Place { volumes: vec![], ..(**p).clone() };
            match places.iter_mut().find(is_same) {
                Some(place) if place.volumes.contains(&volume) => {}
                Some(place) => place.volumes.push(volume),
                None => places.push(Place { volumes: vec![volume], ..place }),
            }
        }
    }
    places
}

/// Text for what an earlier restore has left if its note names no place.
const UNKNOWN: &str = "all that is half restored, as far as is known";

/// Text about a workload that `afterFailure: ScaleBack` brings back despite half-restored data.
pub const RUNS_ON_HALF: &str = " Its data may be half restored, and afterFailure is ScaleBack.";

/// Whether data of a workload is half restored, by this run or an earlier one.
pub fn is_on_half(pass: &Pass<'_>, index: usize) -> bool {
    let comes_back_so = |m: &RestoreMemberStatus| m.quiesce.as_ref().is_some_and(|q| q.held == Some(false));
    let has_all = || is_restored(pass, index) && left_over(pass, index).is_none();
    let of_before = is_found_held(pass, index) && (!has_all() || same(pass, index).any(|(_, m)| comes_back_so(m)));
    has_half(pass, index) || of_before
}

/// Records, for a workload that is back, whether data that an earlier restore left half restored is still half
/// restored. The annotation on the workload, which lists that data, is removed next.
pub fn settle(pass: &mut Pass<'_>, index: usize) {
    if !is_on_half(pass, index) {
        return;
    }
    let all: Vec<usize> = same(pass, index).map(|(i, _)| i).collect();
    for i in all {
        pass.now.members[i].quiesce.iter_mut().for_each(|q| q.held = q.held.map(|_| false));
    }
}

/// The note on a workload that is at zero, if it has one. A note that cannot be read is ignored, and an event says so.
pub fn found(pass: &mut Pass<'_>, target: &Target) -> Option<Note> {
    match Note::of(target)? {
        Ok(note) => Some(note),
        Err(why) => {
            let text = format!(
                "Annotation {} of {} {why}, so it is ignored: the workload stays at 0 replicas after the restore. Scale it up by hand, and remove the annotation.",
                annotation::HELD_DOWN,
                target.display
            );
            pass.event(true, reason::HELD_DOWN_IGNORED, &text);
            None
        }
    }
}

/// Leaves the workload at zero. True once its annotation says so.
pub fn leave_down(pass: &mut Pass<'_>, index: usize, target: &Target) -> bool {
    let Some(quiesce) = &pass.now.members[index].quiesce else { return true };
    let replicas = quiesce.replicas;
    let (ours, there) = (is_ours(pass, index), target.held_down.as_deref().and_then(|t| Note::read(t).ok()));
    let wanted = Note {
        places: places(pass, index, there.as_ref()),
        replicas,
        session: pass.run.id.label().replacen(' ', "/", 1),
        uid: pass.run.id.uid.clone(),
        why: why(pass, index),
        since: conditions::whole_second(pass.at).0.to_string(),
    };
    let note = match there {
        Some(note) if !ours || note.says(&wanted) => note,
        // No note, or a note that cannot be read, is of an earlier restore, or does not list everything yet.
        _ => return write(pass, index, target, &wanted),
    };
    let (at, name) = (pass.at, &target.display);
    let left = left_over(pass, index).map(|what| format!(" This restore did not restore {what}.")).unwrap_or_default();
    let text = format!(
        "{name} stays at 0 replicas since {}: its data may be half restored by {}.{left} {} {}",
        note.since,
        note.session,
        sentence(&note.why),
        remedy(target, &note, &pass.run.id.namespace),
    );
    let told = others(pass, index).any(is_held);
    let status = &mut pass.now.members[index];
    status.quiesce.iter_mut().for_each(|q| q.state = QuiesceState::Held);
    conditions::remove(&mut status.conditions, condition::SCALED_BACK);
    conditions::set(&mut status.conditions, condition::QUIESCED, true, reason::HELD_DOWN, &text, at);
    if ours && !told {
        tell(pass, index, target, true, reason::HELD_DOWN, &text);
    }
    true
}

/// What to do about a workload that stays at zero.
fn remedy(target: &Target, note: &Note, namespace: &str) -> String {
    let (key, replicas) = (annotation::HELD_DOWN, note.replicas);
    let again = match replicas {
        _ if note.places.is_empty() => {
            "It is not known which data is half restored, so no restore scales it back: restore all data, or check it."
                .to_owned()
        }
        0 => "Restore it again before you scale it up.".to_owned(),
        _ => format!("Restore it again: a successful restore scales it back to {replicas}."),
    };
    let accept = if note.places.is_empty() { "Then" } else { "Or accept the data as it is:" };
    let scale = match replicas {
        0 => String::new(),
        _ => format!(" kubectl -n {namespace} scale {} --replicas={replicas}, and", hold(target, None).key()),
    };
    format!("{again} {accept}{scale} remove its annotation {key}.")
}

fn hold(target: &Target, note: Option<String>) -> Hold {
    Hold { kind: target.kind.clone(), name: target.name.clone(), note }
}

/// Tries once to annotate the workload. True when a session that is being deleted has tried for long enough.
fn write(pass: &mut Pass<'_>, index: usize, target: &Target, note: &Note) -> bool {
    let hold = hold(target, Some(note.write()));
    let Some(refused) = pass.seen.refused_holds.get(&hold.key()).cloned() else {
        pass.plan.holds.push(hold);
        pass.plan.again = true;
        return false;
    };
    let (name, replicas) = (&target.display, note.replicas);
    let text = format!(
        "{name} stays at 0 replicas, and had {replicas} before: its data may be half restored. The annotation {} could not be written: {} Allow Lifeboat to patch the status of workloads (RBAC, admission policies).",
        annotation::HELD_DOWN,
        sentence(&refused.message)
    );
    refused_once(pass, index, &refused.reason, &text, &text)
}

/// Removes the note from a workload that is up. True when the workload has none, or when the removal is refused: then
/// the note stays.
pub fn is_off(pass: &mut Pass<'_>, target: &Target) -> bool {
    if target.held_down.as_deref().is_none_or(|t| Note::read(t).is_err()) {
        return true;
    }
    let hold = hold(target, None);
    let Some(refused) = pass.seen.refused_holds.get(&hold.key()) else {
        pass.plan.holds.push(hold);
        pass.plan.again = true;
        return false;
    };
    let text = format!(
        "{} is scaled back, and its annotation {} could not be removed: {} Remove it.",
        target.display,
        annotation::HELD_DOWN,
        sentence(&refused.message)
    );
    let why = refused.reason.clone();
    pass.event(true, &why, &text);
    pass.plan.look_again(LOOK_FOR_MISSING);
    true
}

/// Why data of the workload is half restored.
fn why(pass: &Pass<'_>, index: usize) -> String {
    if pass.run.id.deleting {
        return "The session was deleted during the restore.".to_owned();
    }
    if pass.run.canceled {
        return "The run was canceled during the restore.".to_owned();
    }
    if pass.run.state.is_withdrawn() {
        return "The run was ended during the restore, because its Repository may no longer be used.".to_owned();
    }
    if pass.run.is_changed() {
        return "The spec was changed during the restore.".to_owned();
    }
    let host = halves(pass, index).first().map(|(_, h)| *h);
    host.map(|h| format!("Host {}: {}", h.hostname, h.error.clone().unwrap_or_default())).unwrap_or_default()
}

/// Records that the workload is back, for every member whose record says that it was left at zero.
pub fn is_back(pass: &mut Pass<'_>, index: usize, text: &str) {
    let at = pass.at;
    let all: Vec<usize> = same(pass, index).filter(|(_, m)| is_held(m)).map(|(i, _)| i).collect();
    for i in all {
        let status = &mut pass.now.members[i];
        status.quiesce.iter_mut().for_each(|q| q.state = QuiesceState::Resumed);
        conditions::set(&mut status.conditions, condition::QUIESCED, false, reason::SCALED_BACK, text, at);
    }
}
