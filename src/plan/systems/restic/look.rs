//! The look of restic before anything is changed: which snapshots each host is restored from, and how much that is.

use std::collections::BTreeSet;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::{args, counts};
use crate::api::common::Rule;
use crate::api::restore_session::{HostRestoreStats, PinnedSnapshot};
use crate::api::target::RestoreTarget;
use crate::contract::restic::{Companion, Counts, HostQuery, Pins, Preflight, Step};
use crate::contract::{Class, Failure, Found, OUTCOME_LIMIT, OUTCOME_SLACK, Part};
use crate::names::reason;
use crate::plan::run::hosts::{HostSet, normal_path, rule_for, source_host};
use crate::plan::run::selection::Selection;
use crate::plan::systems::system::Open;

/// A host, and the snapshots that it wants.
pub type Query = (Part, HostQuery);

/// Bytes that one pinned snapshot takes in an answer, without its path: id (64), time (35) and JSON around them.
const ANSWER_BYTES: usize = 180;
/// Number of digits that name a snapshot that is already pinned.
const PINNED_DIGITS: usize = 16;
/// Reasons that mean that there is nothing to restore.
const NO_DATA: [&str; 3] = [reason::SNAPSHOT_NOT_FOUND, reason::REPOSITORY_MISSING, reason::NOTHING_TO_RESTORE];

/// The query for a host. `began` is when the run began.
pub fn query(open: Open<'_>, selection: &Selection, began: Timestamp) -> Option<Query> {
    let Open { part, target, rule, mounts, runner, no_devices } = open;
    let rule = rule?;
    // A rule with a selection of its own is not narrowed down by the selection of the session.
    let of_session = if selects(rule) { &Selection::default() } else { selection };
    let query = HostQuery {
        source_host: source_host(rule, &part.name).to_owned(),
        snapshots: rule.snapshots.clone(),
        paths: rule.paths.clone(),
        tags: with_tags(args::tags(&target.args), &rule.tags),
        as_of: rule.as_of.as_ref().or(of_session.as_of.as_ref()).map(|at| not_later(began, at)),
        together: of_session.as_of.is_some(),
        session: of_session.session.clone(),
        previous: rule.previous.and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        mounts,
        runner,
        include: rule.include.clone(),
        exclude: rule.exclude.clone(),
        no_devices,
        allow_empty: target.allow_empty.unwrap_or(false),
        exact: target.is_exact(),
    };
    Some((part, query))
}

/// The step that runs these queries, and the parts that it is for.
pub fn step(queries: Vec<Query>, together: Vec<Companion>) -> (Vec<Part>, Step) {
    let (asked, hosts): (Vec<Part>, Vec<HostQuery>) = queries.into_iter().unzip();
    (asked, Step::Preflight(Preflight { hosts, together }))
}

/// Whether a rule itself says which backup it takes.
fn selects(rule: &Rule) -> bool {
    rule.as_of.is_some() || rule.previous.is_some() || rule.snapshots.iter().any(|s| s != "latest")
}

/// Limits a time to the start of the run. A backup that is made later may exist for one host and not yet for the next,
/// so a later time means the time when the run began.
fn not_later(began: Timestamp, as_of: &str) -> String {
    // Status has whole seconds, cut off.
    let last = began.saturating_add(SignedDuration::from_secs(1)).unwrap_or(began);
    if as_of.parse::<Timestamp>().is_ok_and(|at| at > last) { last.to_string() } else { as_of.to_owned() }
}

/// The hosts of all members that follow the session's `asOf`, so that every Job of the preflight chooses the same run.
/// If a target does not exist yet, its hosts are known only if it has one host.
pub fn together<'a>(
    selection: &Selection,
    members: impl IntoIterator<Item = (&'a RestoreTarget, &'a [HostRestoreStats])>,
) -> Vec<Companion> {
    let mut all = BTreeSet::new();
    if selection.as_of.is_none() {
        return vec![];
    }
    for (target, stats) in members {
        let mut hosts: Vec<(String, Option<String>)> = vec![];
        for host in stats {
            let pinned = host.snapshots.first().and_then(|s| s.id.get(..PINNED_DIGITS)).map(str::to_owned);
            hosts.push((host.hostname.clone(), pinned));
        }
        if let (HostSet::One(host), true) = (HostSet::of_restore(target), hosts.is_empty()) {
            hosts.push((host, None));
        }
        for (host, pinned) in hosts {
            let Some(rule) = rule_for(&target.rules, &host).filter(|r| !selects(r)) else { continue };
            all.insert(Companion {
                source_host: source_host(rule, &host).to_owned(),
                tags: with_tags(args::tags(&target.args), &rule.tags),
                optional: target.allow_empty.unwrap_or(false),
                pinned,
            });
        }
    }
    all.into_iter().collect()
}

/// Lists of tags of which one must match in full, each extended by further tags.
fn with_tags(mut lists: Vec<Vec<String>>, more: &[String]) -> Vec<Vec<String>> {
    if lists.is_empty() && !more.is_empty() {
        lists.push(vec![]);
    }
    lists.iter_mut().for_each(|list| list.extend_from_slice(more));
    lists
}

/// Splits queries so that each chunk's answers most likely fit into one termination message. The number of snapshots
/// that `latest` means, one per path that was backed up, is not known here: an answer that does not fit is left out,
/// and requested again.
pub fn chunks(queries: Vec<Query>) -> Vec<Vec<Query>> {
    let mut chunks: Vec<Vec<Query>> = vec![];
    let mut room = 0;
    for (part, query) in queries {
        let paths: usize = query.paths.iter().map(|p| p.len() + ANSWER_BYTES).sum();
        let snapshots = if query.paths.is_empty() { query.snapshots.len().max(query.mounts.len()).max(1) } else { 0 };
        let cost = part.name.len() + paths.max(snapshots * ANSWER_BYTES);
        match chunks.last_mut() {
            Some(last) if cost <= room => {
                last.push((part, query));
                room -= cost;
            }
            _ => {
                room = (OUTCOME_LIMIT - OUTCOME_SLACK).saturating_sub(cost);
                chunks.push(vec![(part, query)]);
            }
        }
    }
    chunks
}

/// Whether a host with this failure has nothing to restore: a repository without any backup is as empty as a repository
/// without a snapshot of the host.
pub fn has_no_data(failure: &Failure) -> bool {
    NO_DATA.contains(&failure.reason.as_str())
}

/// Pins what was found for a host.
///
/// # Errors
/// The answer cannot be read, or names no snapshot.
pub fn pin(host: &mut HostRestoreStats, found: &Found, rule: Option<&Rule>) -> Result<(), Failure> {
    let asked: Vec<String> = rule.iter().flat_map(|r| &r.paths).map(|p| normal_path(p)).collect();
    let fixed = Pins::read(found.pin.as_ref());
    let pins = fixed.unpacked(&asked).map_err(|why| {
        let text = format!("The result of the preflight could not be parsed: {why}.");
        Failure::new(Class::Fatal, reason::AGENT_FAILED, text)
    })?;
    if pins.is_empty() {
        return Err(Failure::new(Class::Data, reason::SNAPSHOT_NOT_FOUND, "The preflight found no snapshot."));
    }
    host.planned = Counts::of_planned(&found.planned).map(counts);
    host.owner.clone_from(&fixed.owner);
    host.snapshots = pins.into_iter().map(|s| PinnedSnapshot { id: s.id, time: Some(s.time), path: s.path }).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_query_is_lost_and_no_chunk_is_too_large(sizes in prop::collection::vec((0usize..4, 1usize..60), 0..60)) {
            let queries: Vec<Query> = sizes.iter().enumerate()
                .map(|(i, (paths, len))| (Part { member: 9, name: format!("h{i}") }, HostQuery { paths: vec!["x".repeat(*len); *paths], ..HostQuery::default() })).collect();
            let split = chunks(queries.clone());
            prop_assert_eq!(split.concat(), queries);
            for chunk in split {
                let pins = |q: &HostQuery| Pins {
                    snapshots: q.paths.iter().map(|p| crate::contract::restic::PinnedSnapshot { id: "a".repeat(64), time: "2026-11-20T16:40:27.123456789+00:00".into(), path: Some(p.clone()) }).collect(),
                    ..Pins::default()
                };
                let answers = chunk.iter().map(|(part, q)| Found { part: part.clone(), pin: pins(q).write(), ..Found::default() }).collect();
                let outcome = crate::contract::Outcome { version: 1, run: "r".repeat(36), seconds: 1.0, answer: Some(crate::contract::Answer::Found(answers)), ..Default::default() };
                prop_assert!(serde_json::to_string(&outcome).unwrap().len() <= OUTCOME_LIMIT);
            }
        }
    }
}
