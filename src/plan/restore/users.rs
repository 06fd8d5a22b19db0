//! Other users of what a member restores: pods of other workloads, and other members with the same workload.

use std::collections::BTreeSet;

use crate::api::restore_batch::RestoreMemberStatus;
use crate::plan::restore::pass::{Pass, target_of};
use crate::plan::run::hosts;

/// Pods of other workloads that use the restored claims. They are not scaled down.
pub fn users(pass: &Pass<'_>, index: usize) -> BTreeSet<String> {
    let Some(target) = target_of(pass.seen, index) else { return BTreeSet::new() };
    let reaches = pass.reaches.iter().filter(|((member, _), _)| *member == index);
    let claims: BTreeSet<&str> = reaches.flat_map(|(_, reach)| reach.claims()).collect();
    let uses = |claim: &String| claims.contains(claim.as_str());
    target.others.iter().filter(|p| p.claims.iter().any(uses)).map(|p| p.name.clone()).collect()
}

/// Names of pods, as many as a message holds.
pub fn named(pods: &BTreeSet<String>) -> String {
    const MOST: usize = 10;
    let names: Vec<&str> = pods.iter().take(MOST).map(String::as_str).collect();
    let more = if pods.len() > MOST { format!(" and {} more", pods.len() - MOST) } else { String::new() };
    names.join(", ") + &more
}

/// Other members of the run with the same target, however the target is written.
pub fn others<'p>(pass: &'p Pass<'_>, index: usize) -> impl Iterator<Item = &'p RestoreMemberStatus> {
    let own = hosts::target_key(&pass.now.members[index].ref_);
    let same = move |m: &RestoreMemberStatus| own.is_some() && hosts::target_key(&m.ref_) == own;
    pass.now.members.iter().enumerate().filter(move |(i, m)| *i != index && same(m)).map(|(_, m)| m)
}
